"""A run's log, handed on to trackers: as it grows, or once for a run that is done.

What is handed on is what log.jsonl and scores.jsonl hold, so a tracker shows what the run's folder says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from penjing import plugin
from penjing.errors import NotSupported
from penjing.run import Run, open_run
from penjing.tracker import Live, Tracker

LOGGED = ("loss", "lr", "grad_norm", "n_tokens", "n_rows", "seconds")  # of a line of log.jsonl


@contextmanager
def following(run: Run, step: int = 0) -> Iterator[Callable[[], None]]:
    """Inside, each call hands on what the run's files hold anew, of steps after `step`, to every tracker that
    its spec names.

    Raises:
        NotSupported: a tracker's package is not installed.
    """
    spec = run.spec
    if run.mute or not spec.trackers:
        yield lambda: None
        return
    with ExitStack() as stack:
        lives = []
        for choice in spec.trackers:
            tracker: Tracker = plugin.build("trackers", choice)
            live = tracker.begin(run.folder, spec.written())
            lives.append(live)
            stack.push(lambda kind, *_, live=live: live.end(died=kind is not None))
        read = dict.fromkeys(("log.jsonl", "scores.jsonl"), 0)

        def hand_on() -> None:
            for name in read:
                lines, read[name] = _new(run.folder / name, read[name])
                _log(lives, [line for line in lines if line["step"] > step])

        yield hand_on


def export_log(folder: str | Path, to: Any) -> int:
    """Hand the log of a run on to one tracker, as a spec names it; the number of steps handed on.

    Raises:
        NotSupported: the run has no log, or the tracker's package is not installed.
        SpecError: there is no such tracker, or it has no such setting.
    """
    run = open_run(folder)
    tracker: Tracker = plugin.build("trackers", plugin.choice(to, kind="trackers", key="to"))
    lines = [*run.lines("log.jsonl"), *run.lines("scores.jsonl")]
    if not lines:
        raise NotSupported(
            f"The log of {run.folder} was to be exported; it has none. A run that makes no steps, or has not "
            f"begun, has nothing to show."
        )
    live = tracker.begin(run.folder, run.spec.written())
    died = True
    try:
        _log([live], sorted(lines, key=lambda line: int(line["step"])))
        died = run.state == "died"
    finally:
        live.end(died=died)
    return max(int(line["step"]) for line in lines)


def _new(path: Path, at: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines beyond byte `at`, and where they end."""
    if not path.is_file():
        return [], at
    with path.open("rb") as stream:
        stream.seek(at)
        whole, end, _ = stream.read().rpartition(b"\n")
    return [json.loads(line) for line in whole.split(b"\n") if line], at + len(whole) + len(end)


def _log(lives: list[Live], lines: list[dict[str, Any]]) -> None:
    for line in lines:
        values = _values(line)
        for live in lives:
            live.log(int(line["step"]), values)


def _values(line: dict[str, Any]) -> dict[str, float]:
    """`train/loss`, `train/parts/…`, `valid/accuracy`: the finite numbers of a line."""
    if "values" in line:
        named = {f"{line['split']}/{name}": value for name, value in line["values"].items()}
    else:
        named = {f"train/{name}": line[name] for name in LOGGED if name in line}
        named |= {f"train/parts/{name}": value for name, value in line.get("parts", {}).items()}
    return {name: float(v) for name, v in named.items() if isinstance(v, int | float) and math.isfinite(v)}
