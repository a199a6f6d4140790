"""The audit log: who did what, a JSON line each. Texts, answers and keys are never in it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from penjing.files import told


class Audit:
    """A file that lines are added to; written at once. Without a path nothing is kept."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._file: Any = None
        if path is not None:
            with told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8", buffering=1)

    def note(self, event: str, about: dict[str, Any]) -> None:
        """Add a line: `{"at": "2026-11-22T14:31:07.204Z", "event": "asked", …}`."""
        if self._file is None:
            return
        now = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        line = json.dumps({"at": at, "event": event, **about}, ensure_ascii=False, default=str)
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
