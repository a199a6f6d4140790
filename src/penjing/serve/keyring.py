"""API keys: a file of hashes. A key is 256 random bits, so one SHA-256 keeps it (nothing can be tried out);
the file is read again whenever it changes, so keys come and go without a restart.

    {"keys": [{"id": "k7f3a9", "name": "ci", "sha256": "…", "scopes": ["infer"], "made": …, "expires": …}]}
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from penjing.errors import SpecError, nearest
from penjing.files import alone, write_json
from penjing.serve.asked import Caller

LOG = logging.getLogger("penjing.serve")
SCOPES = ("infer", "feedback", "metrics", "admin")
KEY = re.compile(r"pj_(k[0-9a-f]{8})_[A-Za-z0-9_-]{43}")


def make(
    path: Path, *, name: str, scopes: Sequence[str] = ("infer",), days: float | None = None
) -> tuple[str, dict[str, Any]]:
    """A new key, which is told this once, and what the file keeps of it.

    Raises:
        SpecError: an unknown scope, or no days.
    """
    for scope in scopes:
        if scope not in SCOPES and not re.fullmatch(r"infer:[A-Za-z0-9][A-Za-z0-9._-]{0,63}", scope):
            raise SpecError(
                f"A scope is {', '.join(SCOPES)} or infer:MODEL; this one is `{scope}`."
                f"{nearest(scope, SCOPES)}"
            )
    if days is not None and not days > 0:
        raise SpecError(f"A key lasts some days; `{days}` is none. Give more, or leave it out for no end.")
    number = f"k{secrets.token_hex(4)}"
    key = f"pj_{number}_{secrets.token_urlsafe(32)}"
    now = time.time()
    entry = {
        "id": number,
        "name": name,
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "scopes": list(scopes),
        "made": now,
        "expires": None if days is None else now + days * 86_400,
    }
    with _writing(path):
        _write(path, [*read(path), entry])
    return key, entry


def revoke(path: Path, number: str) -> dict[str, Any]:
    """Take a key back at once.

    Raises:
        SpecError: there is no such key.
    """
    with _writing(path):
        entry = _entry(path, number)
        _write(path, [other for other in read(path) if other["id"] != number])
    return entry


def rotate(path: Path, number: str, *, overlap_hours: float = 24.0) -> tuple[str, dict[str, Any]]:
    """A new key with the same scopes; the old one ends after the overlap. Its days begin anew.

    Raises:
        SpecError: there is no such key.
    """
    old = _entry(path, number)
    days = None if old["expires"] is None else max((old["expires"] - old["made"]) / 86_400, 1e-3)
    key, entry = make(path, name=old["name"], scopes=old["scopes"], days=days)
    end = time.time() + overlap_hours * 3600
    with _writing(path):
        entries = read(path)
        for one in entries:
            if one["id"] == number:
                one["expires"] = min(end, one["expires"] or end)
        _write(path, entries)
    return key, entry


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a key file; none where there is no file.

    Raises:
        SpecError: it is no such file.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        if not all({"id", "sha256", "scopes", "expires"} <= entry.keys() for entry in entries):
            raise KeyError("id, sha256, scopes, expires")
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise SpecError(
            f"{path} was to hold API keys; it cannot be read as such ({type(error).__name__}: {error}). "
            "Make one "
            f"with `penjing keys add --keys {path}`."
        ) from error
    return list(entries)


class Keyring:
    """The keys of a file as it stands. A file that cannot be read any more lets nobody in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, dict[str, Any]] = {}
        read(path)  # a file that is none is told at the start

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None where it is nobody's, or has ended."""
        self._refresh()
        form = KEY.fullmatch(key)
        entry = self._entries.get(form[1]) if form else None
        given = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        kept = entry["sha256"] if entry else "0" * 64
        if not hmac.compare_digest(given, kept) or entry is None:
            return None
        if entry["expires"] is not None and time.time() >= entry["expires"]:
            return None
        return Caller(entry["id"], frozenset(entry["scopes"]))

    def _refresh(self) -> None:
        try:
            facts = self.path.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if stamp != self._stamp:
                self._entries = {entry["id"]: entry for entry in read(self.path)}
                self._stamp = stamp
        except (OSError, SpecError) as error:
            if self._entries or self._stamp:
                LOG.error("nobody is let in until the keys can be read again: %s", error)
            self._stamp, self._entries = None, {}


def is_local(host: str) -> bool:
    """Whether a host is this machine, reached by nobody else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _entry(path: Path, number: str) -> dict[str, Any]:
    known = {entry["id"]: entry for entry in read(path)}
    if number not in known:
        raise SpecError(
            f"The key `{number}` was wanted; {path} has {', '.join(known) or 'none'}.{nearest(number, known)}"
        )
    return known[number]


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    write_json(path, {"keys": entries})
    path.chmod(0o600)


def _writing(path: Path) -> AbstractContextManager[bool]:
    return alone(path.with_name(f".{path.name}.lock"), rights=0o600)
