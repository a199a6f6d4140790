"""Tune: a finished run holds all it promises, a stopped one comes to the same end, changes are refused."""

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penjing import Run, tune
from penjing.chains.search import search
from penjing.engine import loop
from penjing.errors import NotSupported, PenjingError, SpecError, TrainingFailed
from penjing.files import CannotWrite, sha256
from penjing.jobs import keep
from penjing.jobs.news import News
from penjing.jobs.report import verdict_of
from penjing.jobs.stopping import between_steps
from penjing.jobs.train import resume


def stop_at(*steps: int) -> Callable[[News], None]:
    """Presses Ctrl-C, so to speak, when these steps are told."""
    left = set(steps)

    def tell(news: News) -> None:
        if news.kind == "progress" and news.text.startswith("loss") and news.done in left:
            left.remove(news.done)
            raise KeyboardInterrupt

    return tell


def weights(run: Run) -> dict[str, str]:
    """Hashes of the best bundle's files, and of every tensor that `last/` keeps."""
    best = {
        str(p.relative_to(run.folder)): sha256(p) for p in (run.folder / "best").rglob("*") if p.is_file()
    }
    last = load_file(run.folder / "last" / "state.safetensors")
    return best | {name: str(hash(t.numpy().tobytes())) for name, t in last.items()}


