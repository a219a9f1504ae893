"""The shape of the house: no import circle, no crowded folder, nothing long. The import rules: pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("npo_core", "collection", "service", "train", "ui")

MAX_MODULES = 12  # side by side in a folder
MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 60
LONG_BY_NATURE = ("build_parser",)  # one line for each option says nothing about how hard it is to read
MIGRATIONS = "collection/database/migrations/versions"  # written once, read as a list

# Known to be too large; take out what was split, put nothing in.
CROWDED_FOLDERS: set[str] = set()
LONG_MODULES = {
    "tests/collection/formats/test_exporters.py",
}


def sources() -> list[Path]:
    """Every Python file of the project, from its root."""
    return sorted(
        path.relative_to(ROOT)
        for top in (*PACKAGES, "tests", "benchmarks", "app.py")
        for path in ([ROOT / top] if top.endswith(".py") else (ROOT / top).rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(MIGRATIONS)
    )


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Chains of modules that import each other, from one to itself."""
    found = []
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            back = graph.find_shortest_chain(imported, module)
            if back:
                found.append([module, *back])
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function in the file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_modules_import_each_other() -> None:
    found = circles(grimp.build_graph(*PACKAGES, cache_dir=None))
    assert not found, "\n".join(" -> ".join(chain) for chain in found)


def test_a_circle_is_found_also_when_it_imports_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "round_and_round"
    package.mkdir()
    for name, text in (("__init__", ""), ("a", "from round_and_round import b\n"), ("c", "import round_and_round.a\n")):
        (package / f"{name}.py").write_text(text)
    (package / "b.py").write_text("def late() -> None:\n    import round_and_round.c\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = circles(grimp.build_graph("round_and_round", cache_dir=None))
    assert ["round_and_round.a", "round_and_round.b", "round_and_round.c", "round_and_round.a"] in found


def test_no_folder_is_crowded() -> None:
    modules = Counter(path.parent.as_posix() for path in sources() if path.name != "__init__.py")
    assert {folder for folder, count in modules.items() if count > MAX_MODULES} == CROWDED_FOLDERS


def test_no_module_is_long() -> None:
    lines = {path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {path for path, count in lines.items() if count > MAX_MODULE_LINES} == LONG_MODULES


def test_no_function_is_long() -> None:
    long = {
        f"{path}: {name}"
        for path in sources()
        for name, lines in functions(path)
        if lines > MAX_FUNCTION_LINES and name not in LONG_BY_NATURE
    }
    assert long == set()


def test_the_rules_cover_every_package_that_exists() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert folders == set(PACKAGES)


def test_every_import_names_its_module_in_full() -> None:
    relative = [
        f"{path}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_a_breach_of_the_import_rules_is_named_with_its_line(tmp_path: Path) -> None:
    """The contracts in pyproject.toml are those of `make lint`; here a copy of the house has a wall broken through."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "collection" / "late.py").write_text("def late() -> None:\n    import torch\n    import ui.theme\n")
    told = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=tmp_path, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "collection.late -> torch (l.2)" in told.stdout
    assert "collection.late -> ui.theme (l.3)" in told.stdout
