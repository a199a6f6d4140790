"""The audit log: who did what, a JSON line each. Texts, answers and keys are never in it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penjing.files import told

LOG = logging.getLogger("penjing.serve")


class Audit:
    """A file that lines are added to; each is written whole, at once. Without a path nothing is kept.

    A line that cannot be written (a full disk) is told in the log and to `lost()`: requests go on.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.lost: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._file: int | None = None
        self._torn, self._keeps = False, path is not None
        if path is not None:
            with told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, event: str, about: dict[str, Any]) -> None:
        """Add a line: `{"at": "2026-11-22T14:31:07.204Z", "event": "asked", …}`."""
        if not self._keeps:
            return
        now = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        line = json.dumps({"at": at, "event": event, **about}, ensure_ascii=False, default=str) + "\n"
        with self._lock:
            if self._file is None:
                return
            try:
                whole = b"\n" * self._torn + line.encode("utf-8", "backslashreplace")
                written = os.write(self._file, whole)
                self._torn = written < len(whole)
                if self._torn:
                    raise OSError(f"{written} of {len(whole)} bytes were written")
            except OSError as error:
                LOG.error("a line of the audit log is lost (%s): %s", event, error)
                self.lost()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
