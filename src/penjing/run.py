"""A run: the directory in which a job writes all it did.

spec.yaml      what was asked for, every default written out: running it repeats the run
lineage.json   base, data and versions with hashes, seed, device, the command
data.json      what the rows look like
log.jsonl      one line a step;  scores.jsonl  one line a validation
best/          the best bundle;  last/  what an exact resume needs;  memory/  what techniques leave behind
result.json    before, after, baseline, cost;  report.html  the same to look at;  error.txt  only if it died
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from penjing import spec as specs
from penjing.bundle import Bundle, load
from penjing.errors import NotSupported, SpecError
from penjing.files import told, write_json, write_text
from penjing.spec import Spec


@dataclass(frozen=True)
class Run:
    """A run's folder, opened."""

    folder: Path

    @cached_property
    def spec(self) -> Spec:
        """What was asked for."""
        return specs.read(self.folder / "spec.yaml")

    @cached_property
    def bundle(self) -> Bundle:
        """The best bundle, loaded."""
        return load(self.folder)

    @property
    def state(self) -> str:
        """`done`, `died` or `open` (going on, or killed: `--resume` goes on with it)."""
        if (self.folder / "result.json").is_file():
            return "done"
        return "died" if (self.folder / "error.txt").is_file() else "open"

    @property
    def result(self) -> dict[str, Any]:
        """result.json: scores before and after, baseline, cost. Empty while the run is open."""
        return self.read("result.json")

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; empty when it is not there yet."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file of the run in one step."""
        write_json(self.folder / name, value)

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Add one line to a JSON-lines file."""
        path = self.folder / name
        with told(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a JSON-lines file; a last line torn by a kill is left out."""
        path = self.folder / name
        found: list[dict[str, Any]] = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
        return found

    def forget_after(self, step: int) -> None:
        """Drop log and score lines beyond `step`: a resumed run writes them again."""
        for name in ("log.jsonl", "scores.jsonl"):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            write_text(
                self.folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            NotSupported: another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows: no such lock; runs have their own folders anyway
            yield
            return
        path = self.folder / ".lock"
        with told(path), path.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise NotSupported(
                    f"The run {self.folder} is in use by another process. Wait for it or end it; two cannot write one run."
                ) from error
            yield


def new(spec: Spec) -> Run:
    """Make the folder of a new run and write its spec.

    Raises:
        SpecError: the named run is there already.
        CannotWrite: the folder cannot be made.
    """
    out = Path(spec.out)
    name = spec.name or f"{time.strftime('%m%d-%H%M%S')}-{spec.task.name}-{spec.method.name}"
    folder, n = out / name, 2
    while folder.exists():
        if spec.name:
            raise SpecError(
                f"`name: {spec.name}` was asked for; {folder} is there already. Give another name, "
                f"or go on with it by `penjing tune --resume {folder}`."
            )
        folder, n = out / f"{name}-{n}", n + 1
    with told(folder):
        folder.mkdir(parents=True)
    run = Run(folder)
    write_text(folder / "spec.yaml", yaml.safe_dump(spec.written(), sort_keys=False, allow_unicode=True))
    return run


def open_run(folder: str | Path) -> Run:
    """An existing run.

    Raises:
        NotSupported: the folder is not a run.
    """
    place = Path(folder)
    if not (place / "spec.yaml").is_file():
        near = sorted(str(p.parent) for p in place.glob("*/spec.yaml"))[-3:] if place.is_dir() else []
        hint = f" Runs inside it: {', '.join(near)}." if near else ""
        raise NotSupported(
            f"A run was wanted at {place}; it has no spec.yaml.{hint} `penjing tune` makes one under runs/."
        )
    return Run(place)


def newest(out: str | Path, *, state: str | None = None) -> Run:
    """The newest run below a folder, of a given state.

    Raises:
        NotSupported: there is none.
    """
    found = sorted(Path(out).glob("*/spec.yaml"), key=os.path.getmtime, reverse=True)
    for path in found:
        if state is None or Run(path.parent).state == state:
            return Run(path.parent)
    what = f"a run that is {state}" if state else "a run"
    raise NotSupported(
        f"{what} was wanted below {out}; there are {len(found)} runs, none such. Give its folder."
    )
