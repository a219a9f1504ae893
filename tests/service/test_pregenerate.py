"""A study's pool is made once, with the versions it began with, by one process or several."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sqlalchemy import update

from collection.database.models import StudyRow
from collection.errors import InputError as CollectionInputError
from collection.store import Store
from collection.studies.assignment import plan_items
from collection.studies.prompts import Prompt
from collection.studies.study_config import StudyPlan
from npo_core.catalog.families import ModelFamily
from npo_core.errors import FlaggedError
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.media.files import MP4_MEDIA_TYPE, PNG_MEDIA_TYPE, mp4_bytes, open_clip, open_image
from service.arena.attention_checks import degraded
from service.errors import INPUT_ERRORS, InputError
from service.pregenerate import main, pregenerate, records_of, request_of
from service.services import Services
from tests.service.helpers import make_services, register
from tests.tiny import tiny_adapter, tiny_family

ROOT = Path(__file__).parents[2]
PROMPTS = [Prompt("a red apple"), Prompt("a cat")]


def make_study(store: Store, **changes: object) -> StudyPlan:
    values = {
        "name": "pilot",
        "variants": ("aligned", "aligned_npo"),
        "prompts": "-",
        "family": "tiny",
        "check_share": 0.1,
    }
    plan = StudyPlan(**values | {"ballots_per_participant": 4} | changes)  # type: ignore[arg-type]
    store.create_study(plan, plan_items(plan, PROMPTS))
    return plan


def test_every_item_gets_its_pictures_and_checks_a_degraded_copy(services: Services) -> None:
    make_study(services.store, generation={"steps": 2})
    items = services.store.items_to_fill("pilot")
    seen: list[int] = []
    assert pregenerate(services.store, services.generator, "pilot", batch=4, on_filled=seen.append) == len(items) == 6
    assert seen == [4, 2]
    assert services.store.items_to_fill("pilot") == []
    assert pregenerate(services.store, services.generator, "pilot") == 0
    (progress,) = services.store.study_progress()
    assert (progress.items_filled, progress.pairs) == (6, 2)
    assert services.store.verify() == []
    with services.store.reading() as session:
        rows = session.connection().exec_driver_sql("SELECT variant, steps, latents_shape FROM generations").all()
    assert sorted({row[0] for row in rows}) == ["aligned", "aligned_npo", "degraded"]
    assert {row[1] for row in rows} == {2}


def test_a_stopped_run_goes_on_where_it_was_and_processes_share_the_items(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(services.store, generation={"steps": 1})
    whole = services.store.items_to_fill("pilot")
    fill: Callable[..., bool] = services.store.fill_item
    filled: list[str] = []

    def killed_at_the_third(item_id: str, *made: object) -> bool:
        if len(filled) == 2:
            raise KeyboardInterrupt
        filled.append(item_id)
        return fill(item_id, *made)

    monkeypatch.setattr(services.store, "fill_item", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pregenerate(services.store, services.generator, "pilot", batch=2)
    monkeypatch.undo()
    left = services.store.items_to_fill("pilot")
    assert [item.id for item in whole if item not in left] == filled
    shares = [pregenerate(services.store, services.generator, "pilot", share=(process, 2)) for process in range(2)]
    assert shares == [2, 2]
    assert services.store.items_to_fill("pilot") == []
    assert len({item.id for item in whole}) == 6


def test_a_study_keeps_the_versions_it_began_with(services: Services, tmp_path: Path) -> None:
    make_study(services.store, generation={"steps": 1})
    before = register(services, tmp_path, "negative", 11, "before")
    pregenerate(services.store, services.generator, "pilot", share=(0, 2))
    register(services, tmp_path, "negative", 12, "after")
    pregenerate(services.store, services.generator, "pilot", share=(1, 2))
    assert services.store.study_versions("pilot")["negative"] == (before.id, before.sha256)
    with services.store.reading() as session:
        used = session.connection().exec_driver_sql("SELECT DISTINCT negative_id FROM generations").scalars().all()
    assert used == [before.id]


def change_unet(folder: Path) -> None:
    """Another base in the place of the one that was there."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda family: replace(family, steps=family.steps + 1), "began with steps 3, and .* with 4"),
        (lambda family: replace(family, beta=0.25), "began with beta 1.0, and .* with 0.25"),
        (lambda family: change_unet(Path(family.base)) or family, "began with the base model"),
        (lambda family: tiny_adapter(Path(family.negative), "negative", seed=9) and family, "is not the one that"),
    ],
)
def test_a_half_filled_study_goes_on_with_what_it_began_with_or_not_at_all(
    change: Callable[[ModelFamily], ModelFamily], words: str, tmp_path: Path
) -> None:
    family = tiny_family(tmp_path / "weights")
    services = make_services(tmp_path, family)
    store = services.store
    make_study(store)
    assert pregenerate(store, services.generator, "pilot", share=(0, 2)) == 3
    began = store.study_beginning("pilot")
    assert began is not None
    for maker in began["variants"].values():
        assert (maker["steps"], maker["negative"][0]) == (family.steps, "tiny-negative")
    other = Generator(change(family), device="cpu")
    with pytest.raises(INPUT_ERRORS, match=words):
        pregenerate(store, other, "pilot", share=(1, 2))
    assert len(store.items_to_fill("pilot")) == 3
    assert store.study_beginning("pilot") == began


