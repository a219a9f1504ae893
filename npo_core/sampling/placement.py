"""What goes where on a device that is too small for everything at once, and how much is decoded at once. Pure.

The arithmetic is rough and errs towards too much; it is for choosing between ways that differ severalfold. What does
not fit all the same is told by one sentence (`Sampler.sample`), and the next request works.
"""

from __future__ import annotations

from dataclasses import dataclass

RESIDENT, STAGED, STREAMED = "resident", "staged", "streamed"

PLACEMENTS: dict[str, str] = {
    RESIDENT: "everything stays on the device",
    STAGED: "the UNet stays on the device; text encoders, VAE and safety checker come from host memory when used",
    STREAMED: "all of it comes from host memory when used, the UNet block by block: slow",
}

ROWS = 6  # of the UNet's batch in a comparison of three variants
UNET_TENSORS = 50  # of full width and resolution, that a row keeps at the peak, attention included
DECODER_TENSORS = 4  # likewise for a picture in the VAE's last block
MAX_DECODED = 8  # pictures at once; more is not faster
TILING_SHARE = 0.5  # of the free memory that one picture may take before it is decoded in tiles


@dataclass(frozen=True)
class Footprint:
    """Bytes of a loaded pipeline: its UNet, everything else, what a comparison needs on top while it runs, and an
    aligned model that is a whole UNet of its own (which can be streamed, see `execution`)."""

    unet: int
    others: int
    working: int
    fine_tuned: int = 0


@dataclass(frozen=True)
class Placement:
    """One of PLACEMENTS and why it was taken."""

    name: str
    reason: str


def working_bytes(height_px: int, width_px: int, scale: int, width: int, item_bytes: int) -> int:
    """What ROWS rows of pictures of this size need in a UNet whose first block is `width` channels wide.

    scale: pixels that one latent spans. item_bytes: of one number.
    """
    return ROWS * UNET_TENSORS * (height_px // scale) * (width_px // scale) * width * item_bytes


def choose_placement(needed: Footprint, free_bytes: int | None) -> Placement:
    """Where a pipeline goes on a device with `free_bytes` free; None stands for a host that is its own device."""
    if free_bytes is None:
        return Placement(RESIDENT, "there is no other memory")
    everything = needed.unet + needed.others + needed.working + needed.fine_tuned
    free = f"{free_bytes / 1e9:.1f} GB are free"
    if everything <= free_bytes:
        return Placement(RESIDENT, f"{everything / 1e9:.1f} GB are needed and {free}")
    if needed.unet + needed.working <= free_bytes:
        return Placement(STAGED, f"{everything / 1e9:.1f} GB are needed for everything and {free}")
    return Placement(
        STREAMED, f"{(needed.unet + needed.working) / 1e9:.1f} GB are needed for the UNet alone and {free}"
    )


def decoded_at_once(pixels: int, width: int, item_bytes: int, free_bytes: int | None) -> tuple[int, bool]:
    """(pictures that the VAE decodes in one call, whether each has to be decoded in tiles).

    width: channels of the decoder at full resolution, the wider of its last two blocks.
    """
    if free_bytes is None:
        return MAX_DECODED, False
    one = DECODER_TENSORS * pixels * width * item_bytes
    return max(1, min(MAX_DECODED, free_bytes // one)), one > TILING_SHARE * free_bytes
