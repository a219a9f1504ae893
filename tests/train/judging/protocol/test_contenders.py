"""Ways to sample that only the protocol has: a negative in some of the steps, and positive minus negative."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from npo_core.catalog.adapter_files import Role
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from npo_core.routing.network import RoutedUNet
from npo_core.sampling.pipelines import load_pipeline
from npo_core.variants import ALIGNED, BASE, Mix
from npo_core.weights import LowRankWeights, fit, load_adapter
from tests.tiny import tiny_family
from train.judging.protocol.contenders import CONTENDERS, NPO, Setting
from train.judging.protocol.painting import Painter, requests_for


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def painter(family: ModelFamily) -> Painter:
    painter = Painter(family, "cpu")
    painter.wear(Generator(family, device="cpu").adapters())
    return painter


def painted(painter: Painter, family: ModelFamily, name: str, setting: Setting) -> Tensor:
    """(2, 3, 64, 64): two prompts."""
    requests = requests_for(family, ["a cat", "a red apple"], [3, 4], setting)
    mixes = CONTENDERS[name].mixes(setting.alpha, setting.beta)
    return painter.paint(requests, [mixes], setting.rescale, setting.interval, setting.gate)[0]


def test_a_gated_negative_is_there_where_its_gate_is_open(painter: Painter, family: ModelFamily) -> None:
    """Shut it leaves plain guidance, open the whole negative; over three steps each half does something of its own."""
    setting = Setting(4.0, alpha=1.0, beta=1.0)
    aligned, whole = (painted(painter, family, name, setting) for name in ("aligned", NPO))
    shut, open_, early, late = (
        painted(painter, family, NPO, replace(setting, gate=gate))
        for gate in ((2.0, 3.0), (0.0, 2.0), (0.5, 1.0), (0.0, 0.5))
    )
    assert torch.equal(shut, aligned)
    assert torch.equal(open_, whole)
    assert all(not torch.equal(half, other) for half in (early, late) for other in (aligned, whole))
    assert not torch.equal(early, late)


def test_pgd_is_the_base_and_a_share_of_positive_minus_negative(family: ModelFamily) -> None:
    """base + w (positive - negative), to first order in small offsets; nothing at w 0; the same on both branches."""
    pipeline = load_pipeline(family)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 32))
    roles: tuple[Role, ...] = ("aligned", "negative")
    small = {role: scaled(load_adapter(str(getattr(family, role))), 0.01) for role in roles}

    def predicted(mix: Mix) -> Tensor:
        unet = RoutedUNet(pipeline.unet)
        for role, weights in small.items():
            unet.set_adapter(role, fit(weights, pipeline.unet, role))
        with torch.no_grad(), unet.rows([mix]):
            return unet(*inputs).sample

    base, positive, negative = predicted(BASE), predicted(ALIGNED), predicted(Mix(0.0, 1.0))
    for share in (0.5, 1.0):
        conditional, unconditional = CONTENDERS["pgd"].mixes(share, 0.0)
        assert conditional == unconditional
        change = predicted(conditional) - base
        expected = share * (positive - negative)
        assert float((change - expected).norm() / expected.norm()) < 0.05
    assert CONTENDERS["pgd"].mixes(0.0, 0.0) == (BASE, BASE)


def scaled(weights: LowRankWeights, share: float) -> LowRankWeights:
    return LowRankWeights({n: replace(layer, scale=layer.scale * share) for n, layer in weights.layers.items()})
