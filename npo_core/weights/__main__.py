"""Published weights: fetch a family, turn a fine-tuned model into a LoRA, convert a pickle.

    python -m npo_core.weights fetch --family sd15
    python -m npo_core.weights extract --base stable-diffusion-v1-5/stable-diffusion-v1-5/unet \\
        --tuned Lykon/DreamShaper/unet --rank 64 --out dreamshaper-lora
    python -m npo_core.weights convert old.bin new.safetensors --run-pickle

--base and --tuned are folders in diffusers layout, or Hub ids with the folder; --tuned may also be a state dict. A
family made by NPO_FAMILIES can be fetched too. Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from npo_core.catalog.custom_families import add_families
from npo_core.catalog.families import FAMILIES, get_family
from npo_core.console import exit_status
from npo_core.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: options.run(options))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m npo_core.weights", description="Published weights.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fetching = commands.add_parser("fetch", help="download what a family needs and nothing else")
    fetching.set_defaults(run=run_fetch)
    fetching.add_argument("--family", required=True, help=f"one of {', '.join(FAMILIES)}, or of NPO_FAMILIES")
    extracting = commands.add_parser("extract", help="the LoRA closest to what fine-tuning changed, by SVD")
    extracting.set_defaults(run=run_extract)
    extracting.add_argument("--base", required=True, help="folder (or Hub id) of the UNet that was tuned")
    extracting.add_argument("--tuned", required=True, help="folder, file or Hub id of the tuned UNet")
    extracting.add_argument("--rank", type=int, default=64, help="rank of the LoRA (default: %(default)s)")
    extracting.add_argument("--out", type=Path, required=True, help="folder to write")
    converting = commands.add_parser("convert", help="make a safetensors file of a .bin, .pt, .pth or .ckpt file")
    converting.set_defaults(run=run_convert)
    converting.add_argument("source", type=Path, help="the pickle")
    converting.add_argument("target", type=Path, help="the safetensors file to write")
    converting.add_argument(
        "--run-pickle",
        action="store_true",
        help="required: reading a pickle RUNS CODE that whoever made the file put into it, with all your rights; "
        "give this only for a file from someone you trust",
    )
    return parser


def run_fetch(options: argparse.Namespace) -> None:
    from npo_core.catalog import hub

    add_families(os.environ.get("NPO_FAMILIES"))
    family = get_family(options.family)
    hub.fetch(family, print)
    print(f"{family.label} is complete on this machine.")


def run_extract(options: argparse.Namespace) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    from npo_core.catalog import hub
    from npo_core.catalog.references import locate
    from npo_core.weights import FullWeights, extract_low_rank, fit, load_weights, save_adapter

    if options.rank < 1:
        raise InputError(f"The rank is {options.rank}; give a whole number above 0.")
    folder = locate(options.base)
    try:
        unet = UNet2DConditionModel.from_pretrained(folder, use_safetensors=True, variant=hub.variant(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{options.base} is not the folder of a UNet ({str(error).splitlines()[0]}).") from None
    tuned = fit(load_weights(options.tuned), unet, options.tuned)
    if not isinstance(tuned, FullWeights):
        raise InputError(f"{options.tuned} is a LoRA already; give a whole UNet.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not all(torch.isfinite(tensor).all() for tensor in unet.state_dict().values()):
        raise InputError(f"{options.base} has numbers that are not finite (NaN or infinity); download it again.")
    made = extract_low_rank(unet.state_dict(), tuned, unet, options.rank, device)
    if not made.weights.layers:
        raise InputError(f"{options.tuned} differs from {options.base} in no layer that a LoRA can hold.")
    try:
        print(save_adapter(made.weights, options.out))
    except OSError as error:
        raise InputError(f"{options.out} cannot be written ({error.strerror}); give another --out.") from None
    worst = max(made.errors, key=lambda name: made.errors[name])
    print(
        f"relative error {made.relative_error:.4f} (1 is no LoRA at all) over {len(made.errors)} layers; "
        f"{made.left_out:.2%} of the squared offset is in norms and biases, which no LoRA holds; "
        f"worst layer {worst} with {made.errors[worst]:.4f}"
    )


def run_convert(options: argparse.Namespace) -> None:
    from npo_core.weights.pickles import read_pickle, write_safetensors

    if not options.run_pickle:
        raise InputError(
            f"{options.source} was not read, for a pickle can run code that was hidden in it; if you trust whoever "
            "made it, pass --run-pickle."
        )
    if options.target.suffix != ".safetensors":
        raise InputError(f"The target {options.target} should end in .safetensors; give such a name.")
    tensors, others = read_pickle(options.source)
    write_safetensors(tensors, options.target)
    left_out = f", {len(others)} entries left out that are no tensors ({', '.join(others[:3])})" if others else ""
    print(f"{options.target}: {len(tensors)} tensors{left_out}")


if __name__ == "__main__":
    sys.exit(main())
