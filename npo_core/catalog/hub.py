"""What a family needs on this machine, what of it is missing, and fetching just that from the Hub. No torch.

Loading never goes to the network: what is not here is said in one sentence, with the command that fetches it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, PEFT_FILE_NAME, locate_adapter, weight_files
from npo_core.catalog.families import ModelFamily
from npo_core.catalog.references import find, locate, on_hub, split
from npo_core.errors import InputError

Kind = Literal["pipeline", "component", "weights"]

INDEX_NAME = "model_index.json"
WEIGHT_STEMS = ("diffusion_pytorch_model", "model")  # of diffusers and of transformers
VARIANTS = ("", ".fp16")  # full precision first: an offset is a small difference of large numbers


@dataclass(frozen=True)
class Need:
    """One thing that a family is made of. Of a pipeline the components in `without` come from elsewhere."""

    what: str
    reference: str
    kind: Kind
    without: tuple[str, ...] = ()


def needs(family: ModelFamily, modality: str = "image") -> list[Need]:
    """Everything that must be on this machine before `family` can make what `modality` says."""
    shell = family.pipeline or family.base
    replaced = ["unet"] * bool(family.pipeline) + ["vae"] * bool(family.vae)
    found = [Need("pipeline" if family.pipeline else "base model", shell, "pipeline", tuple(replaced))]
    if family.pipeline:
        found.append(Need("base UNet", f"{family.base}/unet", "component"))
    if family.vae:
        found.append(Need("VAE", family.vae, "component"))
    for what, reference in (("aligned weights", family.aligned), ("negative weights", family.negative)):
        if reference:
            found.append(Need(what, reference, "weights"))
    if modality == "video" and family.video:
        found.append(Need("motion adapter", family.video.motion_adapter, "component"))
    return found


def missing(family: ModelFamily, modality: str = "image") -> list[Need]:
    """What of `needs` is not on this machine, or only in part."""
    return [need for need in needs(family, modality) if not is_here(need)]


def require(family: ModelFamily, modality: str = "image", kinds: Sequence[Kind] = get_args(Kind)) -> None:
    """Raises InputError, with the command that helps, unless what `modality` needs of `kinds` is on this machine."""
    absent = missing(family, modality)
    if not any(need.kind in kinds for need in absent):
        return
    listed = ", ".join(f"{need.what} {need.reference}" for need in absent)
    remedy = (
        f"fetch it with `python -m npo_core.weights fetch --family {family.name}`"
        if any(on_hub(need.reference) for need in absent)
        else "put it there"
    )
    raise InputError(f"{family.label} is not complete on this machine (missing: {listed}); {remedy}.")


def is_here(need: Need) -> bool:
    """Whether `need` can be loaded from this machine as it is."""
    path = find(need.reference)
    if path is None:
        return False
    if need.kind == "pipeline":
        return all(_component_is_here(path / name, name) for name in _components(path, need.without))
    if need.kind == "component":
        return _component_is_here(path, "unet")
    try:
        return bool(weight_files(locate_adapter(path)))
    except InputError:
        return False


def files_of(need: Need) -> dict[str, Path]:
    """The files of a pipeline or a component that are loaded, by their names in it: configurations, and each weight in
    one precision. InputError where it is not on this machine."""
    root = locate(need.reference)
    parts = _components(root, need.without) if need.kind == "pipeline" else [""]
    found: dict[str, Path] = {}
    for part in parts:
        names = [path.name for path in (root / part).iterdir() if path.is_file()] if (root / part).is_dir() else []
        found |= {f"{part}/{name}": root / part / name for name in _one_of_each(names, "")}
    return found


def _components(folder: Path, without: Sequence[str] = ()) -> list[str]:
    """The folders that the pipeline in `folder` names; one that does not exist when there is no readable index."""
    try:
        index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8-sig"))
    except (OSError, json.JSONDecodeError):
        return [INDEX_NAME]
    named = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    return [name for name in named if name not in without]


def has_component(folder: Path, name: str) -> bool:
    """Whether the pipeline in `folder` has a component called `name`."""
    return name in _components(folder)


def _component_is_here(folder: Path, name: str) -> bool:
    if not folder.is_dir():
        return False
    files = [path.name for path in folder.iterdir() if path.exists()]  # the cache's links may point nowhere
    return bool(files) if _has_no_weights(name) else any(file.endswith(".safetensors") for file in files)


def _has_no_weights(component: str) -> bool:
    return component.startswith(("tokenizer", "scheduler", "feature_extractor"))


def variant(folder: Path) -> str | None:
    """The weights in a component's folder as diffusers' `variant=`: "fp16" when that is all there is."""
    names = {path.name for path in folder.glob("*.safetensors")}
    full = any(name.endswith(".safetensors") and ".fp16" not in name for name in names)
    return None if full or not names else "fp16"


def fetch(family: ModelFamily, report: Callable[[str], None] = lambda sentence: None) -> None:
    """Downloads what `family` lacks into the local cache of the Hub, and nothing else of those repositories.

    `report` gets one line for each repository. Raises InputError when the network or the Hub does not give it.
    """
    for need in missing(family, family.modalities[-1]):
        if not on_hub(need.reference):
            raise InputError(f"The {need.what} {need.reference} is a path that does not exist; put it there.")
        _fetch(need, report)
    require(family)


def _fetch(need: Need, report: Callable[[str], None]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, _ = split(need.reference)
    try:
        sizes = {file.filename: file.file_size or 0 for file in snapshot_download(repository, dry_run=True)}
        chosen = wanted_files(need, sizes)
        if not chosen:
            raise InputError(f"{repository} has no {need.what} at {need.reference}; check the reference.")
        report(f"{need.what}: {need.reference}, {sum(sizes[name] for name in chosen) / 1e9:.2f} GB")
        snapshot_download(repository, allow_patterns=chosen)
    except (OSError, HFValidationError) as error:  # the client turns every failure of the network into an OSError
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
        raise InputError(f"{need.reference} cannot be fetched ({reason}); check the network and the name.") from None


def wanted_files(need: Need, files: Iterable[str]) -> list[str]:
    """Which of a repository's files `need` is loaded from: configurations, and each weight in one precision only."""
    _, inside = split(need.reference)
    below = [name for name in files if not inside or name == inside or name.startswith(f"{inside}/")]
    if need.kind == "weights":
        return [name for name in below if name == inside] or _one_of_each(below, inside, adapter=True)
    if need.kind == "component":
        return _one_of_each(below, inside)
    folders = {str(PurePosixPath(name).parent) for name in below if "/" in name}
    own = [folder for folder in sorted(folders) if folder in PIPELINE_PARTS and folder not in need.without]
    return [name for name in below if name == INDEX_NAME] + [
        name for folder in own for name in _one_of_each(below, folder)
    ]


