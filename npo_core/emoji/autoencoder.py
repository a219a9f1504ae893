"""The emoji family's autoencoder: patches in, patches out, almost all work on the 8x8 grid.

A stock AutoencoderKL upsamples by repeating pixels and must learn from the data where inside a patch it stands, which
takes far more computing than this family has. Here the encoder is two strided convolutions (a principal component
basis in closed form, train/emoji/latents.py) and the decoder starts from the same basis's way back, moved to pixels by
pixel shuffle; a small residual net learns the rest. It answers like AutoencoderKL, so stock pipelines run it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import nn
from torch.nn import functional

QUIET = -30.0  # log-variance of the posterior: the encoder is certain


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), silent at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) -> the same shape."""
        hidden: torch.Tensor = self.conv2(functional.silu(self.conv1(functional.silu(self.norm(x)))))
        return x + hidden


class PatchEncoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, latent_channels, H/16, W/16), linear."""

    def __init__(self, inner_channels: int, latent_channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, inner_channels, 8, stride=8, bias=False)
        self.outer = nn.Conv2d(inner_channels, latent_channels, 2, stride=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = self.outer(self.inner(pixels))
        return latents


class PatchDecoder(nn.Module):
    """(B, latent_channels, h, w) -> (B, 3, 16h, 16w): the linear way back, plus what a residual net adds.

    The net works at the latents' size (`width` channels), then four times larger (`fine_width` channels).
    """

    def __init__(self, latent_channels: int, width: int, blocks: int, fine_width: int, fine_blocks: int) -> None:
        super().__init__()
        self.back = nn.Conv2d(latent_channels, 3 * 16 * 16, 1)
        self.conv_in = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.unfold = nn.Conv2d(width, fine_width * 16, 1)
        self.fine_in = nn.Conv2d(3 * 4 * 4 + fine_width, fine_width, 3, padding=1)
        self.fine_blocks = nn.Sequential(*(ResidualBlock(fine_width) for _ in range(fine_blocks)))
        self.fine_out = nn.Conv2d(fine_width, 3 * 4 * 4, 3, padding=1)
        for parameter in self.fine_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        drawn = functional.pixel_shuffle(self.back(latents), 16)  # (B, 3, 16h, 16w)
        coarse = self.blocks(self.conv_in(latents))  # (B, width, h, w)
        fine = functional.pixel_shuffle(self.unfold(coarse), 4)  # (B, fine_width, 4h, 4w)
        fine = self.fine_in(torch.cat([functional.pixel_unshuffle(drawn, 4), fine], 1))
        detail: torch.Tensor = self.fine_out(functional.silu(self.fine_blocks(fine)))  # (B, 48, 4h, 4w)
        return drawn + functional.pixel_shuffle(detail, 4)


class PatchAutoencoder(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Latents are 1/16 of the picture's size. `block_out_channels` only tells pipelines that factor: 2**(5-1)."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        inner_channels: int = 128,
        width: int = 256,
        blocks: int = 4,
        fine_width: int = 96,
        fine_blocks: int = 2,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1, 1),
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = PatchEncoder(inner_channels, latent_channels)
        self.decoder = PatchDecoder(latent_channels, width, blocks, fine_width, fine_blocks)

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        """(B, 3, H, W) in [-1, 1] -> a posterior whose mean and mode are the latents; H and W multiples of 16."""
        mean = self.encoder(x)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, QUIET)], 1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None) -> Any:
        """(B, latent_channels, h, w) -> pictures (B, 3, 16h, 16w), about [-1, 1]; `generator` is not used."""
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)
