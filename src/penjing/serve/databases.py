"""SQLite and PostgreSQL behind one small face: statements with `?`, rows, commit.

SQLite keeps a write-ahead log and syncs it at every commit, so that a committed row outlives a kill and a
loss of power; its file is for the owner's eyes only. PostgreSQL is spoken to by pg8000.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from penjing.errors import NotSupported, SpecError

WAIT_S = 30.0  # for another process that writes
TURN = 0x70656E6A  # of PostgreSQL's advisory locks, ours
WORDS = {
    "sqlite": {"serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "real": "REAL"},
    "postgresql": {"serial": "BIGSERIAL PRIMARY KEY", "real": "DOUBLE PRECISION"},
}


@dataclass(frozen=True)
class Database:
    """An open connection, of the thread that opened it."""

    kind: str
    connection: Any

    def run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Run a statement; its cursor."""
        words = WORDS[self.kind]
        for key in words:
            statement = statement.replace(f"{{{key}}}", words[key])
        if self.kind == "postgresql":
            statement = statement.replace("?", "%s")
        cursor = self.connection.cursor()
        cursor.execute(statement, tuple(values))
        return cursor

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        return list(self.run(statement, values).fetchall())

    def widen(self, table: str, column: str, kind: str) -> None:
        """Add a column, empty in all rows, to a table that has none of the name."""
        if column in (about[0] for about in self.run(f"SELECT * FROM {table} LIMIT 0").description):
            return
        if self.kind == "sqlite":  # which knows no IF NOT EXISTS here: another process may have been first
            with contextlib.suppress(sqlite3.OperationalError):
                self.run(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            return
        self.run(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {kind}")

    def in_turn(self) -> None:
        """Begin a transaction whose serial numbers are seen in their order: no other one that begins so runs
        until it is committed. PostgreSQL gives numbers when rows are written, not when they are seen, so
        whoever read up to one could miss a lower one; of SQLite one process writes at a time anyway."""
        if self.kind == "postgresql":
            self.run("SELECT pg_advisory_xact_lock(?)", (TURN,))

    def commit(self) -> None:
        """Returns when it is on the disk."""
        self.connection.commit()

    def compact(self) -> None:
        """Let nothing of removed rows lie about in the write-ahead log."""
        if self.kind == "sqlite":
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close it; what was not committed is undone."""
        with contextlib.suppress(Exception):  # a cursor that something still holds would keep SQLite's lock
            self.connection.rollback()
        self.connection.close()


def open_database(url: str) -> Database:
    """Open a store by its URL or its file's path.

    Raises:
        SpecError: another scheme. NotSupported: it cannot be opened, or pg8000 is missing.
    """
    kind, place = _parted(url)
    try:
        return Database(kind, _sqlite(place) if kind == "sqlite" else _postgresql(url))
    except NotSupported:
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise NotSupported(
            f"The traffic store {shown(url)} was to be opened; it cannot be ({said[0][:200]}). Check its "
            "path or address, its rights, and whether the server runs."
        ) from error


def refuse_missing(url: str) -> None:
    """Raises NotSupported where a file of SQLite is not there."""
    kind, place = _parted(url)
    if kind == "sqlite" and not Path(place).is_file():
        raise NotSupported(
            f"The traffic store {place} was wanted; there is no such file. `penjing serve --traffic "
            f"{place}` keeps one, and so does `penjing.serve.traffic.Traffic`."
        )


def _parted(url: str) -> tuple[str, str]:
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return "sqlite", url
    if scheme == "sqlite":
        return "sqlite", rest.removeprefix("/")
    if scheme in ("postgresql", "postgres"):
        return "postgresql", rest
    raise SpecError(
        f"A traffic store is a file (`traffic.db`, `sqlite:///traffic.db`) or `postgresql://user@host/name`; "
        f"it is {shown(url)!r}. Give one of these."
    )


def shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":…@")


def _sqlite(place: str) -> sqlite3.Connection:
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level="IMMEDIATE")
    for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


def _postgresql(url: str) -> Any:
    try:
        import pg8000.dbapi
    except ImportError:
        raise NotSupported(
            f"The traffic store {shown(url)} needs pg8000; it is not installed. Run `pip install "
            "'penjing[postgresql]'`, or give a file: SQLite needs nothing."
        ) from None
    parts = urlsplit(url)
    wants_tls = parse_qs(parts.query).get("sslmode", ["prefer"])[0] in ("require", "verify-ca", "verify-full")
    return pg8000.dbapi.connect(
        user=unquote(parts.username or os.environ.get("PGUSER", "postgres")),
        password=unquote(parts.password) if parts.password else os.environ.get("PGPASSWORD"),
        host=parts.hostname or "localhost",
        port=parts.port or 5432,
        database=parts.path.lstrip("/") or None,
        timeout=WAIT_S,
        ssl_context=True if wants_tls else None,
    )
