"""The rounds of an update on disk: their rows, their history, and which of them stand.

updates/
  history.jsonl    a line a round: promoted or refused; and where the feedback was read up to
  new.jsonl        feedback that no round has learned yet, as rows
  1/ 2/ …          a round: train.jsonl, new_train.jsonl, new_test.jsonl, round.json (what it stands on), run/
                   (the training), gate.json
  .lock            held by whoever updates
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.bundle import Bundle
from penjing.errors import NotSupported
from penjing.files import told, write_json, write_text
from penjing.jobs.prepare import rows_from
from penjing.records import NO_ROWS, Rows
from penjing.run import Run
from penjing.task import Teach

BEGUN = "round.json"
AT = "%Y-%m-%dT%H:%M:%SZ"


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
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotSupported(
                f"A round of updates was to begin in {out}; another process is at one. Wait for it to end."
            ) from error
        yield
    finally:
        os.close(handle)


def history(out: Path) -> list[dict[str, Any]]:
    """The lines of the history, oldest first; one torn by a kill is left out."""
    return Run(out).lines("history.jsonl")


def note(out: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Add a line to the history; it is on the disk when this returns."""
    whole = {"at": time.strftime(AT, time.gmtime()), **line}
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


def cursor(out: Path) -> tuple[int, float]:
    """Up to which feedback of the store the last round has looked, and when it had ended (Unix seconds)."""
    lines = [line for line in history(out) if line.get("said") is not None]
    if not lines:
        return 0, 0.0
    return int(lines[-1]["said"]), calendar.timegm(time.strptime(lines[-1]["at"], AT)) + 1.0


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


def key_of(*about: Any) -> str:
    """A hash of what a round stands on: what was asked, the live model, and the rows beside the new ones."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def cut_off(out: Path, key: str) -> tuple[int, dict[str, Any]] | None:
    """The last round that a kill cut off and that stands on the same: its number, and what was noted of it
    (`said`, `rows`, `parent`). One whose training died is none: it would die again."""
    ended = {line.get("round") for line in history(out)}
    begun = [int(path.parent.name) for path in out.glob(f"*/{BEGUN}") if path.parent.name.isdecimal()]
    for number in sorted({*begun} - ended, reverse=True):
        about = Run(out / str(number)).read(BEGUN)
        run = run_of(out / str(number))
        if about.pop("key", None) == key and (run is None or run.state != "died"):
            return number, about
    return None


def begin(folder: Path, bundle: Bundle, train: Rows, test: Rows, about: dict[str, Any]) -> None:
    """Make a round's folder, with its new rows and what it stands on."""
    folder.mkdir()
    write_lines(folder, "new_train", lines_of(bundle, train))
    write_lines(folder, "new_test", lines_of(bundle, test))
    write_json(folder / BEGUN, about)


def new_rows(folder: Path, bundle: Bundle) -> tuple[Rows, Rows]:
    """A round's new rows: those that it learns, and those that test it."""
    return read_rows(folder, "new_train", bundle), read_rows(folder, "new_test", bundle)


def run_of(folder: Path) -> Run | None:
    """A round's training, once it has begun."""
    run = Run(folder / "run")
    return run if (run.folder / "spec.yaml").is_file() else None


def teach_of(bundle: Bundle) -> Teach:
    """How the bundle's task is taught; one that is not was refused before."""
    assert bundle.task.teach is not None
    return bundle.task.teach


def lines_of(bundle: Bundle, rows: Rows) -> list[str]:
    """Each row as a line of JSON that the bundle's task reads."""
    teach = teach_of(bundle)
    both = zip(teach.asked(rows), teach.truths(rows), strict=True)
    return [line(teach.row(asked, truth, bundle.labels)) for asked, truth in both]


def keys_of(bundle: Bundle, rows: Rows) -> list[str]:
    """What each row is told apart by: what it asks; with its truth, where several may be right."""
    teach = teach_of(bundle)
    return lines_of(bundle, rows) if teach.many else [line(asked) for asked in teach.asked(rows)]


def line(row: dict[str, Any]) -> str:
    """A row as a line of JSON; equal rows are equal lines."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True)


def write_lines(folder: Path, name: str, lines: Sequence[str]) -> list[str]:
    """Write rows to `NAME.jsonl`; those with other keys (texts beside tokens) to files of their own, as a
    file has one set of columns. The files' names."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        kinds.setdefault(tuple(json.loads(line)), []).append(line)
    for path in _files(folder, name):
        path.unlink()
    paths = [folder / (f"{name}-{i}.jsonl" if i else f"{name}.jsonl") for i in range(len(kinds))]
    for path, own in zip(paths, kinds.values(), strict=True):
        write_text(path, "".join(f"{line}\n" for line in own))
    return [str(path) for path in paths]


def _files(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / f"{name}.jsonl",) if path.is_file()] + sorted(
        folder.glob(f"{name}-[0-9]*.jsonl")
    )


def read_lines(folder: Path, name: str) -> list[str]:
    """What `write_lines` wrote; none where there is nothing."""
    return [
        line for path in _files(folder, name) for line in path.read_text(encoding="utf-8").split("\n") if line
    ]


def read_rows(folder: Path, name: str, bundle: Bundle) -> Rows:
    """The same as rows."""
    files = [str(path) for path in _files(folder, name)]
    reading: dict[str, Any] = {**teach_of(bundle).columns(bundle.labels)}
    return rows_from(bundle.task, files, **reading) if files else NO_ROWS


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several sources, one after another."""
    kept = [part for part in parts if len(part)]
    if not kept:
        return NO_ROWS
    files = [name for part in kept for name in part.files]
    shift = np.cumsum([0, *(len(part.files) for part in kept)])
    items = [item for part in kept for item in part.items or ()]
    return Rows(
        [text for part in kept for text in part.texts],
        [names for part in kept for names in part.labels],
        tuple(files),
        np.concatenate([part.file_of + at for part, at in zip(kept, shift, strict=False)]).astype(np.int32),
        np.concatenate([part.lines for part in kept]),
        tuple(dict.fromkeys(one for part in kept for one in part.notes)),
        items if kept[0].items is not None else None,
    )


def replayed(rows: Rows, kinds: Sequence[Sequence[str]], n: int, *, least: int, seed: int) -> Rows:
    """About n rows drawn by chance: of every label at least `least`, `kinds` being each row's labels; where
    rows have none, of every length alike."""
    if not len(rows):
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    if not any(kinds):
        by_length = order[np.argsort([len(rows.texts[i]) for i in order], kind="stable")]
        ends = np.linspace(0, len(rows), min(n, len(rows)) + 1).astype(np.int64)
        return rows.take(np.sort(by_length[(ends[:-1] + ends[1:]) // 2]))
    taken = [*order[:n]]
    counts = Counter(name for place in taken for name in kinds[place])
    for place in order[n:]:
        if any(counts[name] < least for name in kinds[place]):
            taken.append(place)
            counts.update(kinds[place])
    return rows.take(np.sort(np.array(taken, dtype=np.int64)))
