"""python -m collection, as a person uses it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pyarrow.parquet as pq
import pytest
from PIL import Image

from collection.__main__ import build_parser, main
from collection.formats.exporters import EXPORTERS, FOR_TRAINING
from collection.store import Store
from collection.types import AdapterRecord
from npo_core.media.files import mp4_bytes
from tests.collection.helpers import add_comparison, cast, generation, open_store

COMMANDS = ("init", "stats", "export", "import", "study", "participants", "adapters", "backup", "copy-to", "verify")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPO_DATABASE_URL", f"sqlite:///{tmp_path / 'npo.db'}")
    monkeypatch.setenv("NPO_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the commands find too."""
    monkeypatch.setenv("NPO_DATABASE_URL", store.url.render_as_string(hide_password=False))
    return store


@pytest.fixture
def voted(store: Store) -> Store:
    ids = add_comparison(store)
    for choice in ("left", "right", "tie"):
        cast(store, store.create_participant(), ids["base"], ids["aligned"], choice)
    return store


def test_init_makes_the_database_and_may_be_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [main(["init"]), main(["init"])] == [0, 0]
    assert "is ready" in capsys.readouterr().out
    assert (tmp_path / "npo.db").is_file()


def test_stats_shows_counts_rates_and_strengths(voted: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats"]) == 0
    shown = capsys.readouterr().out
    assert "Votes: 3 by 3 participants on 1 comparisons" in shown
    assert "aligned against base" in shown
    assert "50.0%" in shown
    assert "Krippendorff" in shown


def test_stats_as_json_can_be_parsed(voted: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--json", "--family", "emoji"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["totals"]["votes"] == 3
    assert summary["win_rates"][0]["rate"] == 0.5
    (counts,) = summary["by_prompt"]["a red apple, 3d style"]
    assert (counts["wins_a"], counts["wins_b"], counts["ties"]) == (1, 1, 1)


def test_votes_travel_from_one_database_to_another(
    voted: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--out", "votes.jsonl"]) == 0
    elsewhere = ["--database-url", f"sqlite:///{tmp_path}/other.db", "--data-dir", str(tmp_path / "other")]
    assert main(["import", "votes.jsonl", *elsewhere]) == 0
    assert main(["verify", *elsewhere]) == 0
    shown = capsys.readouterr().out
    assert "Wrote 3 votes" in shown
    assert "Imported 3 votes, 3 ballots and 2 generations." in shown


@pytest.fixture
def voted_on_both(voted: Store) -> Store:
    """Three votes on pictures, and two on clips of which one is a tie."""
    made = []
    for variant, red in (("base", 40), ("aligned", 200)):
        clip = mp4_bytes([Image.new("RGB", (32, 32), (red, 0, 0))] * 16, 8.0)
        fields = {"media": clip, "media_sha256": hashlib.sha256(clip).hexdigest(), "media_type": "video/mp4"}
        made.append(generation(variant, "clips", modality="video", frames=16, fps=8.0, **fields))
    left, right = voted.add_generations(made)
    cast(voted, voted.create_participant(), left, right, "right")
    cast(voted, voted.create_participant(), left, right, "tie")
    return voted


@pytest.mark.parametrize(
    ("format", "pictures", "clips"),
    [("pickapic", 3, 2), ("npo", 2, 1)],
)
def test_exports_for_training_hold_pictures_or_clips_and_say_what_they_leave_out(
    voted_on_both: Store, format: str, pictures: int, clips: int, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", "--format", format, "--out", "pairs.parquet"]
    assert main(export) == 0
    ties = (
        "Left out 1 votes that do not count, or order no pair where this format needs it.\n" if format == "npo" else ""
    )
    assert capsys.readouterr().out == (
        f"Wrote {pictures} votes to pairs.parquet.\n{ties}"
        "Left out 2 blind votes on clips; --modality video writes those.\n"
    )
    uids = pq.read_table("pairs.parquet")["image_0_uid"].to_pylist()
    assert (len(uids), [uid for uid in uids if "#" in uid]) == (pictures, [])
    assert main([*export, "--modality", "video"]) == 0
    assert capsys.readouterr().out == (
        f"Wrote {clips} votes to pairs.parquet.\n{ties}"
        "Left out 3 blind votes on pictures; --modality image writes those.\n"
    )
    uids = pq.read_table("pairs.parquet")["image_0_uid"].to_pylist()
    assert len([uid for uid in uids if "#" in uid]) == len(uids) == 4 * clips
    if format == "npo":
        assert main(["import", "pairs.parquet"]) == 2
        assert "reversed pairs" in capsys.readouterr().err
        return
    assert main(["import", "pairs.parquet"]) == 0
    assert "Imported 0 votes" in capsys.readouterr().out, "these clips are here: their frames are no new pictures"


@pytest.mark.parametrize("format", sorted(set(EXPORTERS) - set(FOR_TRAINING)))
def test_other_exports_hold_everything_unless_asked_for_one_modality(
    voted_on_both: Store, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", "--format", format, "--out", "votes"]
    assert main(export) == 0
    assert capsys.readouterr().out == "Wrote 5 votes to votes.\n"
    assert main([*export, "--modality", "image"]) == 0
    assert "Wrote 3 votes to votes.\nLeft out 2 blind votes on clips" in capsys.readouterr().out


def test_a_person_is_flagged_unflagged_and_erased(voted: Store, capsys: pytest.CaptureFixture[str]) -> None:
    person = next(voted.exported_votes()).vote.participant_id
    assert main(["participants", "flag", person, "a robot"]) == 0
    assert voted.totals().votes == 2
    assert main(["participants", "unflag", person]) == 0
    assert voted.totals().votes == 3
    assert main(["participants", "erase", person]) == 0
    assert voted.totals().votes == 2
    assert "Erased 1 votes, 1 ballots and 0 generations." in capsys.readouterr().out


def test_adapters_are_listed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters"]) == 0
    assert "No adapter is registered" in capsys.readouterr().out
    store.register_adapter(AdapterRecord("emoji", "negative", "from 41 picks", "runs/x", "f" * 64))
    assert main(["adapters", "--family", "emoji", "--role", "negative"]) == 0
    assert "from 41 picks" in capsys.readouterr().out


def test_backup_and_verify_say_what_they_found(
    voted: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backup", "safe"]) == 0
    copy = {"sqlite": "npo.db", "postgresql": "npo.dump"}[voted.url.get_backend_name()]
    assert f"Backed up to safe/{copy}." in capsys.readouterr().out
    next(iter(voted.media)).unlink()
    assert main(["verify"]) == 1
    assert "is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats"],
        ["init", "--database-url", "mysql://host/name"],
        ["init", "--database-url", "sqlite:///file/npo.db"],
        ["import", "nowhere.jsonl"],
        ["participants", "erase", "nobody", "--database-url", "sqlite:///here.db"],
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_code_two(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    open_store(tmp_path / "elsewhere").close()
    (tmp_path / "elsewhere" / "npo.db").rename(tmp_path / "here.db")
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1


def test_a_wrong_database_ends_the_process_with_two_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_text("not a database" * 100)
    command = [sys.executable, "-m", "collection", "stats", "--database-url", f"sqlite:///{tmp_path}/bad.db"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: The database")
    assert "Traceback" not in ended.stderr


def test_a_study_is_made_followed_judged_and_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.toml").write_text(
        'name = "pilot"\nvariants = ["base", "aligned"]\nprompts = "emoji"\nmax_prompts = 3\n'
    )
    assert main(["study", "create", "study.toml"]) == 0
    assert "python -m service.pregenerate pilot" in capsys.readouterr().out
    assert main(["study", "create", "study.toml"]) == 2
    assert [main(["study", "list"]), main(["study", "list", "--json"])] == [0, 0]
    shown = capsys.readouterr().out
    assert "items to make" in shown
    assert json.loads(shown[shown.index("[") :])[0]["name"] == "pilot"
    for arguments in (["quality", "pilot"], ["quality", "pilot", "--apply"], ["close", "pilot"], ["reopen", "pilot"]):
        assert main(["study", *arguments]) == 0
    assert main(["stats", "--study", "pilot"]) == 0
    assert [main(["stats", "--study", "typo"]), main(["study", "quality", "typo"])] == [2, 2]


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["participants", "erase"], ["study", "create"]])
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*command, "--help"])
    assert ended.value.code == 0
    assert ("--database-url" in capsys.readouterr().out) == (command not in (["participants"], ["study"]))


def test_whoever_reads_the_lines_may_stop_early(tmp_path: Path) -> None:
    """As `python -m collection adapters list | head -1` does."""
    with open_store(tmp_path) as store:
        for number in range(400):
            store.register_adapter(AdapterRecord("emoji", "negative", f"adapter {number}", f"/a/{number}", "a" * 64))
    command = [sys.executable, "-m", "collection", "adapters", "--database-url", f"sqlite:///{tmp_path}/npo.db"]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, cwd=Path(__file__).parents[2]) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.readline()
        listing.stdout.close()
        assert listing.wait(60) == 0
        assert listing.stderr.read() == ""


def test_a_folder_where_a_media_file_should_be_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(tmp_path) as store:
        ids = add_comparison(store)
        cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
        file = store.media_path(store.get_generation(ids["base"]))
    file.unlink()
    file.mkdir()
    database = ["--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path / "data")]
    assert main(["export", "--out", str(tmp_path / "votes.jsonl"), *database]) == 2
    assert "cannot be read (Is a directory)" in capsys.readouterr().err
    assert not (tmp_path / "votes.jsonl").exists()
    assert main(["verify", *database]) == 1
