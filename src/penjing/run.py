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
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from penjing import spec as specs
from penjing.bundle import Bundle, load
from penjing.errors import NotSupported, SpecError
from penjing.files import sweep, told, write_json, write_text
from penjing.places import typed
from penjing.spec import Spec

STATES = ("open", "died", "done")
SEARCH = "search.yaml"  # what was asked of a search, in the folder that its winner's run comes to
_BARE = {"spec.yaml", "error.txt", "lineage.json", "data.json"}  # of a run that died before its first step


@dataclass(frozen=True, repr=False)
class Run:
    """A run's folder, opened: its `spec`, `state`, `result`, and the best `bundle`."""

    folder: Path
    mute: bool = False  # in processes that do not write: what one of them writes stands for all

    def __repr__(self) -> str:
        """`Run('runs/a': done, accuracy 0.9312 on test rows)`."""
        result = self.result
        value = result.get("after", {}).get("values", {}).get(result.get("best_name"))
        scored = (
            f", {result['best_name']} {value:.4f} on {result['splits_scored']} rows"
            if value is not None
            else ""
        )
        return f"Run('{self.folder}': {self.state}{scored})"

    @cached_property
    def spec(self) -> Spec:
        """What was asked for."""
        return specs.read(self.folder / "spec.yaml")

    @cached_property
    def bundle(self) -> Bundle:
        """The best bundle, loaded.

        Raises:
            NotSupported: there is none yet, or it is damaged.
        """
        return load(self.folder)

    @property
    def state(self) -> str:
        """`done`, `died` or `open` (going on, or killed: `--resume` goes on with it)."""
        if (self.folder / "result.json").is_file():
            return "done"
        return "died" if (self.folder / "error.txt").is_file() else "open"

    @property
    def verb(self) -> str:
        """What goes on with it: `tune`, or `search`, whose folder is a run from when it has a winner."""
        return "search" if (self.folder / SEARCH).is_file() else "tune"

    @property
    def result(self) -> dict[str, Any]:
        """result.json: scores before and after, baseline, cost. Empty while the run is open."""
        return self.read("result.json")

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; empty when it is not there yet.

        Raises:
            NotSupported: it is damaged.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError(f"it holds a {type(found).__name__}")
        except ValueError as error:
            raise NotSupported(
                f"{path} was to hold a JSON object; it cannot be read ({error}). Something else wrote to it: "
                f"take the run from a copy, or start a new one."
            ) from error
        return found

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file of the run in one step."""
        if self.mute:
            return
        write_json(self.folder / name, value)

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Add one line to a JSON-lines file."""
        if self.mute:
            return
        path = self.folder / name
        with told(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a JSON-lines file; a last line torn by a kill is left out."""
        path = self.folder / name
        found: list[dict[str, Any]] = []
        if path.is_file():
            # Not splitlines: a note may hold U+2028.
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
        return found

    def forget_after(self, step: int) -> None:
        """Drop log and score lines beyond `step`: a resumed run writes them again."""
        if self.mute:
            return
        for name in ("log.jsonl", "scores.jsonl"):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            write_text(
                self.folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process, where it writes.

        Raises:
            NotSupported: another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows: no such lock; runs have their own folders anyway
            yield
            return
        if self.mute:
            yield
            return
        path = self.folder / ".lock"
        with told(path):
            stream = path.open("a")
        with stream:
            with told(path):
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise NotSupported(
                        f"The run {self.folder} was to be written; another process is writing it. Wait for "
                        f"it or end it, then resume."
                    ) from error
            for place in (self.folder, self.folder / "last"):
                sweep(place)
            yield

    @property
    def busy(self) -> bool:
        """True while a process holds the run."""
        try:
            import fcntl

            with (self.folder / ".lock").open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (ImportError, OSError):
            return False
        return False


def new(spec: Spec) -> Run:
    """Make the folder of a new run and write its spec, with absolute paths.

    Raises:
        SpecError: the named run is there already.
        CannotWrite: the folder cannot be made.
    """
    run = place(spec, spec.method.name)
    text = yaml.safe_dump(spec.anchored().written(), sort_keys=False, allow_unicode=True)
    write_text(run.folder / "spec.yaml", text)
    return run


def place(spec: Spec, how: str, *, verb: str = "tune") -> Run:
    """Make an empty folder: the spec's `name`, else time, task and `how`. `verb` goes on with what is there.

    Raises:
        SpecError: the named folder is there already.
        CannotWrite: the folder cannot be made.
    """
    out = Path(spec.out)
    wanted = spec.name or f"{time.strftime('%m%d-%H%M%S')}-{spec.task.name}-{how}"
    for n in itertools.count(1):
        folder = out / (wanted if n == 1 else f"{wanted}-{n}")
        with told(folder):
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                if not folder.is_dir():
                    raise  # a file stands there, or in place of `out`
                if spec.name:
                    refuse_named(spec, verb=verb)
                    for name in _BARE:
                        (folder / name).unlink(missing_ok=True)
                    break
    return Run(folder)


def refuse_named(spec: Spec, *, verb: str = "tune") -> None:
    """See that a run of the spec's name can be made; a folder that a kill left empty is no run, nor is one
    that died before its first step and left nothing but why.

    Raises:
        SpecError: there is one already.
    """
    folder = Path(spec.out) / (spec.name or "")
    if not spec.name or not folder.is_dir():
        return
    left = {path.name for path in folder.iterdir() if path.suffix != ".aside"}
    in_vain = "error.txt" in left and left <= {*_BARE, ".lock"} and not Run(folder).busy
    if left and not in_vain:
        raise SpecError(
            f"`name: {spec.name}` was asked for; {folder} is there already. Give another name, or go on with "
            f"it by `penjing {verb} --resume {typed(folder)}`."
        )


def open_run(folder: str | Path) -> Run:
    """An existing run.

    Raises:
        NotSupported: the folder is not a run.
    """
    place = Path(folder)
    if not (place / "spec.yaml").is_file():
        near = sorted(str(p.parent) for p in place.glob("*/spec.yaml"))[-3:] if place.is_dir() else []
        hint = f" Runs inside it: {', '.join(near)}." if near else ""
        if (place / SEARCH).is_file():
            hint = f" It is a search without a winner yet: `penjing search --resume {typed(place)}` goes on."
        raise NotSupported(
            f"A run was wanted at {place}; it has no spec.yaml.{hint} `penjing tune` makes one under runs/."
        )
    return Run(place)


def newest(out: str | Path, *, states: Iterable[str] = STATES) -> Run:
    """The newest run below a folder that is in one of these states and that no process holds; of a search
    only a done one.

    Raises:
        NotSupported: there is none.
    """
    found = sorted(Path(out).glob("*/spec.yaml"), key=_changed, reverse=True)
    wanted = {*states}
    seen = []
    for path in found:
        run = Run(path.parent)
        searched = run.verb == "search" and run.state != "done"
        if run.state in wanted and not run.busy and not searched:
            return run
        said = "going on" if run.busy else "a search" if searched else run.state
        seen.append(f"{run.folder.name} ({said})")
    runs = (
        f"; there are {len(found)}: {', '.join(seen[:3])}{', …' if len(seen) > 3 else ''}"
        if seen
        else ", none"
    )
    raise NotSupported(
        f"A run that is {' or '.join(states)} was wanted below {out}{runs}. Name the run's folder, or give "
        "`--out`."
    )


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return 0.0
