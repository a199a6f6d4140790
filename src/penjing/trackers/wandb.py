"""Weights & Biases. Nothing leaves the machine unless `mode: online` says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from penjing.errors import NotSupported
from penjing.tracker import Live, Tracker


def wandb(
    *, project: str = "penjing", entity: str | None = None, mode: Literal["offline", "online"] = "offline"
) -> Tracker:
    """Log to Weights & Biases; offline, `wandb sync` sends it later.

    project, entity: where it belongs. mode: `offline` writes below the run's folder, `online` sends at once.
    """

    def begin(run: Path, spec: dict[str, Any]) -> Live:
        try:
            import wandb as package
        except ImportError as error:
            raise NotSupported(
                f"`trackers: [wandb]` logs to Weights & Biases; the package wandb is not installed "
                f"({error}). `pip install wandb` brings it, or leave the tracker out."
            ) from error
        live = package.init(
            project=project,
            entity=entity,
            name=run.name,
            id=run.name,
            resume="allow",
            dir=str(run),
            config=spec,
            mode=mode,
        )
        return Live(
            lambda step, values: live.log(dict(values), step=step),
            live.finish,
            lambda: live.finish(exit_code=1),
        )

    return Tracker("wandb", begin)
