from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from npo_core.catalog.families import FAMILIES, VideoSettings
from npo_core.errors import InputError
from npo_core.requests import GenerationRequest, resolve_request

EMOJI = replace(FAMILIES["emoji"], video=None)
CLIPS = replace(EMOJI, video=VideoSettings("motion", steps=12, guidance_scale=3.5, scheduler="euler", frames=8))
REQUEST = GenerationRequest("a red apple")


@pytest.mark.parametrize(
    ("name", "modality"), [(name, modality) for name in FAMILIES for modality in FAMILIES[name].modalities]
)
def test_the_defaults_of_every_family_are_allowed(name: str, modality: str) -> None:
    family = FAMILIES[name]
    resolved = resolve_request(replace(REQUEST, modality=modality), family)
    assert [entry for entry, value in vars(resolved).items() if value is None] == ["fps"] * (modality == "image")
    assert resolve_request(resolved, family) == resolved


def test_clips_have_defaults_of_their_own() -> None:
    clip = resolve_request(replace(REQUEST, modality="video"), CLIPS)
    assert (clip.steps, clip.guidance_scale, clip.scheduler, clip.frames, clip.fps) == (12, 3.5, "euler", 8, 8.0)
    assert (clip.alpha, clip.width_px) == (EMOJI.alpha, EMOJI.width_px)
    picture = resolve_request(REQUEST, CLIPS)
    assert (picture.steps, picture.scheduler, picture.frames, picture.fps) == (EMOJI.steps, "ddim", 1, None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": 1}, "The number of frames is 1; give a whole number from 2 to 64."),
        ({"frames": 65}, "The number of frames is 65;"),
        ({"frames": 8.0}, "The number of frames is 8.0;"),
        ({"fps": 0.5}, "The number of frames a second is 0.5; give a number from 1 to 60."),
        ({"fps": math.nan}, "The number of frames a second is nan;"),
        ({"modality": "image", "frames": 16}, "A picture has one frame; leave frames and fps out"),
        ({"modality": "image", "fps": 8.0}, "A picture has one frame;"),
        ({"modality": "sound"}, "Family 'emoji' does not make modality 'sound'; choose from image, video."),
    ],
)
def test_a_length_that_is_not_allowed_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        resolve_request(replace(REQUEST, **{"modality": "video"} | change), CLIPS)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": ""}, "The prompt is empty; write what the picture should show."),
        ({"seed": -1}, "The seed is -1; give a whole number from 0 to 9223372036854775807."),
        ({"seed": 2**63}, "The seed is 9223372036854775808; give a whole number from 0"),
        ({"seed": 1.5}, "The seed is 1.5; give a whole number"),
        ({"steps": 0}, "The number of steps is 0; give a whole number from 1 to 200."),
        ({"steps": 201}, "The number of steps is 201;"),
        ({"guidance_scale": 0.0}, "The guidance scale is 0.0; give a number above 0 and at most 30."),
        ({"guidance_scale": 30.5}, "The guidance scale is 30.5;"),
        ({"guidance_scale": math.nan}, "The guidance scale is nan;"),
        ({"alpha": -2.1}, "Alpha is -2.1; give a number from -2 to 4."),
        ({"beta": math.inf}, "Beta is inf; give a number from -2 to 4."),
        ({"width_px": 76}, "The width in pixels is 76; give a multiple of 8 from 64 to 256."),
        ({"height_px": 264}, "The height in pixels is 264; give a whole number from 64 to 256."),
        ({"variants": ("base", "best")}, "Unknown variant 'best'; choose from base, aligned, aligned_npo"),
        ({"variants": ()}, "No variant was asked for"),
        ({"variants": ("base", "base")}, "name one twice"),
        ({"scheduler": "ddpm"}, "Unknown scheduler 'ddpm'; choose from ddim, euler, dpmsolver++."),
        ({"modality": "sound"}, "Family 'emoji' does not make modality 'sound'; choose from image."),
    ],
)
def test_what_is_not_allowed_is_refused_saying_what_is(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        resolve_request(replace(REQUEST, **change), EMOJI)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "change", [{"seed": 2**63 - 1}, {"steps": 1}, {"guidance_scale": 30}, {"width_px": 64, "height_px": 256}]
)
def test_the_ends_of_the_ranges_are_allowed(change: dict[str, Any]) -> None:
    resolved = resolve_request(replace(REQUEST, **change), EMOJI)
    assert {name: getattr(resolved, name) for name in change} == change
