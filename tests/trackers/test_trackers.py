"""Trackers get what a run's files hold: once each, in order, after a resume too; none is required."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from penjing import plugin
from penjing import spec as specs
from penjing.errors import NotSupported, SpecError
from penjing.jobs.track import export_log, following
from penjing.run import Run, new
from penjing.tracker import Tracker

STEP = {
    "loss": 1.5,
    "parts": {"prior": 0.25},
    "lr": 1e-3,
    "grad_norm": 2.0,
    "n_tokens": 40,
    "n_rows": 4,
    "seconds": 0.1,
}
SCORES = {"split": "valid", "values": {"accuracy": 0.5, "ece": float("nan")}, "intervals": {}}


def run_with(tmp_path: Path, *trackers: Any, steps: int = 0) -> Run:
    run = new(specs.read(train="rows.csv", out=str(tmp_path), name="one", trackers=list(trackers)))
    for step in range(1, steps + 1):
        write(run, step)
    return run


def write(run: Run, step: int, *, scores: bool = False) -> None:
    run.append("log.jsonl", {"step": step, **STEP, "loss": 1.0 / step, "notes": []})
    if scores:
        run.append("scores.jsonl", {"step": step, **SCORES})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What packages that are not here were asked for."""
    found: list[Any] = []

    def told(name: str) -> Any:
        return lambda *a, **k: (
            found.append((name, a, k)) or SimpleNamespace(log=told("log"), finish=told("finish"))
        )

    wandb, swanlab = ModuleType("wandb"), ModuleType("swanlab")
    wandb.init = told("wandb.init")  # type: ignore[attr-defined]
    swanlab.init, swanlab.finish = told("swanlab.init"), told("finish")  # type: ignore[attr-defined]

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            found.append(("client", (tracking_uri,), {}))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, number: str, run_name: str) -> Any:
            return SimpleNamespace(info=SimpleNamespace(run_id=f"{number}/{run_name}"))

        log_param = staticmethod(told("param"))
        log_metric = staticmethod(told("metric"))
        set_terminated = staticmethod(told("finish"))

    mlflow, tracking = ModuleType("mlflow"), ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client  # type: ignore[attr-defined]
    for module in (wandb, swanlab, mlflow, tracking):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def test_every_line_is_handed_on_once_as_it_is_written(tmp_path: Path, calls: list[Any]) -> None:
    run = run_with(tmp_path, {"wandb": {"project": "x"}})
    with following(run) as track:
        for step in (1, 2):
            write(run, step, scores=step == 2)
            track()
        track()
    logged = [(k["step"], a[0]) for name, a, k in calls if name == "log"]
    assert [step for step, _ in logged] == [1, 2, 2]
    assert logged[0][1]["train/loss"] == 1.0
    assert logged[1][1]["train/parts/prior"] == 0.25
    assert logged[2][1] == {"valid/accuracy": 0.5}  # what is no number is no point of a curve
    assert calls[-1][0] == "finish"


def test_a_resumed_run_repeats_no_step(tmp_path: Path, calls: list[Any]) -> None:
    run = run_with(tmp_path, "wandb", steps=3)
    with following(run, 3) as track:
        write(run, 4)
        track()
    assert [k["step"] for name, _, k in calls if name == "log"] == [4]


def test_half_a_line_waits_for_its_rest(tmp_path: Path, calls: list[Any]) -> None:
    run = run_with(tmp_path, "swanlab")
    line = json.dumps({"step": 1, **STEP})
    with following(run) as track:
        (run.folder / "log.jsonl").write_text(line[:20])
        track()
        assert not [c for c in calls if c[0] == "log"]
        (run.folder / "log.jsonl").write_text(line + "\n")
        track()
    assert [k["step"] for name, _, k in calls if name == "log"] == [1]


@pytest.mark.slow
def test_nothing_reaches_the_network_unless_asked(tmp_path: Path, calls: list[Any]) -> None:
    run = run_with(tmp_path, steps=1)
    for name in ("wandb", "swanlab", "mlflow"):
        export_log(run.folder, name)
    begun = {name: (a, k) for name, a, k in calls}
    assert begun["wandb.init"][1]["mode"] == "offline"
    assert begun["swanlab.init"][1]["mode"] == "offline"
    assert begun["client"][0][0].startswith("sqlite:///")
    export_log(run.folder, {"wandb": {"mode": "online", "project": "p"}})
    assert [k["mode"] for name, _, k in calls if name == "wandb.init"] == ["offline", "online"]


def test_mlflow_gets_the_spec_s_keys_and_the_numbers(tmp_path: Path, calls: list[Any]) -> None:
    assert export_log(run_with(tmp_path, steps=2).folder, "mlflow") == 2
    params = {a[1]: a[2] for name, a, _ in calls if name == "param"}
    assert params["train.batch"] == "32"
    losses = [(k["step"], a[2]) for name, a, k in calls if name == "metric" and a[1] == "train/loss"]
    assert losses == [(1, 1.0), (2, 0.5)]
    assert calls[-1][0] == "finish"


@pytest.mark.parametrize(
    ("name", "said"), [("mlflow", ("FAILED",)), ("wandb", {"exit_code": 1}), ("swanlab", {})]
)
def test_a_run_that_dies_is_closed_and_said_to_have_failed(
    name: str, said: Any, tmp_path: Path, calls: list[Any]
) -> None:
    with pytest.raises(RuntimeError, match="no"), following(run_with(tmp_path, name)):
        raise RuntimeError("no")
    finished, given, named = calls[-1]
    assert finished == "finish"
    assert (given[1:] if name == "mlflow" else named) == said


def test_the_log_of_a_run_that_died_is_handed_on_as_that(tmp_path: Path, calls: list[Any]) -> None:
    run = run_with(tmp_path, steps=1)
    (run.folder / "error.txt").write_text("no")
    export_log(run.folder, "mlflow")
    assert calls[-1][1][1:] == ("FAILED",)


@pytest.mark.parametrize("name", sorted(plugin.found("trackers")))
def test_a_package_that_is_missing_is_named_with_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "swanlab", "mlflow", "mlflow.tracking", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    made: Tracker = plugin.build("trackers", plugin.Choice(name, {}))
    assert made.name == name
    with pytest.raises(NotSupported, match=rf"(?s){name}.*not installed.*pip install"):
        made.begin(tmp_path, {})


def test_tensorboard_files_hold_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_with(tmp_path, "tensorboard")
    with following(run) as track:
        for step in (1, 2, 4):
            write(run, step, scores=step == 4)
            track()
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (4, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("valid/accuracy")] == [(4, 0.5)]


def test_a_run_without_a_log_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="it has none"):
        export_log(run_with(tmp_path).folder, "tensorboard")


@pytest.mark.parametrize(
    ("trackers", "said"),
    [
        ("tensorboard", "must be a list such as"),
        (["tensorbord"], "Did you mean `tensorboard`"),
        ([{"wandb": {"mode": "on"}}], "`wandb.mode` must be"),
    ],
)
def test_a_spec_that_names_no_tracker_is_refused(trackers: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        specs.read(train="rows.csv", trackers=trackers)
