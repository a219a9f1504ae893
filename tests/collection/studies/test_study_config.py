"""study.toml and prompt files: everything that can be wrong in them is said in one sentence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collection.errors import InputError
from collection.studies.prompts import BUNDLED, Prompt, load_prompts
from collection.studies.study_config import plan_as_json, plan_of, read_plan
from npo_core.catalog.families import FAMILIES
from npo_core.catalog.prompts import load_guide, unknown_words

GOOD = """
name = "pilot"
variants = ["base", "aligned"]
prompts = "prompts.txt"
deadline = 2026-12-31
[generation]
steps = 10
[quality]
min_checks = 4
"""


def written(folder: Path, text: str) -> Path:
    (folder / "prompts.txt").write_text("a cat\n")
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_a_plan_is_read_and_comes_back_from_json(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, GOOD))
    assert plan.variants == ("base", "aligned")
    assert plan.prompts == str(tmp_path / "prompts.txt")
    assert plan.deadline == datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert (plan.generation["steps"], plan.quality.min_checks, plan.quality.min_repeats) == (10, 4, 3)
    assert plan_of(json.loads(json.dumps(plan_as_json(plan)))) == plan


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "pilot"', 'name = "Pilot study"', "name is 'Pilot study'"),
        ('name = "pilot"', 'name = "pool"', "not 'pool'"),
        ('name = "pilot"', "", "no name"),
        ('["base", "aligned"]', '["base"]', "at least two"),
        ('["base", "aligned"]', "[1, 2]", "names as text"),
        ('prompts = "prompts.txt"', 'prompts = "prompts.txt"\nvotes = 3', "votes, which is unknown"),
        ('prompts = "prompts.txt"', 'prompts = "prompts.txt"\nvotes_per_pair = "3"', "votes_per_pair is '3'"),
        ('prompts = "prompts.txt"', 'prompts = "prompts.txt"\nvotes_per_pair = 0', "at least 1"),
        ('prompts = "prompts.txt"', 'prompts = "prompts.txt"\nrepeat_share = 0.7', "share from 0 to 0.5"),
        ('prompts = "prompts.txt"', 'prompts = "prompts.txt"\nmodality = "smell"', "choose from image, video"),
        ('prompts = "prompts.txt"', 'prompts = "prompts.txt"\ncompletion_url = "javascript:1"', "https://"),
        ("deadline = 2026-12-31", 'deadline = "soon"', "deadline is 'soon'"),
        ("steps = 10", "seed = 10", "generation.seed"),
        ("min_checks = 4", "checks = 4", "quality.checks, which is unknown"),
        ("[quality]", "quality = 3\n[other]", "quality is 3|other, which is unknown"),
        ("[quality]", "[quality", "no TOML"),
    ],
)
def test_a_wrong_plan_gets_one_sentence(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        read_plan(written(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(raised.value)


def test_the_example_shows_the_defaults() -> None:
    plan = read_plan(Path(__file__).parents[3] / "collection" / "study_example.toml")
    bare = plan_of(
        {"name": "pilot", "variants": ["base", "aligned", "aligned_npo"], "prompts": "emoji", "max_prompts": 30}
    )
    assert plan == bare


def test_a_plan_that_is_not_there_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "nowhere.toml")


def test_the_bundled_lists_are_drawable_words_in_categories() -> None:
    prompts = load_prompts("emoji")
    guide = load_guide(FAMILIES["emoji"].guide or "")
    assert list(BUNDLED) == ["emoji"]
    assert len(prompts) >= 60
    assert len({prompt.category for prompt in prompts}) >= 5
    assert [prompt.text for prompt in prompts if unknown_words(prompt.text, guide)] == []


def test_prompt_files_are_read_as_they_are_published(tmp_path: Path) -> None:
    (tmp_path / "PartiPrompts.tsv").write_text(
        'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t-\n"a, b"\tAnimals\tBasic\t\nbond\tAgain\tx\ty\n'
    )
    (tmp_path / "anime.json").write_text('["a girl", "a boy "]')
    (tmp_path / "list.txt").write_text("one\n\ntwo\n")
    (tmp_path / "own.jsonl").write_text('{"caption": "a cat", "category": "animals"}\n\n{"prompt": "a dog"}\n')
    table = {"caption": ["a cat", "a cat", "a dog"], "jpg_0": [b"x", b"y", b"z"]}
    pq.write_table(pa.table(table), tmp_path / "pickapic.parquet")
    assert load_prompts(str(tmp_path / "PartiPrompts.tsv")) == [Prompt("bond", "Abstract"), Prompt("a, b", "Animals")]
    assert load_prompts(str(tmp_path / "anime.json")) == [Prompt("a girl", "anime"), Prompt("a boy", "anime")]
    assert load_prompts(str(tmp_path / "list.txt")) == [Prompt("one"), Prompt("two")]
    assert load_prompts(str(tmp_path / "own.jsonl")) == [Prompt("a cat", "animals"), Prompt("a dog")]
    assert load_prompts(str(tmp_path / "pickapic.parquet")) == [Prompt("a cat"), Prompt("a dog")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.exe", b"", "a bundled list \\(emoji\\) or a file"),
        ("x.txt", b"\n\n", "are empty"),
        ("x.txt", b"\xff\xfe\xff", "cannot be read"),
        ("x.csv", b"name,other\na,b\n", "no column prompt"),
        ("x.json", b'{"a": 1}', "it holds no list"),
        ("x.json", b"{", "cannot be read"),
        ("x.jsonl", b"3\n", "is no prompt"),
        ("x.parquet", b"nonsense", "cannot be read"),
    ],
)
def test_a_wrong_prompt_file_gets_one_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_prompts(str(tmp_path / name))
