"""TensorBoard's event files (tensorboard.dev's format, by `torch.utils.tensorboard`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.errors import NotSupported
from penjing.tracker import Live, Tracker


def tensorboard(*, folder: str | None = None) -> Tracker:
    """Write event files that `tensorboard --logdir runs` shows.

    folder: holds a folder a run; `tensorboard/` in the run's own, when not given.
    """

    def begin(run: Path, spec: dict[str, Any]) -> Live:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise NotSupported(
                f"`trackers: [tensorboard]` writes TensorBoard's files; the package tensorboard is not "
                f"installed ({error}). `pip install 'penjing[trackers]'` brings it, or leave the tracker out."
            ) from error
        place = run / "tensorboard" if folder is None else Path(folder).expanduser() / run.name
        writer = SummaryWriter(str(place))

        def log(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        return Live(log, writer.close)

    return Tracker("tensorboard", begin)
