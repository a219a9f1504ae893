"""2,000 mutated files of each kind: what cannot be read is one sentence, what is left out is counted, nothing is half.

No other exception may come out of a reader (that would be a traceback), and what was not changed keeps its meaning.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from collection.errors import InputError as CollectionInputError
from collection.formats.exporters import EXPORTERS, IMPORTERS
from collection.store import Store
from collection.studies.prompts import read_prompts
from collection.studies.study_config import read_plan
from npo_core.catalog.custom_families import add_families
from npo_core.catalog.families import FAMILIES
from npo_core.errors import InputError
from npo_core.media.files import open_image
from npo_core.weights import fit, load_weights
from tests.collection.helpers import add_comparison, cast, open_store
from tests.fuzz.mutations import ENCODINGS, FAITHFUL, TEXTS, dumped, octets, values
from tests.npo_core.weights.test_formats import as_diffusers, as_kohya, lora
from tests.tiny import tiny_pipeline, tiny_unet_shapes
from train.pairs.dataset import LatentCache, from_dataset

pytestmark = pytest.mark.slow

DTYPES = (torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn, torch.bool, torch.int64)

T = TypeVar("T")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
chances = given(seed=st.integers(0, 2**32 - 1))


def read(reader: Callable[[], T]) -> T | None:
    """What a reader gives; None where it refused in one sentence."""
    try:
        return reader()
    except (InputError, CollectionInputError) as error:
        sentence = str(error)
    assert sentence.strip()
    assert "\n" not in sentence
    return None


@fuzzed
@chances
def test_prompt_files(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows: list[Any] = [{"prompt": text, "category": f"c{number}"} for number, text in enumerate(TEXTS)]
    mutated = rng.random() < 0.7
    changed = values(rows, rng) if mutated else rows
    entries = changed if isinstance(changed, list) else [changed]
    text = dumped(entries, rng) if rng.random() < 0.6 else "\n".join(TEXTS)
    encoding = rng.randrange(len(ENCODINGS))
    content = ENCODINGS[encoding](text)
    cut = rng.random() < 0.4
    file = tmp_path / f"prompts.{rng.choice(('txt', 'json', 'jsonl', 'csv', 'tsv'))}"
    file.write_bytes(octets(content, rng) if cut else content)
    found = read(lambda: read_prompts(str(file)))
    if found is None:
        return
    prompts, account = found
    assert account.kept == len(prompts)
    assert account.read >= len(prompts)
    if text.startswith(("[", "{")) and file.suffix.startswith(".json") and encoding < FAITHFUL and not cut:
        told = {*TEXTS, "none", "NaN", "1.0", "x" * 5000, "../../etc/passwd"}
        assert {prompt.text for prompt in prompts} <= told
        if not mutated:
            assert [prompt.text for prompt in prompts] == list(TEXTS)


@fuzzed
@chances
def test_settings_in_toml(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    study = Path("collection/study_example.toml").read_bytes()
    family = b'[mine]\nlike = "sd15"\nlabel = "Mine"\nsteps = 7\nbase = "owner/name"\nalpha = 0.5\n'
    before = dict(FAMILIES)
    try:
        for name, content, reader in (("study", study, read_plan), ("families", family, add_families)):
            text = content.decode()
            if rng.random() < 0.5:
                lines = text.split("\n")
                rng.shuffle(lines)
                text = "\n".join(lines)
            data = rng.choice(ENCODINGS)(text)
            (tmp_path / f"{name}.toml").write_bytes(octets(data, rng) if rng.random() < 0.7 else data)
            read(partial(reader, tmp_path / f"{name}.toml"))  # type: ignore[arg-type]
    finally:
        FAMILIES.clear()
        FAMILIES.update(before)


def picture(seed: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


PICTURES = {format: picture(1, format) for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")}


@fuzzed
@chances
def test_pictures(seed: int) -> None:
    rng = random.Random(seed)
    content = octets(PICTURES[rng.choice(list(PICTURES))], rng)
    image = read(lambda: open_image(content))
    assert image is None or image.mode == "RGB"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    return LatentCache(tiny_pipeline(), 64, 64, tmp_path_factory.mktemp("latents"))


BOTH = [(picture(2 * number), picture(2 * number + 1)) for number in range(3)]


@fuzzed
@chances
def test_data_sets(seed: int, cache: LatentCache, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows: list[Any] = [
        {"caption": TEXTS[number], "jpg_0": first, "jpg_1": second, "label_0": 1.0, "label_1": 0.0, "has_label": True}
        for number, (first, second) in enumerate(BOTH)
    ]
    column = rng.choice(list(rows[0]))
    for row in rows:
        if rng.random() < 0.5 and isinstance(row[column], bytes):
            row[column] = rng.choice(
                (octets(row[column], rng), {"bytes": row[column], "path": None}, row[column], None)
            )
        elif rng.random() < 0.5:
            row[column] = values(row[column], rng)
    if rng.random() < 0.2:
        rows = [{name: row[name] for name in row if name != column} for row in rows]
    try:
        table = pa.Table.from_pylist(rows)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError, TypeError):
        return  # no file can hold these rows
    (tmp_path / "set").mkdir(exist_ok=True)
    file = tmp_path / "set" / "train.parquet"
    pq.write_table(table, file)
    if rng.random() < 0.3:
        file.write_bytes(octets(file.read_bytes(), rng))
        read(lambda: from_dataset(str(tmp_path / "set"), cache))
        return
    found = read(lambda: from_dataset(str(tmp_path / "set"), cache))
    if found is not None:
        assert found.account is not None
        assert found.account.read == len(rows) == len(found.pairs) + sum(found.dropped.values())
        if column != "caption":
            assert {pair.prompt for pair in found.pairs} <= set(TEXTS)
        if column in ("label_0", "label_1", "has_label"):
            for pair in found.pairs:
                row = rows[int(pair.source.rpartition("#")[2])]
                order = float(row.get("label_0") or 0) - float(row.get("label_1") or 0)
                winner = row["jpg_0"] if order > 0 else row["jpg_1"]
                np.testing.assert_array_equal(pair.preferred, cache.latents([winner])[0])


@fuzzed
@chances
def test_weights(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    tensors = as_kohya(lora()) if rng.random() < 0.5 else as_diffusers(lora())
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    for key in rng.sample(list(tensors), 2):
        tensor = tensors.pop(key)
        match rng.randrange(6):
            case 0:
                tensors[rng.choice(("module.", "_orig_mod.", "x.", "")) + key] = tensor
            case 1:
                tensors[key] = (tensor * float(rng.choice(("nan", "inf")))).contiguous()
            case 2:
                tensors[key] = tensor.reshape(-1).contiguous()
            case 3:
                tensors[key] = tensor.double().to(rng.choice(DTYPES)).contiguous()
            case 4:
                tensors[key.replace("lora", rng.choice(("lokr_w1", "hada_w1_a", "lora_mid", "diff")))] = tensor
            case _:
                pass
    file = tmp_path / "adapter_model.safetensors"
    content = save(tensors)
    file.write_bytes(octets(content, rng) if rng.random() < 0.4 else content)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "alpha_pattern": {}, "use_rslora": False}
    (tmp_path / "adapter_config.json").write_bytes(rng.choice(ENCODINGS)(json.dumps(values(config, rng))))
    weights = read(lambda: fit(load_weights(tmp_path), tiny_unet_shapes(), "it"))
    if weights is not None:
        for layer in weights.layers.values():  # type: ignore[union-attr]
            assert layer.a.isfinite().all()
            assert layer.b.isfinite().all()
            assert np.isfinite(layer.scale)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Entries of a valid file for each importer."""
    folder = tmp_path_factory.mktemp("exports")
    with open_store(folder) as store:
        person = store.create_participant()
        for number, choice in enumerate(("left", "right", "tie", "both_bad")):
            ids = add_comparison(store, f"c{number}", prompt=TEXTS[number])
            cast(store, person, ids["base"], ids["aligned"], choice)  # type: ignore[arg-type]
        for name in ("jsonl", "fastchat", "lmarena"):
            EXPORTERS[name](store.exported_votes(), store.media, folder / name)
        EXPORTERS["pickapic"](store.exported_votes(), store.media, folder / "pairs.parquet")
    entries: dict[str, Any] = {
        name: [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").split("\n") if line]
        for name in ("jsonl", "fastchat", "lmarena")
    }
    return entries | {"pickapic": pq.read_table(folder / "pairs.parquet").to_pylist()}


def state(store: Store) -> tuple[object, ...]:
    totals = store.totals()
    return totals.votes, totals.participants, totals.comparisons, [tuple(count) for count in store.vote_counts()]


@pytest.fixture(scope="module")
def into(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all files: what came before must stay as it was."""
    return open_store(tmp_path_factory.mktemp("into"))


@pytest.mark.parametrize("name", ["jsonl", "fastchat", "lmarena", "pickapic"])
@fuzzed
@chances
def test_imports(seed: int, name: str, exports: dict[str, Any], into: Store, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = [row if rng.random() < 0.6 else values(row, rng) for row in exports[name]]
    file = tmp_path / "votes"
    if name == "pickapic":
        try:
            pq.write_table(pa.Table.from_pylist(rows), file)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError, TypeError, AttributeError):
            return
        content = file.read_bytes()
    else:
        content = rng.choice(ENCODINGS)(
            dumped(rows, rng) if name != "jsonl" else "".join(json.dumps(row) + "\n" for row in rows)
        )
    file.write_bytes(octets(content, rng) if rng.random() < 0.3 else content)
    before, media = state(into), set(map(str, into.media))
    report = read(lambda: into.import_votes(partial(IMPORTERS[name], file)))
    if report is None:
        assert state(into) == before, "all or nothing"
        assert set(map(str, into.media)) == media, "files too"
    elif rng.random() < 0.02:
        assert into.verify() == []
