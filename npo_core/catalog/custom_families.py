"""Families of the user's own, from a TOML file; the app and the command lines read its path from NPO_FAMILIES.

    [my-model]                              # the name to choose it by
    like = "sd15"                           # whose kind it is: every setting left out is that family's
    label = "My model"
    base = "owner/name"                     # a Hub id, or a path that starts at this file: "./models/mine"
    aligned = "./my-aligned.safetensors"    # a LoRA or a whole UNet
    negative = "owner/name/weights/npo.safetensors"

With a base of one's own, aligned and negative are one's own too, or there are none.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from npo_core.catalog.families import FAMILIES, ModelFamily, get_family
from npo_core.errors import InputError

REFERENCES = ("base", "aligned", "negative", "pipeline", "vae", "guide", "scorer")
NOT_SETTABLE = ("name", "video", "suggestions")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # by the annotation of the field
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a text"),
    "str | None": ((str,), "a text"),
}
SHIPPED = frozenset(FAMILIES)

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def add_families(path: str | Path | None) -> None:
    """Adds the families of the TOML file at `path` to FAMILIES; does nothing without one.

    Raises InputError for a file that cannot be read, and for a setting that does not exist or is of another kind.
    """
    if not path:
        return
    file = Path(path)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The families file {file} cannot be read ({error}); give a TOML file.") from None
    FAMILIES.update({name: _family(file, name, table) for name, table in tables.items()})


def _family(file: Path, name: str, table: Any) -> ModelFamily:
    where = f"[{name}] in {file}"
    if name in SHIPPED or not _NAME.fullmatch(name):
        raise InputError(f"{where} is no name for a family: use small letters and digits, and none that ships.")
    if not isinstance(table, dict) or not isinstance(table.get("like"), str):
        raise InputError(f'{where} lacks like = "..."; name the family whose kind it is: {", ".join(sorted(SHIPPED))}.')
    like = get_family(table["like"])
    settings = {key: _setting(file, where, key, value) for key, value in table.items() if key != "like"}
    inherited: dict[str, Any] = {"pipeline": None, "guide": None, "scorer": None}
    if "base" in settings:
        inherited |= {"aligned": None, "negative": None}
    elif "pipeline" not in settings:
        inherited["pipeline"] = like.pipeline
    described = {"label": name, "description": f"Your own, from {file.name}."}
    return replace(like, **{**inherited, **described, **settings, "name": name})


def _setting(file: Path, where: str, key: str, value: Any) -> Any:
    """The checked value; a path is made absolute."""
    known = {field.name: str(field.type) for field in fields(ModelFamily) if field.name not in NOT_SETTABLE}
    if key not in known:
        raise InputError(f"{where} has no setting {key!r}; choose from like, {', '.join(known)}.")
    allowed, words = KINDS[known[key]]
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise InputError(f"{where} has {key} = {value!r}; give {words}.")
    if key not in REFERENCES or not isinstance(value, str):
        return value
    if value.startswith((".", "~")):
        return str((file.parent / Path(value).expanduser()).resolve())
    if not Path(value).exists() and ((file.parent / value).exists() or "/" not in value):
        raise InputError(
            f'{where} has {key} = "{value}", which would be on the Hub and there is called owner/name; for what lies '
            f'beside {file.name} write "./{value}".'
        )
    return value
