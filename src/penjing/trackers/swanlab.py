"""SwanLab. Nothing leaves the machine unless `mode: cloud` says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from penjing.errors import NotSupported
from penjing.tracker import Live, Tracker


def swanlab(*, project: str = "penjing", mode: Literal["offline", "local", "cloud"] = "offline") -> Tracker:
    """Log to SwanLab; offline, `swanlab sync` sends it later.

    project: where it belongs. mode: `offline` and `local` write below the run's folder, `cloud` sends.
    """

    def begin(run: Path, spec: dict[str, Any]) -> Live:
        try:
            import swanlab as package
        except ImportError as error:
            raise NotSupported(
                f"`trackers: [swanlab]` logs to SwanLab; the package swanlab is not installed ({error}). "
                f"`pip install swanlab` brings it, or leave the tracker out."
            ) from error
        live = package.init(
            project=project, experiment_name=run.name, logdir=str(run / "swanlab"), config=spec, mode=mode
        )
        return Live(lambda step, values: live.log(dict(values), step=step), package.finish)

    return Tracker("swanlab", begin)
