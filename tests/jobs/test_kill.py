"""A run that is killed, again and again and anywhere, ends with the weights of one left in peace."""

import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from penjing.files import sha256
from penjing.jobs.train import resume, tune

STEPS = 30


def weights(folder: Path) -> dict[str, Any]:
    best = {str(p.relative_to(folder)): sha256(p) for p in (folder / "best").rglob("*") if p.is_file()}
    return best | {
        k: t.numpy().tobytes() for k, t in load_file(folder / "last" / "state.safetensors").items()
    }


def n_logged(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kills"),
    [
        ("full", 5),
        pytest.param("full", 20, marks=pytest.mark.long),
        pytest.param("lora", 20, marks=pytest.mark.long),
        pytest.param({"top": {"layers": 1}}, 20, marks=pytest.mark.long),
    ],
    ids=["full", "full-often", "lora-often", "top-often"],
)
def test_a_run_killed_again_and_again_ends_as_one_left_in_peace(
    small: dict[str, Any], tmp_path: Path, method: Any, kills: int
) -> None:
    small |= {"method": method, "precision": "bf16"}
    small["train"] |= {"save_s": 0, "steps": STEPS, "evals": STEPS // 2, "dropout": 0.1}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small))
    folder = Path(small["out"]) / "killed"
    # Real processes, really killed; forked from one that has imported torch, which takes six seconds.
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["penjing.jobs.train", "transformers.models.bert.modeling_bert", "peft"])
    draw, at = random.Random(0), []
    going = forks.Process(target=tune, args=(spec,), kwargs={"name": "killed"})
    for _ in range(kills):
        before = n_logged(folder)
        going.start()
        # From the first sign of life on, a random moment: in a step, a validation, a save.
        while n_logged(folder) <= before and going.is_alive():
            time.sleep(0.002)
        time.sleep(draw.random() * 0.1)
        going.kill()
        going.join()
        at.append(n_logged(folder))
        if at[-1] >= STEPS:
            break
        going = forks.Process(target=resume, args=(folder,))
    command = [sys.executable, "-m", "penjing", "tune", "--resume", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    peace = tune(spec, name="peace")
    assert len(at) >= kills // 2, f"too quick to be killed: {at}"
    assert weights(folder) == weights(peace.folder)
    assert not list(folder.rglob("*.aside")), "what a killed writer left lies there still"
