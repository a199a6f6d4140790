"""MLflow, through its client alone: no global run, no autologging."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.errors import NotSupported
from penjing.tracker import Live, Tracker


def mlflow(*, experiment: str = "penjing", uri: str | None = None) -> Tracker:
    """Log to MLflow.

    experiment: its name. uri: of the tracking server; `mlflow.db` beside the run's folder, when not given.
    """

    def begin(run: Path, spec: dict[str, Any]) -> Live:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise NotSupported(
                f"`trackers: [mlflow]` logs to MLflow; the package mlflow is not installed ({error}). "
                f"`pip install mlflow` brings it, or leave the tracker out."
            ) from error
        client = MlflowClient(tracking_uri=uri or f"sqlite:///{run.absolute().parent / 'mlflow.db'}")
        known = client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else client.create_experiment(experiment)
        made = client.create_run(number, run_name=run.name).info.run_id
        for name, value in _flat(spec).items():
            client.log_param(made, name, value)

        def log(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                client.log_metric(made, name, value, step=step)

        return Live(log, lambda: client.set_terminated(made), lambda: client.set_terminated(made, "FAILED"))

    return Tracker("mlflow", begin)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`train.lr` and the like, as MLflow's parameters have no levels; at most 500 characters each."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)[:500]}
    return found
