"""How the commands are called in these tests, and what interrupts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from collection.store import Store
from collection.types import AdapterRecord
from npo_core.media.files import sha256_file
from npo_core.weights import save_adapter
from tests.tiny import tiny_weights
from train.engine.run import Run


def arguments(tmp_path: Path, *more: str) -> list[str]:
    where = f"--from-db --family tiny --database-url sqlite:///{tmp_path}/npo.db --data-dir {tmp_path}/data"
    how = "--max-train-steps 3 --batch-size 4 --rank 2 --min-pairs 3 --device cpu"
    return [*where.split(), *how.split(), *more]


class PulledPlugError(Exception):
    """Stands for a fault in the middle of a run."""


def pull_plug_at(step: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] = KeyboardInterrupt) -> None:
    """The next runs end with `error` when they come to `step`."""
    whole = Run._train_step

    def until(run: Run) -> Tensor:
        if run.step == step:
            raise error("the plug was pulled")
        return whole(run)

    monkeypatch.setattr(Run, "_train_step", until)


def put_to_use(store: Store, folder: Path, seed: int) -> AdapterRecord:
    """A random aligned LoRA, as if it were trained and promoted."""
    file = save_adapter(tiny_weights(seed), folder)
    return store.register_adapter(AdapterRecord("tiny", "aligned", folder.name, str(file), sha256_file(file)))