def test_a_study_that_began_before_this_was_kept_goes_on_with_what_its_pictures_tell(services: Services) -> None:
    store = services.store
    make_study(store, generation={"steps": 1})
    pregenerate(store, services.generator, "pilot", share=(0, 2))
    with store.writing() as session:
        session.execute(update(StudyRow).values(began_with=None))
    item = store.items_to_fill("pilot")[0]
    made = services.generator.generate(replace(request_of(item, store.study_plan("pilot")), steps=2))
    with pytest.raises(CollectionInputError, match=r"began with steps 1, and .* with 2"):
        store.fill_item(item.id, records_of(item, made))
    assert pregenerate(store, services.generator, "pilot") == 3
    began = store.study_beginning("pilot")
    assert began is not None
    assert began["base"] is not None


def test_a_study_is_not_made_with_another_adapter_than_the_one_in_use(services: Services, tmp_path: Path) -> None:
    make_study(services.store, generation={"steps": 1})
    lost = register(services, tmp_path, "negative", 11, "lost")
    Path(lost.path).unlink()
    with pytest.raises(InputError, match=r"A study is made with what is in use.*adapters rollback"):
        pregenerate(services.store, services.generator, "pilot")
    assert services.store.study_beginning("pilot") is None


def test_a_study_of_clips_is_made_with_the_adapters_in_use_for_clips_and_keeps_them(
    services: Services, tmp_path: Path
) -> None:
    store, generator = services.store, services.generator
    make_study(store, modality="video", generation={"steps": 1})
    clips = register(services, tmp_path, "negative", 11, "of clips", "video")
    register(services, tmp_path, "negative", 12, "of pictures")
    assert pregenerate(store, generator, "pilot", share=(0, 2)) == 3
    register(services, tmp_path, "negative", 13, "of clips, after", "video")
    assert pregenerate(store, generator, "pilot", share=(1, 2)) == 3
    assert store.study_versions("pilot")["negative"] == (clips.id, clips.sha256)
    with store.reading() as session:
        statement = "SELECT DISTINCT negative_id, media_type FROM generations"
        used = session.connection().exec_driver_sql(statement).all()
    assert used == [(clips.id, "video/mp4")]


def test_a_study_of_clips_goes_on_with_the_shipped_adapters_it_began_with(services: Services, tmp_path: Path) -> None:
    store, generator = services.store, services.generator
    make_study(store, modality="video", generation={"steps": 1})
    pregenerate(store, generator, "pilot", share=(0, 2))
    register(services, tmp_path, "negative", 11, "of clips", "video")
    pregenerate(store, generator, "pilot", share=(1, 2))
    with store.reading() as session:
        used = session.connection().exec_driver_sql("SELECT DISTINCT negative_id FROM generations").scalars().all()
    assert used == ["tiny-negative"]


