"""Runs in processes of their own: two that share a batch, and ten kills.

python -m pytest -m slow tests/train/engine/test_processes.py      # about four minutes on two cores
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from npo_core.weights import load_adapter
from tests.train.helpers import weights_in

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
from dataclasses import replace
from tests.tiny import tiny_pipeline
from tests.train.helpers import random_pairs, small_config
from train.engine.loop import train_adapter

folder, steps, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
shard = sys.argv[3] == "shard"
config = small_config(folder, max_train_steps=steps, batch_size=4, checkpoint_every=1, ema_decay=0.9, resume=resume,
                      learning_rate=1e-3, validate_every=7, shard_base=shard)
pipeline = tiny_pipeline()
whole = sum(parameter.numel() for parameter in pipeline.unet.parameters())

def share(metrics):
    parts = [getattr(parameter, "_local_tensor", parameter) for parameter in pipeline.unet.parameters()]
    kept = sum(part.numel() for part in parts if not part.requires_grad)
    print(f"share {kept / whole:.3f}", flush=True)

train_adapter(config, random_pairs(9), pipeline, share, held_out=random_pairs(3, seed=2))
"""


def start(folder: Path, steps: int, how: str, *launcher: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = folder.parent / "run.py"
    script.write_text(SCRIPT)
    command = [*(launcher or (sys.executable,)), str(script), str(folder), str(steps), how]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> str:
    printed, error = process.communicate(timeout=600)
    assert process.returncode == 0, error.decode()[-2000:]
    return printed.decode()


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random_moments_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path: Path) -> None:
    steps, chance = 60, random.Random(0)
    (tmp_path / "whole").mkdir()
    finish(start(tmp_path / "whole", steps, "new"))
    broken = tmp_path / "broken"
    broken.mkdir()
    kills, resumed_at = 0, []
    while kills < 10:
        process = start(broken, steps, "resume" if kills else "new")
        checkpoint = broken / "checkpoint.pt"
        before = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
        deadline = time.monotonic() + 120
        while not checkpoint.is_file() or checkpoint.stat().st_mtime_ns == before:  # it is at work again
            assert process.poll() is None or kills > 0, "it ended before it was killed"
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        if process.poll() is not None:
            break
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        resumed_at.append(torch.load(checkpoint, weights_only=True)["step"])
    assert kills == 10, resumed_at
    assert resumed_at == sorted(resumed_at)
    finish(start(broken, steps, "resume"))
    assert weights_in(broken) == weights_in(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["new", "shard"])
def test_two_processes_train_what_one_does_with_the_same_batch(how: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert "share 1.000" in finish(start(tmp_path / "one", 8, "new"))
    launcher = (
        f"{sys.executable} -m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 "
        "--mixed_precision no --main_process_port 0"
    )
    shares = re.findall(r"share ([\d.]+)", finish(start(tmp_path / "two", 8, how, *launcher.split())))
    assert len(shares) == 16
    assert all(0.99 < float(share) <= 1 if how == "new" else 0.4 < float(share) < 0.6 for share in shares)
    one, two = (load_adapter(tmp_path / name).layers for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, layer in one.items():
        torch.testing.assert_close(two[name].b, layer.b, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(two[name].a, layer.a, rtol=1e-3, atol=1e-5)
