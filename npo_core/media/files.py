"""Pictures and clips as bytes and back, and their hashes. Nothing else in the project writes or reads media formats."""

from __future__ import annotations

import hashlib
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from npo_core.errors import InputError

PNG_MEDIA_TYPE = "image/png"
MP4_MEDIA_TYPE = "video/mp4"
SUFFIXES = {PNG_MEDIA_TYPE: ".png", MP4_MEDIA_TYPE: ".mp4"}

MOST_PIXELS = 80_000_000  # of one picture: a quarter of a GB as RGB

_CRF = "14"  # of x264: hardly to be told from the frames, and small clips are small files anyway


def png_bytes(image: Image.Image) -> bytes:
    """`image` as PNG without any metadata: two pictures with the same pixels are the same bytes."""
    bare = image.convert("RGB").copy()
    bare.info.clear()
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG")
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """The RGB picture in `data` (any format that Pillow reads) as a viewer shows it, of an animation the first frame.

    It stands upright as EXIF says, 16 bits become 8, and what is transparent shows white. Raises InputError when there
    is no picture, or one of more than MOST_PIXELS, which is not even decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is stricter
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"The picture has {image.width} x {image.height} pixels and at most {MOST_PIXELS:,} are read; make "
                    "it smaller."
                )
            return _opaque(_upright(image))
    except Image.DecompressionBombError as error:
        raise InputError(f"The picture is too large ({error}); make it smaller.") from None
    except InputError:
        raise
    except Exception as error:  # on broken bytes decoders raise whatever they come across
        reason = str(error) or type(error).__name__
        raise InputError(f"These {len(data)} bytes are not a picture ({reason}); give PNG, JPEG or WebP.") from None


def _upright(image: Image.Image) -> Image.Image:
    """`image` turned and mirrored as its EXIF data say; as it is where they cannot be read, as in a browser."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as for broken pictures
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """8-bit RGB of every mode."""
    if image.mode.startswith("I"):  # I;16, I;16B, and I, in which some formats keep 16 bits
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise InputError("The picture has pixels of more than 16 bits; save it with 8 or 16.")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 is 255 * 257
    elif image.mode == "F":
        raise InputError(
            "The picture has fractions for pixels, and which of them is white is not said; save it as PNG."
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def mp4_bytes(frames: Sequence[Image.Image], fps: float) -> bytes:
    """`frames`, all of one size, as a clip that browsers play: H.264 High, yuv420p, BT.709, header first.

    Every frame is a keyframe, so that scrubbing and stepping land where they should. Nothing in the file says what
    made it or when, and the same frames are the same bytes. Frames of an odd size get one more row or column, for
    yuv420p halves its colours. Raises ValueError when there are no frames.
    """
    import av
    from av.bitstream import BitStreamFilterContext
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

    if not frames:
        raise ValueError("a clip needs at least one frame")
    # The header can only be moved to the front of a real file.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        muxing = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(file.name, "w", format="mp4", options=muxing) as container:
            stream = container.add_stream(
                "libx264",
                rate=Fraction(fps).limit_denominator(1000),
                options={"crf": _CRF, "preset": "slow", "g": "1", "bf": "0", "flags": "+bitexact"},
            )
            stream.width, stream.height = _even(frames[0].size)
            stream.pix_fmt = "yuv420p"
            encoder = stream.codec_context
            encoder.thread_count = 1  # the bytes must not depend on the machine
            encoder.color_range, encoder.colorspace = ColorRange.MPEG, Colorspace.ITU709
            encoder.color_primaries, encoder.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            packets = []
            for frame in frames:
                whole = frame.convert("RGB")
                whole = whole if whole.size == _even(whole.size) else _padded(whole)
                packets += stream.encode(
                    av.VideoFrame.from_image(whole).reformat(
                        format="yuv420p",
                        dst_colorspace=Colorspace.ITU709,
                        dst_color_range=ColorRange.MPEG,
                        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
                    )
                )
            packets += stream.encode(None)
            unsigned = BitStreamFilterContext("filter_units=remove_types=6", stream)  # x264 signs in an SEI unit
            for packet in [*packets, None]:
                container.mux(unsigned.filter(packet))
        return Path(file.name).read_bytes()


def gif_bytes(frames: Sequence[Image.Image], fps: float) -> bytes:
    """`frames` as a GIF that loops: plays everywhere, with 256 colours.

    A GIF counts in hundredths of a second, and browsers play a frame of less than two of them as ten: above 50 frames a
    second it is slower than the clip.
    """
    return _animation(frames, frame_durations_ms(len(frames), fps, tick_ms=10, least=2), "GIF")


def webp_bytes(frames: Sequence[Image.Image], fps: float) -> bytes:
    """`frames` as an animated WebP that loops."""
    return _animation(frames, frame_durations_ms(len(frames), fps), "WEBP", quality=90, method=4)


def frame_durations_ms(frames: int, fps: float, tick_ms: int = 1, least: int = 1) -> list[int]:
    """How long each frame is shown, in whole ticks and at least `least` of them: rounding does not add up, so every
    frame ends within half a tick of its time."""
    durations_ms: list[int] = []
    for number in range(1, frames + 1):
        ends = round(number * 1000 / fps / tick_ms)
        durations_ms.append(tick_ms * max(least, ends - sum(durations_ms) // tick_ms))
    return durations_ms


CLIP_EXPORTS: dict[str, tuple[str, Callable[[Sequence[Image.Image], float], bytes]]] = {
    "gif": ("image/gif", gif_bytes),
    "webp": ("image/webp", webp_bytes),
}


def _animation(frames: Sequence[Image.Image], durations_ms: list[int], format: str, **options: int) -> bytes:
    first, *others = [frame.convert("RGB") for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, format=format, save_all=True, append_images=others, duration=durations_ms, loop=0, **options)
    return buffer.getvalue()


def open_clip(data: bytes) -> list[Image.Image]:
    """The RGB frames of the clip in `data`; raises InputError when there is none."""
    import av

    try:
        with av.open(io.BytesIO(data), "r") as container:
            return [frame.to_image() for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"These {len(data)} bytes are not a clip ({error}); give an MP4 file.") from None


def poster_png(clip: bytes) -> bytes:
    """What stands for a clip until it plays: its first frame, as PNG."""
    return png_bytes(open_clip(clip)[0])


def _even(size: tuple[int, int]) -> tuple[int, int]:
    width_px, height_px = size
    return width_px + width_px % 2, height_px + height_px % 2


def _padded(image: Image.Image) -> Image.Image:
    """`image` with its last column and row doubled where that makes the size even."""
    whole = Image.new("RGB", _even(image.size))
    for left, top in ((1, 1), (1, 0), (0, 1), (0, 0)):  # the picture itself last, on top
        whole.paste(image, (left, top))
    return whole


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file at `path`, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