PIPELINE_PARTS = (
    *("unet", "vae", "scheduler", "safety_checker", "feature_extractor"),
    *("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
)


def _one_of_each(files: Iterable[str], folder: str, adapter: bool = False) -> list[str]:
    """The configurations right in `folder`, and the first weight file that we would load."""
    names = {
        PurePosixPath(file).name: file for file in files if str(PurePosixPath(file).parent) in (folder, folder or ".")
    }
    weights = [f"{stem}{variant}.safetensors" for variant in VARIANTS for stem in WEIGHT_STEMS]
    if adapter:
        weights = [ADAPTER_FILE_NAME, PEFT_FILE_NAME, *weights]
    chosen = next((names[name] for name in weights if name in names), None)
    settings = [file for name, file in names.items() if name.endswith((".json", ".txt", ".model"))]
    return settings + ([chosen] if chosen else _shards(names))


def _shards(names: Mapping[str, str]) -> list[str]:
    """Where no single file holds the weights: all shards of one precision."""
    for variant in VARIANTS:
        for stem in WEIGHT_STEMS:
            pattern = re.compile(rf"{stem}{re.escape(variant)}-\d{{5}}-of-\d{{5}}\.safetensors")
            found = [file for name, file in names.items() if pattern.fullmatch(name)]
            if found:
                return found
    return []
