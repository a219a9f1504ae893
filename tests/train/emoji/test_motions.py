from __future__ import annotations

import pytest
import torch

from train.emoji.drawing.motions import MOTIONS, clip_times, pose_at, with_motion


@pytest.mark.parametrize("motion", [None, *MOTIONS])
def test_a_motion_stays_in_the_frame_and_shows_something(motion: str | None) -> None:
    pose = pose_at(motion, clip_times())
    assert all(values.shape == (16,) for values in vars(pose).values())
    assert max(pose.dx.abs().max(), pose.dy.abs().max()) <= 0.3
    assert 0.5 <= pose.scale.min() <= pose.scale.max() <= 1.3
    assert 0.1 <= pose.opacity.min() <= pose.opacity.max() <= 1


def test_every_motion_moves_in_its_own_direction() -> None:
    def change(motion: str, what: str) -> float:
        values = getattr(pose_at(motion, clip_times()), what)
        return float(values[-1] - values[0])

    assert change("slide_left", "dx") < -0.4 < 0.4 < change("slide_right", "dx")
    assert change("zoom_out", "scale") < -0.6 < 0.6 < change("zoom_in", "scale")
    assert change("spin", "angle") > 300
    assert change("fade", "opacity") < -0.7
    ups = pose_at("bounce", clip_times()).dy
    assert torch.allclose(ups[:8], ups[8:], atol=1e-6), "two bounces a clip"
    assert int((pose_at("shake", clip_times()).dx.sign().diff() != 0).sum()) >= 4


def test_a_caption_says_the_motion_after_the_thing() -> None:
    assert with_motion("a red apple, 3d style, blue background", "slide_left") == (
        "a red apple sliding left, 3d style, blue background"
    )
    assert with_motion("a cat", "spin") == "a cat spinning"
    assert with_motion("a cat, flat style", None) == "a cat, flat style"
