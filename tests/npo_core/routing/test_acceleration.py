from __future__ import annotations

import pytest
import torch

from npo_core.routing.acceleration import CapturedForward, Once, cross_attention_projections
from npo_core.routing.batch import RoutedBatch
from npo_core.variants import ALIGNED, BASE, Mix
from tests.npo_core.routing.test_weight_sets import FULL_ETA, LORA_DELTA, LORA_ETA, UNET, noise, routed_unet
from tests.tiny import tiny_full_weights, tiny_pipeline, tiny_weights

MIXES = [BASE, ALIGNED, Mix(1.0, 1.0)]


def test_a_function_of_the_same_tensor_is_computed_once() -> None:
    calls = []

    def double(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 2 * x

    once, x = Once(double), torch.ones(2)
    assert once(x) is once(x)
    assert len(calls) == 1
    assert once(torch.ones(2)) is not once(x)
    x.add_(1)  # the same tensor with other numbers in it
    assert torch.equal(once(x), torch.full((2,), 4.0))
    before = len(calls)
    once.forget()
    once(x)
    assert len(calls) == before + 1
    with torch.inference_mode():
        assert torch.equal(once(torch.ones(2)), torch.full((2,), 2.0))


def test_keys_and_values_of_the_text_are_computed_once_for_all_steps() -> None:
    routed = routed_unet(LORA_ETA, LORA_DELTA)
    layers = cross_attention_projections(routed.unet)
    assert len(layers) == 2 * sum(name.endswith("attn2") for name, _ in routed.unet.named_modules())
    text, other = noise(3, 7, 32), noise(3, 7, 32) + 1
    seen: list[int] = []
    linear = torch.nn.functional.linear

    def counting(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(x is text or x is other)
        return linear(x, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), routed.rows(MIXES):
        patch.setattr(torch.nn.functional, "linear", counting)
        counts, outputs = [], []
        for given in (text, text, other, text):
            seen.clear()
            outputs.append(routed(noise(3, 4, 8, 8), 500, encoder_hidden_states=given).sample)
            counts.append(sum(seen))
    # Each has its own weights and an adapter's; then nothing; then another text, and the first one again.
    assert counts == [2 * len(layers), 0, 2 * len(layers), 2 * len(layers)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("eta", [LORA_ETA, FULL_ETA], ids=["low_rank", "full"])
def test_a_batch_takes_over_other_shares_and_adapters_without_moving_a_tensor(eta: object) -> None:
    adapters: dict = {"aligned": eta, "negative": LORA_DELTA}
    batch = RoutedBatch(UNET, adapters, MIXES)
    places = [tensor.data_ptr() for tensor in batch._values()]
    sample, text = noise(3, 4, 8, 8), noise(3, 7, 32)
    newer = {**adapters, "negative": tiny_weights(seed=9).to(dtype=torch.float64)}
    with torch.no_grad():
        with batch.installed():
            batch.forward(sample, 500, text)
        for mixes, given in (
            ([BASE, ALIGNED, Mix(1.0, -0.7)], adapters),
            ([BASE, ALIGNED, ALIGNED], adapters),
            (MIXES, newer),
        ):
            other = RoutedBatch(UNET, given, mixes, batch.roles)
            with other.installed():
                expected = other.forward(sample, 500, text).sample
            assert batch.adopt(other)
            assert [tensor.data_ptr() for tensor in batch._values()] == places
            with batch.installed():
                assert torch.equal(batch.forward(sample, 500, text).sample, expected)


def test_a_batch_of_another_structure_is_not_taken_over() -> None:
    batch = RoutedBatch(UNET, {"aligned": LORA_ETA, "negative": LORA_DELTA}, MIXES)
    higher_rank = tiny_weights(seed=2, rank=6).to(dtype=torch.float64)
    for other in (
        RoutedBatch(UNET, {"aligned": LORA_ETA, "negative": LORA_DELTA}, MIXES[:2], batch.roles),
        RoutedBatch(UNET, {"aligned": LORA_ETA, "negative": higher_rank}, MIXES),
        RoutedBatch(UNET, {"aligned": FULL_ETA, "negative": LORA_DELTA}, MIXES),
    ):
        assert not batch.adopt(other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["cuda_graph", "compiled_cuda_graph"])
@torch.no_grad()
def test_a_recording_answers_as_the_eager_unet_does(kind: str, full: bool) -> None:
    unet = tiny_pipeline().unet.cuda().eval()
    eta = tiny_full_weights(unet, seed=3) if full else tiny_weights(seed=1)
    recorded, eager = (routed_unet(eta, tiny_weights(seed=2), unet=unet) for _ in range(2))
    sample, text = noise(3, 4, 8, 8).float().cuda(), noise(3, 7, 32).float().cuda()
    with recorded.rows(MIXES, kind):
        recorded(sample, 500, text)
    for beta in (1.0, 0.3, 0.0):
        for prompt in (text, text + 1):
            outputs = []
            for routed in (recorded, eager):
                with routed.rows([BASE, ALIGNED, Mix(1.0, beta)]):
                    outputs.append(routed(sample, torch.tensor(100, device="cuda"), prompt).sample)
            assert torch.allclose(*outputs, atol=1e-4)
            assert (recorded.ran, eager.ran) == (kind, "eager")
    with recorded.rows([BASE]):
        recorded(sample[:1], 500, text[:1])
    assert recorded.ran == "eager", "no recording fits"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_captured_function_follows_its_arguments() -> None:
    x = torch.ones(3, device="cuda")
    captured = CapturedForward(lambda x, scale: x * scale, x, scale=2)
    assert captured.fits(x, scale=2)
    assert not captured.fits(x, scale=3)
    assert not captured.fits(torch.ones(4, device="cuda"), scale=2)
    assert torch.equal(captured(x + 1, scale=2), torch.full((3,), 4.0, device="cuda"))
