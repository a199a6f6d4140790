"""A run that is killed, again and again and anywhere, ends with the very same weights as one left in peace."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from penjing.files import sha256

KILLS, STEPS = 20, 24


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "penjing", "tune", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def weights(folder: Path) -> dict[str, Any]:
    best = {str(p.relative_to(folder)): sha256(p) for p in (folder / "best").rglob("*") if p.is_file()}
    return best | {
        k: t.numpy().tobytes() for k, t in load_file(folder / "last" / "state.safetensors").items()
    }


def n_logged(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full"])
def test_a_run_killed_twenty_times_ends_as_one_left_in_peace(
    small: dict[str, Any], tmp_path: Path, method: str
) -> None:
    small |= {"method": method, "precision": "bf16"}
    small["train"] |= {"save_s": 0, "steps": STEPS, "evals": STEPS // 2, "dropout": 0.1}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small))
    runs = Path(small["out"])
    peace = start(str(spec), "--name", "peace")
    draw = random.Random(0)
    kills, steps_at_kill = 0, []
    folder = runs / "killed"
    going = start(str(spec), "--name", "killed")
    while kills < KILLS and going.poll() is None:
        # From the first sign of life in this process, wait for a step or some, and a random moment more.
        before = n_logged(folder)
        deadline = time.monotonic() + 60
        while n_logged(folder) <= before and going.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.03)
        going.send_signal(signal.SIGKILL)
        going.wait()
        kills += 1
        steps_at_kill.append(n_logged(folder))
        going = start("--resume", str(folder))
    assert going.wait(120) == 0
    assert peace.wait(120) == 0
    assert kills >= KILLS // 2, f"too quick to be killed: {steps_at_kill}"
    assert weights(folder) == weights(runs / "peace")
    assert not list(folder.rglob("*.aside")), "a killed writer's leavings stay"