def test_a_study_of_another_family_or_of_impossible_settings_is_refused(services: Services) -> None:
    make_study(services.store, name="other", family="emoji")
    with pytest.raises(InputError, match="of family 'emoji', not 'tiny'"):
        pregenerate(services.store, services.generator, "other")
    make_study(services.store, name="odd", generation={"steps": 0})
    with pytest.raises(InputError, match="number of steps is 0"):
        pregenerate(services.store, services.generator, "odd")
    make_study(services.store, name="unknown", variants=("base", "magic"))
    with pytest.raises(InputError, match="Unknown variant 'magic'"):
        pregenerate(services.store, services.generator, "unknown")


@pytest.mark.parametrize("media_type", [PNG_MEDIA_TYPE, MP4_MEDIA_TYPE])
def test_a_degraded_copy_is_as_large_and_long_but_much_coarser(media_type: str, generator: Generator) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).resize((192, 128))
    clean = mp4_bytes([image, image], 8.0) if media_type == MP4_MEDIA_TYPE else b""
    if not clean:
        from npo_core.media.files import png_bytes

        clean = png_bytes(image)
    bad = degraded(clean, media_type, 8.0)
    frames = open_clip(bad) if media_type == MP4_MEDIA_TYPE else [open_image(bad)]
    assert {frame.size for frame in frames} == {image.size}
    assert len(frames) == (2 if media_type == MP4_MEDIA_TYPE else 1)
    assert len(bad) < len(clean) / 3


def test_the_command_says_what_is_wrong_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], services: Services
) -> None:
    database = ["--database-url", str(services.store.url), "--data-dir", str(tmp_path)]
    assert main(["nowhere", *database]) == 2
    assert main(["nowhere", "--database-url", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert main(["pilot", "--batch", "0", *database]) == 2
    errors = capsys.readouterr().err
    assert errors.count("error: ") == errors.count("\n") == 3


@pytest.mark.usefixtures("own_family")
def test_the_command_fills_a_study_of_a_family_of_ones_own(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(services.store, generation={"steps": 2})
    assert main(["pilot", "--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path)]) == 0
    assert "The study pilot has all its images" in capsys.readouterr().out
    assert services.store.items_to_fill("pilot") == []


@pytest.mark.slow
def test_two_processes_of_accelerate_fill_a_study_of_the_family_that_ships(tmp_path: Path) -> None:
    database = ["--database-url", f"sqlite:///{tmp_path / 'npo.db'}", "--data-dir", str(tmp_path)]
    (tmp_path / "study.toml").write_text(
        'name = "pilot"\nvariants = ["base", "aligned"]\nprompts = "emoji"\nmax_prompts = 6\n[generation]\nsteps = 2\n'
    )
    made = [sys.executable, "-m", "collection", "study", "create", str(tmp_path / "study.toml"), *database]
    assert subprocess.run(made, cwd=ROOT).returncode == 0
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launched = [sys.executable, *launch, "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [*launched, "-m", "service.pregenerate", "pilot", *database], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with Store(database[1], tmp_path) as store:
        assert store.items_to_fill("pilot") == []
        assert store.verify() == []


def test_what_the_safety_checker_flags_is_left_out_and_the_rest_is_made(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(services.store, generation={"steps": 2})
    whole = services.generator.generate_batch

    def flagging(requests: Sequence[GenerationRequest]) -> list[Comparison]:
        if any(request.prompt == "a cat" for request in requests):
            raise FlaggedError("The safety checker flagged 1 of 1 results; try other words.")
        return whole(requests)

    monkeypatch.setattr(services.generator, "generate_batch", flagging)
    made = pregenerate(services.store, services.generator, "pilot", batch=4)
    left = services.store.items_to_fill("pilot")
    assert {item.prompt for item in left} == {"a cat"}
    assert 0 < made == 6 - len(left)
