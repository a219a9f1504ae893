"""The import rules of the house. A breach is named with file and line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("npo_core", "collection", "service", "train", "ui")

ALLOWED_OURS = {
    "npo_core": set(),
    "collection": set(),
    "service": {"npo_core", "collection"},
    "train": {"npo_core", "collection"},
    "ui": {"service", "npo_core", "collection"},
}
ONLY_IN = {
    "torch": {"npo_core", "train"},
    "diffusers": {"npo_core", "train"},
    "peft": {"npo_core", "train"},
    "sqlalchemy": {"collection"},
    "alembic": {"collection"},
    "gradio": {"ui", "app.py"},
    "accelerate": {"train", "service"},
}


def sources() -> list[Path]:
    return [ROOT / "app.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import anywhere in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno} imports relatively; write the full name"
            yield node.lineno, (node.module or "").split(".")[0]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def breaches(path: Path) -> Iterator[str]:
    here = room(path)
    for line, package in imports(path):
        ours = package in PACKAGES and package != here and package not in ALLOWED_OURS.get(here, set(PACKAGES))
        if ours or here not in ONLY_IN.get(package, {here}):
            yield f"{path.relative_to(ROOT)}:{line} imports {package}, which {here} may not"


def test_every_package_imports_only_what_it_may() -> None:
    found = [breach for path in sources() for breach in breaches(path)]
    assert not found, "\n".join(found)


def test_a_breach_is_named_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "collection" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("import os\n\ndef late() -> None:\n    import torch\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert list(breaches(bad)) == ["collection/bad.py:4 imports torch, which collection may not"]


def test_the_rules_cover_every_package_that_exists() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert folders == set(PACKAGES)
