"""The verb `export-log`: a run's log for TensorBoard and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penjing.screen import Screen


def export_log(
    run: Annotated[Path, typer.Argument(help="run folder")],
    to: Annotated[
        str, typer.Option("--to", help="tensorboard, wandb, mlflow, swanlab, or {wandb: {project: x}}")
    ] = "tensorboard",
) -> None:
    """Hand the log of a run on to a tracker."""
    with Screen(quiet=True):
        import yaml

        from penjing.errors import SpecError
        from penjing.jobs.track import export_log as job

        try:
            tracker = yaml.safe_load(to)
        except yaml.YAMLError as error:
            raise SpecError(
                f"`--to` must name a tracker; `{to}` is not YAML. Say `--to tensorboard`."
            ) from error
        steps = job(run, tracker)
    typer.echo(f"{steps:,} steps of {run}")
