from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat, PngImagePlugin

from npo_core.errors import InputError
from npo_core.media.files import (
    CLIP_EXPORTS,
    mp4_bytes,
    open_clip,
    open_image,
    png_bytes,
    poster_png,
    sha256_hex,
)
from npo_core.media.layout import clips_side_by_side, draw_grid, side_by_side

COLOURS = ("#e03020", "#30a050", "#2040c0", "#f0d020")


def clip(size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """Four frames: a bar of its own colour moves to the right on grey."""
    frames = []
    for number, colour in enumerate(COLOURS):
        frame = Image.new("RGB", size, "#808080")
        frame.paste(colour, (8 + 12 * number, 8, 20 + 12 * number, 40))
        frames.append(frame)
    return frames


def distance(one: Image.Image, other: Image.Image) -> float:
    """The mean absolute difference of two pictures, in grey levels."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def test_a_png_carries_nothing_but_its_pixels() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("variant", "aligned_npo")
    buffer = io.BytesIO()
    plain = Image.new("RGB", (8, 8), "red")
    plain.save(buffer, "PNG", pnginfo=info, dpi=(72, 72))
    tagged = Image.open(io.BytesIO(buffer.getvalue()))
    assert tagged.info
    assert png_bytes(tagged) == png_bytes(plain)
    assert Image.open(io.BytesIO(png_bytes(tagged))).info == {}


def test_png_bytes_keep_every_pixel() -> None:
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    assert open_image(png_bytes(image)).tobytes() == image.tobytes()


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(InputError, match="These 4 bytes are not a picture"):
        open_image(b"text")
    with pytest.raises(InputError, match="not a picture"):
        open_image(png_bytes(Image.effect_noise((64, 64), 80))[:200])


def test_the_hash_is_that_of_the_published_example() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_pictures_stand_side_by_side_at_their_own_size_under_their_labels() -> None:
    colours = ["red", "green", "blue"]
    strip = side_by_side([Image.new("RGB", (64, 64), colour) for colour in colours], ["A", "B", "A very long label"])
    assert strip.width == 3 * 64 + 4 * 4
    for number, colour in enumerate(colours):
        left = 4 + number * 68
        panel = strip.crop((left, 20, left + 64, 84))
        assert panel.tobytes() == Image.new("RGB", (64, 64), colour).tobytes()
        band = strip.crop((left, 0, left + 64, 20)).convert("L")
        assert min(band.tobytes()) < 128, "there is a label"
    gaps = strip.crop((68, 0, 72, strip.height)).convert("L")
    assert gaps.getextrema() == (255, 255), "a long label does not run into its neighbour"


def test_every_picture_needs_a_label() -> None:
    with pytest.raises(ValueError, match="not 1 for 2"):
        side_by_side([Image.new("RGB", (8, 8))] * 2, ["A"])
    with pytest.raises(ValueError, match="not 0 for 0"):
        side_by_side([], [])


def test_a_clip_comes_back_frame_by_frame_in_its_colours() -> None:
    frames = clip()
    back = open_clip(mp4_bytes(frames, 8.0))
    assert len(back) == 4
    assert all(distance(one, other) < 4 for one, other in zip(frames, back, strict=True))
    for number, colour in enumerate(COLOURS):  # in the middle of the bar, where halved colours do not blur
        wanted = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        found = back[number].getpixel((14 + 12 * number, 24))
        assert isinstance(wanted, tuple)
        assert isinstance(found, tuple)
        assert max(abs(a - b) for a, b in zip(wanted, found, strict=True)) <= 6


@pytest.mark.needs("ffprobe")
def test_a_clip_is_what_browsers_play_and_says_nothing_of_its_maker(tmp_path: Path) -> None:
    data = mp4_bytes(clip(), 8.0)
    assert data.index(b"moov") < data.index(b"mdat"), "the header comes first"
    assert not any(word in data for word in (b"x264", b"Lavf", b"Lavc"))
    (tmp_path / "clip.mp4").write_bytes(data)
    probe = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", "-show_frames"]
    told: dict[str, Any] = json.loads(
        subprocess.run([*probe, tmp_path / "clip.mp4"], capture_output=True, check=True).stdout
    )
    (stream,) = told["streams"]
    expected = {
        "codec_name": "h264",
        "profile": "High",
        "pix_fmt": "yuv420p",
        "color_range": "tv",
        "color_space": "bt709",
        "color_transfer": "bt709",
        "color_primaries": "bt709",
        "avg_frame_rate": "8/1",
        "nb_frames": "4",
        "width": 64,
        "height": 48,
    }
    assert {name: stream[name] for name in expected} == expected
    assert [(frame["key_frame"], float(frame["best_effort_timestamp_time"])) for frame in told["frames"]] == [
        (1, number / 8) for number in range(4)
    ]
    tags = {**stream["tags"], **told["format"]["tags"]}
    assert tags.keys() <= {
        "language", "handler_name", "vendor_id", "major_brand", "minor_version", "compatible_brands",
    }  # fmt: skip


def test_the_same_frames_are_the_same_bytes() -> None:
    assert mp4_bytes(clip(), 8.0) == mp4_bytes(clip(), 8.0)
    assert mp4_bytes(clip(), 8.0) != mp4_bytes(clip()[::-1], 8.0)


def test_frames_of_an_odd_size_get_one_more_row_and_column() -> None:
    back = open_clip(mp4_bytes(clip((63, 47)), 8.0))
    assert back[0].size == (64, 48)
    assert distance(back[1].crop((0, 0, 63, 47)), clip((63, 47))[1]) < 4


def test_a_clip_of_no_frames_and_bytes_that_are_no_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        mp4_bytes([], 8.0)
    with pytest.raises(InputError, match="These 4 bytes are not a clip"):
        open_clip(b"text")
    with pytest.raises(InputError, match="are not a clip"):
        open_clip(mp4_bytes(clip(), 8.0)[:400])


def test_the_poster_of_a_clip_is_its_first_frame() -> None:
    assert distance(open_image(poster_png(mp4_bytes(clip(), 8.0))), clip()[0]) < 4


@pytest.mark.parametrize("name", CLIP_EXPORTS)
def test_an_export_loops_with_all_frames_at_their_pace(name: str) -> None:
    _, write = CLIP_EXPORTS[name]
    picture: Any = Image.open(io.BytesIO(write(clip(), 8.0)))
    assert (picture.n_frames, picture.info["loop"]) == (4, 0)
    for number, frame in enumerate(clip()):
        picture.seek(number)
        assert distance(picture.convert("RGB"), frame) < 4


def durations_ms(data: bytes) -> list[int]:
    """How long the file says that each frame is shown."""
    picture: Any = Image.open(io.BytesIO(data))
    found = []
    for number in range(picture.n_frames):
        picture.seek(number)
        picture.load()
        found.append(picture.info["duration"])
    return found


@pytest.mark.parametrize("name", CLIP_EXPORTS)
@pytest.mark.parametrize("fps", [1.0, 6.0, 7.5, 8.0, 12.0, 24.0, 30.0, 50.0])
def test_an_export_lasts_as_long_as_its_clip(name: str, fps: float) -> None:
    found = durations_ms(CLIP_EXPORTS[name][1](clip() * 4, fps))
    assert len(found) == 16
    tick_ms = 10 if name == "gif" else 1
    assert abs(sum(found) - 16_000 / fps) <= tick_ms / 2
    assert max(found) - min(found) <= tick_ms, "evenly"


def test_a_gif_has_no_frame_so_short_that_browsers_slow_it_down() -> None:
    assert durations_ms(CLIP_EXPORTS["gif"][1](clip() * 4, 60.0)) == [20] * 16
    assert sum(durations_ms(CLIP_EXPORTS["webp"][1](clip() * 4, 60.0))) == 267


def test_a_grid_has_its_pictures_under_and_beside_their_labels_and_needs_none() -> None:
    rows = [[Image.new("RGB", (64, 48), colour) for colour in COLOURS[row : row + 2]] for row in (0, 2)]
    bare = draw_grid(rows)
    assert bare.size == (2 * 68 + 4, 2 * 52 + 4)
    labelled = draw_grid(rows, ["alpha 0", "alpha 1"], ["beta 0", "beta 1"])
    left_px, top_px = labelled.width - bare.width + 4, labelled.height - bare.height + 4
    for row in range(2):
        for column in range(2):
            middle = (column * 68 + 32, row * 52 + 24)
            expected = rows[row][column].getpixel((0, 0))
            assert bare.getpixel((4 + middle[0], 4 + middle[1])) == expected
            assert labelled.getpixel((left_px + middle[0], top_px + middle[1])) == expected
    above, beside = labelled.crop((left_px, 0, labelled.width, top_px)), labelled.crop((0, top_px, left_px - 4, 200))
    assert all(min(band.convert("L").getextrema()) < 100 for band in (above, beside)), "labels are written there"
    with pytest.raises(ValueError, match="zip"):
        draw_grid(rows, ["one label for two rows"])


def test_clips_stand_side_by_side_frame_by_frame() -> None:
    strip = clips_side_by_side([clip(), clip()[::-1]], ["A", "B"])
    assert [frame.tobytes() for frame in strip] == [
        side_by_side([one, other], ["A", "B"]).tobytes() for one, other in zip(clip(), clip()[::-1], strict=True)
    ]