def scores(run: Run) -> list[Any]:
    return [(line["step"], line["values"]) for line in run.lines("scores.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "precision"), [("full", "fp32"), ("full", "bf16"), ("lora", "bf16")])
def test_a_run_stopped_three_times_ends_as_one_never_stopped(
    small: dict[str, Any], method: str, precision: str
) -> None:
    small |= {"method": method, "precision": precision}
    small["train"] |= {"save_s": 0, "steps": 8, "evals": 4}
    whole = tune(small, name="whole")
    with pytest.raises(KeyboardInterrupt):
        tune(small, name="stopped", tell=stop_at(1))
    for step in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            resume(Path(small["out"]) / "stopped", tell=stop_at(step))
    done = resume(Path(small["out"]) / "stopped")
    assert done.state == "done"
    assert weights(done) == weights(whole)
    assert scores(done) == scores(whole)
    assert [line["step"] for line in done.lines("log.jsonl")] == list(range(1, 9))
    assert done.result["after"]["values"] == whole.result["after"]["values"]


@pytest.mark.slow
def test_a_run_stopped_within_a_step_goes_on_from_the_last_saved_state(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small["train"] |= {"save_s": 0}
    whole = tune(small, name="whole")
    real, calls = torch.optim.AdamW.step, []

    def half(self: Any, *rest: Any) -> Any:
        calls.append(1)
        result = real(self, *rest)
        if len(calls) == 4:
            raise KeyboardInterrupt  # weights are of step 4, counters of step 3
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", half)
        with pytest.raises(KeyboardInterrupt):
            tune(small, name="stopped")
    assert weights(resume(Path(small["out"]) / "stopped")) == weights(whole)


def test_a_signal_waits_for_the_end_of_the_step() -> None:
    with between_steps() as check:
        signal.raise_signal(signal.SIGTERM)  # noted only
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_does_not_wait() -> None:
    with between_steps():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_beside_the_main_thread_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with between_steps() as check:
            seen.append(signal.getsignal(signal.SIGINT))
            check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.slow
def test_a_signal_saves_the_step_it_waited_for(small: dict[str, Any]) -> None:
    def tell(news: News) -> None:
        if news.text.startswith("loss") and news.done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tune(small, name="a", tell=tell)
    told: list[str] = []
    resume(Path(small["out"]) / "a", tell=lambda news: told.append(news.text))
    assert "going on after step 3 of 6" in told


@pytest.mark.slow
def test_the_finished_run_holds_all_it_promises(small: dict[str, Any]) -> None:
    run = tune(small, name="a")
    there = {p.name for p in run.folder.iterdir()}
    assert {"spec.yaml", "lineage.json", "data.json", "log.jsonl", "scores.jsonl"} <= there
    assert {"best", "last", "result.json", "report.html"} <= there
    assert "error.txt" not in there
    assert not [p for p in run.folder.rglob(".*") if p.name != ".lock"]
    assert len(run.lines("log.jsonl")) == 6
    assert len(run.lines("scores.jsonl")) == 3
    assert {"before", "after", "baseline", "cost"} <= set(run.result)
    assert set(run.bundle.predict(["my parcel is late"])[0]) == {"label", "confidence", "scores"}


@pytest.mark.slow
def test_running_the_written_spec_repeats_the_run(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tune(small, name="a")
    monkeypatch.chdir("/")
    again = tune(first.folder / "spec.yaml", sets=("name=b",))
    assert weights(again) == weights(first)


@pytest.mark.slow
def test_early_stopping_says_why(small: dict[str, Any]) -> None:
    run = tune(small, steps=40, evals=40, patience=2, lr=1e-12)
    assert run.result["cost"]["stopped"].startswith("no better score in 2 validations; stopped at step")
    assert run.result["cost"]["steps"] < 40


@pytest.mark.slow
def test_the_time_limit_keeps_the_best(small: dict[str, Any]) -> None:
    run = tune(small, steps=400, minutes=1e-6)
    assert "time limit" in run.result["cost"]["stopped"]
    assert run.result["best_step"] == 1
    assert run.bundle.predict(["late"])


@pytest.mark.slow
def test_a_score_that_is_no_number_still_leaves_a_bundle(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from penjing import measures

    real = measures.single_label

    def unknown(*args: Any) -> Any:
        found = real(*args)
        found.values["accuracy"] = float("nan")
        return found

    monkeypatch.setattr(measures, "single_label", unknown)
    tune(small, name="a", steps=1)
    assert (Path(small["out"]) / "a" / "best" / "card.json").is_file()


@pytest.mark.slow
def test_a_score_that_is_no_number_is_beaten_by_any_that_is_one(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from penjing import measures

    real, judged = measures.single_label, list[str]()

    def unknown_at_first(*args: Any) -> Any:
        found = real(*args)
        if not judged:
            found.values["accuracy"] = float("nan")
        return found

    monkeypatch.setattr(measures, "single_label", unknown_at_first)
    run = tune(
        small, steps=2, evals=2, tell=lambda news: judged.append(news.text) if news.kind == "score" else None
    )
    assert (run.result["best_step"], run.bundle.card["step"]) == (2, 2)
    assert run.result["best_score"] > 0


@pytest.mark.slow
def test_a_run_that_lacks_its_report_only_gets_it(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **how: Any) -> Any:
        raise CannotWrite("report.html was to be written; no space")

    with monkeypatch.context() as patch:
        patch.setattr("penjing.jobs.conclude.report", full)
        with pytest.raises(CannotWrite):
            tune(small, name="a", steps=1)
    folder = Path(small["out"]) / "a"
    result = (folder / "result.json").read_bytes()
    assert (folder / "error.txt").is_file()
    assert resume(folder).state == "done"
    assert (folder / "report.html").is_file()
    assert not (folder / "error.txt").exists()
    assert verdict_of(folder).state == "done"
    assert (folder / "result.json").read_bytes() == result


@pytest.mark.slow
def test_a_finished_run_is_not_resumed(small: dict[str, Any]) -> None:
    run = tune(small, steps=1)
    with pytest.raises(NotSupported, match=r"was to be resumed; it is done. See .*report.html"):
        resume(run.folder)


@pytest.fixture
def stopped(small: dict[str, Any]) -> Path:
    with pytest.raises(KeyboardInterrupt):
        tune({**small, "train": {**small["train"], "save_s": 0}}, name="a", tell=stop_at(4))
    return Path(small["out"]) / "a"


@pytest.mark.slow
def test_changed_rows_are_refused(stopped: Path, tiny_csv: Path) -> None:
    tiny_csv.write_text(tiny_csv.read_text().replace("late", "early"))
    with pytest.raises(NotSupported, match=r"rows of `data.train` .*another SHA-256.*start a new run"):
        resume(stopped)


@pytest.mark.slow
def test_a_changed_base_is_refused(small: dict[str, Any], tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny("bert"), tmp_path / "base"))
    with pytest.raises(KeyboardInterrupt):
        tune({**small, "base": str(base)}, name="a", save_s=0, tell=stop_at(2))
    tensors = load_file(base / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.bias"] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotSupported, match=r"is not the one that .* began with: its SHA-256 was"):
        resume(Path(small["out"]) / "a")


@pytest.mark.slow
def test_a_changed_spec_is_refused_and_the_key_named(stopped: Path) -> None:
    path = stopped / "spec.yaml"
    path.write_text(path.read_text().replace("clip: 1.0", "clip: 2.0"))
    with pytest.raises(NotSupported, match=r"`train.clip` in .*spec.yaml is 2.0; the run began with 1.0"):
        resume(stopped)


@pytest.mark.slow
def test_what_changes_nothing_may_change(stopped: Path) -> None:
    path = stopped / "spec.yaml"
    path.write_text(path.read_text().replace("micro_tokens: 8192", "micro_tokens: 64"))
    assert resume(stopped).state == "done"


@pytest.mark.slow
def test_a_damaged_state_is_named(stopped: Path) -> None:
    state = stopped / keep.NAME
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(NotSupported, match=r"state.safetensors could not be read .*delete the folder last/"):
        resume(stopped)


@pytest.mark.slow
def test_a_run_that_another_holds_is_not_resumed(stopped: Path) -> None:
    with Run(stopped).held(), pytest.raises(NotSupported, match="another process is writing it"):
        resume(stopped)


@pytest.mark.slow
def test_without_a_name_the_newest_run_that_can_go_on_is_resumed(
    stopped: Path, small: dict[str, Any]
) -> None:
    tune(small, name="later", steps=1)
    assert resume(out=small["out"]).folder == stopped


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on_from_the_last_good_state(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small["train"] |= {"save_s": 0}
    whole = tune(small, name="whole")
    real, states = os.replace, []

    def replace(source: Any, goal: Any) -> None:
        states.extend([goal] if str(goal).endswith("state.safetensors") else [])
        if len(states) >= 3:  # nothing can be written from the third state on
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, goal)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(CannotWrite, match=r"No space left.*last good state is whole.*--resume"):
            tune(small, name="a")
    told: list[str] = []
    done = resume(Path(small["out"]) / "a", tell=lambda news: told.append(news.text))
    assert "going on after step 2 of 6" in told
    assert weights(done) == weights(whole)


@pytest.mark.slow
def test_a_run_that_died_says_why_in_its_folder(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "norm_of", lambda parameters: float("nan"))
    with pytest.raises(TrainingFailed):
        tune(small, name="a")
    run = Run(Path(small["out"]) / "a")
    assert run.state == "died"
    assert "loss at step 1" in (run.folder / "error.txt").read_text()


@pytest.mark.slow
def test_bad_input_leaves_no_folder_behind(small: dict[str, Any]) -> None:
    with pytest.raises(PenjingError):
        tune(small, base="/nowhere")
    with pytest.raises(PenjingError):
        tune(small, text="nothing")
    assert not Path(small["out"]).exists()


@pytest.mark.slow
def test_rows_of_a_language_the_base_does_not_know_are_told(small: dict[str, Any], tmp_path: Path) -> None:
    rows = "".join(f"{'退款在哪里' if i % 2 else '包裹破损了'}第{i}号,{i % 2}\n" for i in range(40))
    (tmp_path / "zh.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    told: list[str] = []
    tune(
        {**small, "data": {"train": str(tmp_path / "zh.csv")}},
        name="zh",
        tell=lambda news: told.append(news.text),
    )
    assert any("unknown to" in text for text in told)


def test_a_name_that_is_taken_is_told_before_anything_is_read(small: dict[str, Any], tmp_path: Path) -> None:
    taken = tmp_path / "runs" / "mine"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("mine")
    for job in (tune, search):
        with pytest.raises(SpecError, match=r"`name: mine` was asked for; .* is there already"):
            job({**small, "base": "/nowhere"}, out=str(tmp_path / "runs"), name="mine")
