"""Writing that cannot be half done: write aside, fsync, rename.

A reader sees the old state or the new one, never a mixture, whatever kills the writer and whenever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penjing.errors import PenjingError


class CannotWrite(PenjingError):
    """A file or folder could not be written; what stood there before is whole."""


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into an error that says where and what to do."""
    try:
        yield
    except OSError as error:
        free = ""
        with contextlib.suppress(OSError):
            place = next(p for p in (path, *path.parents) if p.exists())
            free = f" ({shutil.disk_usage(place).free / 2**20:,.0f} MiB free there)"
        raise CannotWrite(
            f"{path} was to be written; the system said: {error.strerror or error}{free}. The last good state is whole. "
            f"Make room or give another folder (`out:` in the spec), then resume with `penjing tune --resume`."
        ) from error


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
    """Replace a JSON file in one step, readable by people."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


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
    """Fill a folder aside, then put it in place of `target`. `settle` mends a kill between the two renames."""
    settle(target)
    aside, old = target.with_name(f".{target.name}.aside"), target.with_name(f".{target.name}.old")
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


def settle(target: Path) -> None:
    """If a kill fell between the renames of `new_folder`, put the last good folder back."""
    old = target.with_name(f".{target.name}.old")
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path | None:
    """Where derived things are kept between runs: $PENJING_CACHE, else the user's cache; None when it cannot be written."""
    wanted = os.environ.get("PENJING_CACHE")
    folder = (
        Path(wanted)
        if wanted
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penjing"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, RuntimeError):
        return None
    return folder
