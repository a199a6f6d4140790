"""Writing that cannot be half done: write aside, fsync, rename.

A reader sees the old state or the new one, never a mixture, whatever kills the writer and whenever.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from penjing.errors import PenjingError, SpecError

_NUMBERS = re.compile(r"\[\n[-+.\deE,\s]+\]")


class CannotWrite(PenjingError):
    """A file or folder could not be written; what stood there before is whole."""


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write into an error that says where and what to do."""
    try:
        yield
    except Exception as error:
        # safetensors and tokenizers raise kinds of their own that only quote the system.
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        said = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise CannotWrite(
            f"{path} was to be written; the system said: {said}{_free(path)}. The last good state is whole. "
            f"Make room or mend the rights; what was begun goes on with `--resume`, or choose another folder "
            f"with `out:`."
        ) from error


def _free(path: Path) -> str:
    with contextlib.suppress(OSError, StopIteration):
        place = next(p for p in (path, *path.absolute().parents) if p.exists())
        return f" ({shutil.disk_usage(place).free / 2**20:,.0f} MiB free there)"
    return ""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content in one step.

    Raises:
        CannotWrite: no room, no right, no such folder; the old file is untouched.
    """
    write_with(path, lambda aside: aside.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step, readable by people: a list of numbers, such as a matrix's row, is one
    line.
    """
    text = json.dumps(value, ensure_ascii=False, indent=1)
    # A line end inside a string is written \\n, so what matches is never part of a text.
    write_text(path, _NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text) + "\n")


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file aside, then put it in place of `path` in one step."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(aside)
            _sync(aside)
            os.replace(aside, path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Fill a folder aside, then put it in place of `target`. One writer at a time.

    Between the two renames there is no `target`: readers go by `standing`, the next writer by `settle`.
    """
    settle(target)
    aside, old = target.with_name(f".{target.name}.aside"), _old(target)
    with told(target):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    try:
        with told(target):
            yield aside
            for file in sorted(aside.rglob("*")):
                _sync(file)
            _sync(aside)
            if target.exists():
                os.rename(target, old)
            os.rename(aside, target)
            _sync(target.parent)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        settle(target)
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextlib.contextmanager
def alone(path: Path, waiting: Callable[[], None] | None = None, *, rights: int = 0o666) -> Iterator[bool]:
    """Hold the lock file `path`; another process that wants it waits. `waiting` is called where it is us.
    `rights`: of the file where it is made anew, less the umask; who may not open it cannot hold it.

    Gives whether it is held: Windows has no such lock, and two processes may both be inside.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, rights)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield True
    finally:
        os.close(handle)


def refuse_taken(target: Path, mark: str | None = None) -> None:
    """See that a `new_folder` in this place would destroy nothing but what was made there before, which holds
    a file called `mark`.

    Raises:
        SpecError: something else is there.
    """
    there = target if target.is_file() else None
    if target.is_dir() and not (mark and (target / mark).is_file()):
        there = next(iter(sorted(target.iterdir())), None)
    if there is not None:
        only = "" if mark is None else ", or that of an earlier one, which is then replaced"
        raise SpecError(
            f"A folder was to be written in {target}; something else is there, such as {there.name}. Give a "
            f"new folder with `--out`{only}."
        )


def settle(target: Path) -> None:
    """If a kill fell between the renames of `new_folder`, put the good folder back. For the writer only."""
    old = _old(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, target)


def standing(target: Path) -> Path:
    """Where the last good folder of `new_folder` is just now: `target`, or beside it while it is replaced."""
    return _old(target) if not target.exists() and _old(target).exists() else target


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def sweep(folder: Path) -> None:
    """Remove what killed writers left aside in a folder. Only while no other process writes there."""
    for left in folder.glob(".*.aside"):
        with contextlib.suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def drop_oldest(paths: Iterable[Path], most_bytes: int, keep: Collection[Path]) -> None:
    """Remove the files used longest ago (by their time) beyond this much in all; never those of `keep`."""
    files = []
    for path in paths:
        with contextlib.suppress(OSError):
            facts = path.stat()
            files.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most_bytes:
            return
        if path not in keep:
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex. Remembered for as long as the file's size and time stay the same."""
    facts = path.stat()
    return _sha256(path.absolute(), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed_ns: int, inode: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path | None:
    """Where derived things are kept: $PENJING_CACHE, else the user's cache; None if it cannot be written."""
    try:
        wanted = os.environ.get("PENJING_CACHE")
        users = os.environ.get("XDG_CACHE_HOME")
        folder = Path(wanted) if wanted else (Path(users) if users else Path.home() / ".cache") / "penjing"
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        return None
    return folder
