"""The README tells the truth: its commands exist, its files exist, its names are the code's names."""

from __future__ import annotations

import re
import runpy
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from collection.errors import REFUSALS
from npo_core.catalog.families import FAMILIES
from npo_core.variants import VARIANTS
from service.arena.limits import SETTINGS, Limits

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced_commands() -> list[str]:
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", README, re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def modules() -> list[str]:
    return sorted({match for command in fenced_commands() for match in re.findall(r"python -m ([\w.]+)", command)})


def help_of(module: str, *words: str) -> str:
    """What `python -m MODULE WORDS --help` prints, without the seconds that a process of its own takes to begin."""
    printed = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)  # from another test
        patch.setattr(sys, "argv", [module, *words, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code in (None, 0)
    return printed.getvalue()


def test_the_first_screen_shows_a_picture_and_the_two_commands() -> None:
    first_screen = "\n".join(README.splitlines()[:60])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert re.search(r"!\[[^\]]+\]\([^)]+\.png\)", first_screen)


def test_every_linked_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {command.split()[1] for command in fenced_commands() if command.startswith("make ")}
    assert {"demo", "test"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("module", modules())
def test_every_module_in_the_readme_answers_help_with_the_flags_that_are_shown(module: str) -> None:
    for command in fenced_commands():
        match = re.search(rf"python -m {re.escape(module)}(?![\w.])(.*)", command)
        if not match:
            continue
        words = match.group(1).split()
        subcommand = words[:1] if module in ("collection", "npo_core.weights") else []
        answer = help_of(module, *subcommand)
        for flag in re.findall(r"(?<!\S)--[\w-]+", match.group(1)):
            assert flag in answer, f"{command!r}: {flag} is not a flag of {module}"


def test_every_variant_and_family_is_named() -> None:
    assert [name for name in [*VARIANTS, *FAMILIES] if f"`{name}`" not in README] == []


def test_every_environment_variable_of_the_app_is_documented() -> None:
    files = [ROOT / "app.py", *(ROOT / "ui").glob("*.py"), *(ROOT / "service").glob("*.py")]
    code = "\n".join(path.read_text() for path in files)
    names = set(re.findall(r"\bNPO_[A-Z_]+\b", code))
    assert names
    assert [name for name in sorted(names) if name not in README] == []


def test_the_page_on_serving_has_every_limit_refusal_and_file_that_it_names() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert [name for name in [*SETTINGS, *REFUSALS] if f"`{name}`" not in page] == []
    rows = dict(re.findall(r"\| `(NPO_\w+)` \| (\d+) \|", page))
    assert rows == {name: str(getattr(Limits(), field)) for name, field in SETTINGS.items()}
    for module in re.findall(r"python -m (\w+(?:\.\w+)+)", page):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_the_page_on_training_links_to_files_that_exist_and_names_flags_that_exist() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    commands = (
        ("train.npo",),
        ("train.self_npo",),
        ("train.evaluate",),
        ("train.emoji.jury",),
        ("train.emoji.bars",),
        ("service.versus",),
        ("collection", "adapters"),
    )
    answers = "".join(help_of(*command) for command in commands)
    others = {"--num_processes", "--multi_gpu", "--config_file", "--help"}  # of accelerate, and everybody's
    assert [flag for flag in set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page)) - others if flag not in answers] == []


def test_the_house_is_told_on_one_screen_with_links_that_lead_somewhere() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 60
    links = re.findall(r"\]\(([^)#]+)\)", page)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert [name for name in packages if name not in page] == []
