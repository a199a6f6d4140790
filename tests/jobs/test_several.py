"""Runs carried by several processes: as one, through torchrun; killed, resumed, refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from safetensors.torch import load_file

from conftest import tickets
from penjing import spec as specs
from penjing.engine.ranks import Ranks
from penjing.errors import DataError, NotSupported, SpecError, TrainingFailed
from penjing.jobs.launch import _error, _surroundings
from penjing.jobs.news import News
from penjing.jobs.pretrain import pretrain
from penjing.jobs.several import refuse_alone
from penjing.jobs.train import resume, tune
from penjing.run import Run
from penjing.tasks.classify import classify


@pytest.fixture
def still(small: dict[str, Any]) -> dict[str, Any]:
    """`small` without dropout, which alone depends on the number of processes."""
    small["train"] |= {"dropout": 0.0, "save_s": 0}
    return small | {"task": {"classify": {"head_dropout": 0.0}}}


def of(still: dict[str, Any], **train: Any) -> dict[str, Any]:
    return still | {"train": still["train"] | train}


def same(one: Run, other: Run, gap: float = 1e-5) -> None:
    ours, theirs = one.lines("log.jsonl"), other.lines("log.jsonl")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=gap)
        assert (a["n_rows"], a["n_tokens"], a["lr"]) == (b["n_rows"], b["n_tokens"], b["lr"])
    assert [line["step"] for line in one.lines("scores.jsonl")] == [
        line["step"] for line in other.lines("scores.jsonl")
    ]
    files = [
        sorted(p.relative_to(r.folder / "best") for p in (r.folder / "best").rglob("*.safetensors"))
        for r in (one, other)
    ]
    assert files[0] == files[1]
    for name in files[0]:
        a, b = (load_file(r.folder / "best" / name) for r in (one, other))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(a[key].numpy(), b[key].numpy(), atol=1e-3, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "method"), [("ddp", "full"), ("fsdp", "full"), ("ddp", "lora"), ("fsdp", "lora")]
)
def test_two_processes_make_the_run_of_one(strategy: str, method: str, still: dict[str, Any]) -> None:
    news: list[Any] = []
    settings = {"method": method}
    one = tune(of(still, strategy=strategy), name="one", **settings)
    two = tune(of(still, strategy=strategy, processes=2), name="two", tell=news.append, **settings)
    same(one, two)
    assert two.state == "done"
    assert two.bundle.predict(["my parcel is late"])[0]["label"] in two.bundle.labels
    kinds = [n.kind for n in news]
    assert {"stage", "note", "progress", "score"} == {*kinds}
    assert [n.done for n in news if n.kind == "progress" and n.text.startswith("loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_torchrun_itself_carries_a_run(still: dict[str, Any], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(still))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "penjing", "tune", str(spec), "--name", "two", "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"  # one process shows
    same(tune(still, name="one"), Run(Path(still["out"]) / "two"))


def members(parent: int) -> list[psutil.Process]:
    """The processes below `parent` that carry a run."""
    try:
        below = psutil.Process(parent).children(recursive=True)
        return [
            p
            for p in below
            if "penjing.jobs.member" in p.cmdline() and "torch.distributed.run" not in p.cmdline()
        ]
    except psutil.Error:
        return []


def n_logged(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_whose_processes_are_killed_anywhere_ends_as_one_left_in_peace(
    strategy: str, still: dict[str, Any], tmp_path: Path
) -> None:
    wanted = of(still, strategy=strategy, steps=40, evals=4, processes=2)
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(wanted))
    folder = Path(still["out"]) / "killed"
    command = [sys.executable, "-m", "penjing", "tune"]
    draw = random.Random(0)
    arguments = [str(spec), "--name", "killed"]
    for victim in ("a member", "the launcher", "stopped"):
        before = n_logged(folder)
        going = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
        while n_logged(folder) <= before and going.poll() is None:
            time.sleep(0.01)
        own = members(going.pid)
        time.sleep(draw.random() * 0.3)
        if victim == "a member" and own:
            draw.choice(own).kill()
        elif victim == "the launcher":
            going.kill()
        else:
            going.send_signal(signal.SIGTERM)
        said = going.communicate(timeout=120)[1]
        _, alive = psutil.wait_procs(own, timeout=90)
        assert not alive, f"{victim}: {alive} go on"
        if victim == "a member" and n_logged(folder) < 40:
            assert "One of 2 processes ended before its work was done" in said
        arguments = ["--resume", str(folder)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    same(tune(wanted | {"train": wanted["train"] | {"processes": 1}}, name="peace"), Run(folder), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_that_is_stopped_is_saved_and_resumed_by_another_number(
    strategy: str, still: dict[str, Any]
) -> None:
    def stop(news: News) -> None:
        if news.text.startswith("loss") and news.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)  # as Ctrl-C; it waits for the end of a step

    wanted = of(still, strategy=strategy, steps=200, evals=2, lr=1e-4)
    with pytest.raises(KeyboardInterrupt):
        tune(of(wanted, processes=2), name="stopped", tell=stop)
    run = Run(Path(still["out"]) / "stopped")
    assert run.state == "open"
    assert 2 <= run.lines("log.jsonl")[-1]["step"] < 200
    resume(run.folder, processes=1)
    same(tune(wanted, name="peace"), run, 1e-3)  # 200 steps of Adam: rounding grows


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_two_processes_pretrain_as_one(family: str, strategy: str, tiny: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for n, (text, _) in enumerate(tickets(120)):
        (corpus / f"{n}.txt").write_text(f"{text}. " * 6)
    still = {"steps": 6, "evals": 2, "batch": 8, "dropout": 0.0, "strategy": strategy}
    given = {"base": str(tiny(family)), "data": {"train": str(corpus)}, "device": "cpu", "precision": "fp32"}
    given |= {"out": str(tmp_path / "runs")}
    one = pretrain({**given, "train": still}, name="one")
    two = pretrain({**given, "train": still | {"processes": 2}}, name="two")
    same(one, two)


# ---- what goes wrong


@pytest.mark.slow
def test_what_a_process_meets_is_told_as_by_one(still: dict[str, Any], tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\nhello,\nyou,b\n")
    wanted = of(still, processes=2) | {"data": {"train": str(bad)}}
    with pytest.raises(DataError, match=r"bad.csv.*label"):
        tune(wanted, name="bad")
    assert not (Path(still["out"]) / "bad").exists(), "nothing was begun"


def test_a_members_own_error_comes_before_what_it_did_to_the_others(tmp_path: Path) -> None:
    lost = {"error": "RuntimeError: Connection closed by peer", "kind": ""}
    own = {"error": "rows.csv, line 3: the label is empty.", "kind": "DataError"}
    found = _error([lost, own], 2, tmp_path)
    assert isinstance(found, DataError)
    assert str(found) == own["error"]
    killed = _error([lost], 2, tmp_path)
    assert isinstance(killed, TrainingFailed)
    assert "was killed" in str(killed)
    assert "--resume" in str(killed)
    assert (tmp_path / "error.txt").is_file()


def test_threads_are_divided_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.jobs.launch.cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _surroundings(4, 1, "x")["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert _surroundings(4, 1, "x")["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "prefix"}, "method: prefix.*full.*strategy: ddp"),
        ({"techniques": ["ema"]}, "ema.*whole weights.*strategy: ddp"),
        ({"method": {"lora": {"quantize": "nf4"}}}, "quantize.*strategy: ddp"),
    ],
)
def test_what_cannot_be_sharded_is_refused(changes: Any, words: str, still: dict[str, Any]) -> None:
    spec = specs.read(of(still, strategy="fsdp", processes=2) | changes)
    with pytest.raises(NotSupported, match=f"(?s){words}"):
        refuse_alone(spec, classify(), Ranks(0, 2, "fsdp"))
    refuse_alone(spec, classify(), Ranks())


def test_a_loss_over_a_whole_step_is_not_dealt_out(still: dict[str, Any]) -> None:
    from dataclasses import replace

    with pytest.raises(NotSupported, match=r"compares the rows of a step.*by one process"):
        refuse_alone(specs.read(still), replace(classify(), joint=True), Ranks(0, 2, "ddp"))


def test_an_optimizer_that_needs_whole_weights_is_refused_at_the_door(still: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"strategy: fsdp.*muon.*adamw, lion, sgd"):
        specs.read(of(still, strategy="fsdp", optimizer="muon"))


def test_the_wrong_number_under_torchrun_is_an_error(
    still: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setitem(os.environ, key, value)
    with pytest.raises(NotSupported, match="asks for 3 processes; 2 were started"):
        tune(of(still, processes=3), name="three")
