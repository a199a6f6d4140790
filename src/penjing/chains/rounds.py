"""The rounds of an update on disk: their rows, their history, and which of them stand.

updates/
  history.jsonl    a line a round: promoted or refused; and where the feedback was read up to
  1/ 2/ …          a round: train.jsonl, new_train.jsonl, new_test.jsonl, run/ (the training), gate.json
  .lock            held by whoever updates
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.read import read
from penjing.errors import NotSupported
from penjing.files import told, write_text
from penjing.records import NO_ROWS, Rows


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Inside, no other process updates here.

    Raises:
        NotSupported: another one does.
    """
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise NotSupported(
            f"A round of updates was to begin in {out}; another process is at one. Wait for it to end."
        ) from error
    finally:
        os.close(handle)


def history(out: Path) -> list[dict[str, Any]]:
    """The lines of the history, oldest first; one torn by a kill is left out."""
    path = out / "history.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def note(out: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Add a line to the history; it is on the disk when this returns."""
    whole = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **line}
    path = out / "history.jsonl"
    with told(path), path.open("a+b") as stream:
        stream.seek(0, os.SEEK_END)
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # what a kill left of a line
                stream.write(b"\n")
        stream.write(json.dumps(whole, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return whole


def cursor(out: Path) -> int:
    """Up to which feedback of the store rounds have looked."""
    return max((int(line.get("said") or 0) for line in history(out)), default=0)


def standing_rounds(out: Path, live: int) -> list[int]:
    """Rounds that the live version builds on, in order: its own, its parent's, and so on. Those of versions
    that were rolled back are not among them."""
    made = {line["version"]: line for line in history(out) if line["what"] == "promoted"}
    stands: list[int] = []
    while live > 0:
        line = made.get(live)
        live = live - 1 if line is None else line["parent"]  # without a round: a version that somebody added
        stands += [] if line is None else [line["round"]]
    return stands[::-1]


def next_round(out: Path) -> int:
    """The number of the next round: one that was never begun."""
    begun = [int(place.name) for place in out.iterdir() if place.name.isdecimal()]
    return max([0, *begun, *(int(line.get("round") or 0) for line in history(out))]) + 1


def write_rows(path: Path, rows: Rows) -> None:
    """Rows as JSON lines of `text` and `label`, a list where a row has several or none."""
    lines = (
        json.dumps({"text": text, "label": names[0] if len(names) == 1 else list(names)}, ensure_ascii=False)
        for text, names in zip(rows.texts, rows.labels, strict=True)
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_rows(path: Path, *, multi_label: bool) -> Rows:
    """Rows that `write_rows` wrote; none where there are none."""
    if not path.is_file() or not path.stat().st_size:
        return NO_ROWS
    return read(str(path), text="text", label="label", multi_label=multi_label)


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several sources, one after another."""
    kept = [part for part in parts if len(part)]
    if not kept:
        return NO_ROWS
    files = [name for part in kept for name in part.files]
    shift = np.cumsum([0, *(len(part.files) for part in kept)])
    return Rows(
        [text for part in kept for text in part.texts],
        [names for part in kept for names in part.labels],
        tuple(files),
        np.concatenate([part.file_of + at for part, at in zip(kept, shift, strict=False)]).astype(np.int32),
        np.concatenate([part.lines for part in kept]),
        tuple(dict.fromkeys(one for part in kept for one in part.notes)),
    )


def replayed(rows: Rows, n: int, *, least: int, seed: int) -> Rows:
    """About n rows drawn by chance, of every label at least `least` where it has them."""
    if not len(rows):
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    taken = [*order[:n]]
    counts: dict[str, int] = {}
    for place in taken:
        for name in rows.labels[place]:
            counts[name] = counts.get(name, 0) + 1
    for place in order[n:]:
        if any(counts.get(name, 0) < least for name in rows.labels[place]):
            taken.append(place)
            for name in rows.labels[place]:
                counts[name] = counts.get(name, 0) + 1
    return rows.take(np.sort(np.array(taken, dtype=np.int64)))
