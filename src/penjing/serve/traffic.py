"""What was asked and answered, and what would have been right: kept by choice, without personal data.

SQLite in one file, or PostgreSQL by its URL, by the same statements. Nothing is kept unless a store was asked
for, and nothing before personal data and secrets in it are masked (pii.py; names by a bundle of `tag`). One
thread writes: what waits is one transaction, so that many requests share one fsync. When `record` returns,
or its future is done, the request is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from penjing.errors import DataError, NotSupported, PenjingError, SpecError
from penjing.serve.asked import Answered, Asked, Recorder
from penjing.serve.databases import Database, open_database, refuse_missing, shown

MOST_WAITING = 10_000  # requests that wait for the disk; beyond, callers do
AT_ONCE = 500  # in one transaction
DROPPED = ("scores",)  # of an answer: a number a label, of which the greatest is its confidence

Mask = Callable[[str], str]
Waiting = tuple[str, tuple[Any, ...], Future[None]]  # a statement, its values, and who waits for it

TABLES = (
    "CREATE TABLE IF NOT EXISTS requests (seq {serial}, id TEXT NOT NULL UNIQUE, at {real} NOT NULL, "
    "model TEXT NOT NULL, version TEXT NOT NULL, way TEXT NOT NULL, text TEXT NOT NULL, "
    "answer TEXT NOT NULL, confidence {real}, is_json INTEGER)",
    "CREATE TABLE IF NOT EXISTS feedback (seq {serial}, id TEXT NOT NULL, at {real} NOT NULL, "
    "truth TEXT NOT NULL, by_whom TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS requests_at ON requests (model, at)",
    "CREATE INDEX IF NOT EXISTS feedback_id ON feedback (id, seq)",
)
KEEP = (
    "INSERT INTO requests (id, at, model, version, way, text, answer, confidence, is_json) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
SAY = "INSERT INTO feedback (id, at, truth, by_whom) VALUES (?, ?, ?, ?)"
ROWS = (
    "SELECT r.seq, r.id, r.at, r.model, r.version, r.way, r.text, r.answer, r.confidence, r.is_json, "
    "f.truth, f.seq "
    "FROM requests r LEFT JOIN feedback f ON f.seq = (SELECT MAX(seq) FROM feedback WHERE id = r.id) "
)
OLD = "SELECT id FROM requests WHERE at < ? ORDER BY seq"
BEYOND = "SELECT id FROM requests ORDER BY seq DESC"


@dataclass(frozen=True)
class Kept:
    """A request as it was kept. at: seconds since 1970. said: the number of its latest feedback, None
    without. truth: what would have been right, a list of labels or whatever the task answers. is_json:
    whether `text` is the JSON of something else; None where it was kept before that was noted."""

    seq: int
    id: str
    at: float
    model: str
    version: str
    way: str  # live, canary, shadow, pinned
    text: str
    answer: dict[str, Any]
    confidence: float | None
    truth: Any = None
    said: int | None = None
    is_json: int | None = None


class Traffic:
    """An open store. `with traffic:` closes it, once all that waits is written.

    Raises (on opening):
        SpecError: no such kind of store. NotSupported: its package is missing, or it cannot be reached.
    """

    def __init__(self, url: str, *, mask: Mask | None = None) -> None:
        """url: `sqlite:///FILE`, a file's path, or `postgresql://user@host/name`. mask: applied to every
        string that is kept; personal data with a form of its own when None."""
        self.url, self._mask = url, mask or masker()
        self._open: Callable[[], Database] = lambda: open_database(url)
        self._waiting: queue.Queue[Waiting | None] = queue.Queue(MOST_WAITING)
        with contextlib.closing(self._open()) as database:
            for table in TABLES:
                database.run(table)
            database.widen("requests", "is_json", "INTEGER")  # a store from before it was noted
            database.commit()
        self._thread = threading.Thread(target=self._write, name="penjing-traffic", daemon=True)
        self._thread.start()
        self._closed, self._lock = False, threading.Lock()

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, then close."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def record(self, id: str, asked: Any, answer: dict[str, Any], **about: Any) -> None:
        """Keep a request and wait until it is on the disk; the same id twice is one request.

        Raises:
            NotSupported: the store could not be written.
        """
        self.record_soon(id, asked, answer, **about).result()

    def record_soon(
        self,
        id: str,
        asked: Any,
        answer: dict[str, Any],
        *,
        model: str = "",
        version: str | int = "",
        way: str = "live",
        at: float | None = None,
    ) -> Future[None]:
        """As `record`, without waiting: the future is done when the request is on the disk.

        asked: the text, or what else the task takes. Waits itself where 10,000 wait already.
        """
        hidden = masked(asked, self._mask)
        text = hidden if isinstance(hidden, str) else json.dumps(hidden, ensure_ascii=False)
        kept = {key: value for key, value in answer.items() if key not in DROPPED}
        if isinstance(asked, str) and text != asked and "entities" in kept:
            kept["entities"] = [_placed(one, asked, text, self._mask) for one in kept["entities"]]
        each = (entity["confidence"] for entity in answer.get("entities", ()) if "confidence" in entity)
        sure = answer.get("confidence", min(each, default=None))
        row = (
            str(id),
            time.time() if at is None else float(at),
            str(model),
            str(version),
            way,
            text.replace("\0", "\ufffd"),  # PostgreSQL's texts have no zero
            json.dumps(masked(kept, self._mask), ensure_ascii=False),
            None if sure is None else float(sure),
            int(not isinstance(hidden, str)),
        )
        return self._put(KEEP, row)

    def feedback(self, id: str, truth: Any, *, by: str = "") -> None:
        """Keep what would have been the right answer to a request, and wait until it is on the disk; the
        latest word counts.

        truth: a label, a list of labels, or what else the task answers.

        Raises:
            DataError: no such request is kept.
        """
        with contextlib.closing(self._open()) as database:
            known = "SELECT 1 FROM requests WHERE id = ?"
            if not database.rows(known, (id,)):
                why = "the store keeps none of that id. It may be past its retention, or of another store"
                if database.rows(known, (f"{id}.0",)):
                    why = f"it had several inputs, the first of them `{id}.0`"
                raise DataError(f"Feedback was given for a request {id!r}; {why}. Give the id of an answer.")
        said = json.dumps(masked(truth, self._mask), ensure_ascii=False)
        self._put(SAY, (id, time.time(), said, by)).result()

    def _put(self, statement: str, values: tuple[Any, ...]) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:  # what came behind the end would wait for ever
            if self._closed:
                raise NotSupported(f"{shown(self.url)} was to keep a request; it is closed. Open it again.")
            self._waiting.put((statement, values, future))
        return future

    def _write(self) -> None:
        database: Database | None = None
        over = False
        while not over:
            first = self._waiting.get()
            batch = [] if first is None else [first]
            over = first is None
            while batch and len(batch) < AT_ONCE and not over:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                over = more is None
                if more is not None:
                    batch.append(more)
            database = self._commit(database, [one for one in batch if one[2].set_running_or_notify_cancel()])
        if database is not None:
            database.close()

    def _commit(self, database: Database | None, batch: Sequence[Any]) -> Database | None:
        """One transaction; where it fails, one a half on a new connection, so that a row that cannot be kept
        costs no other."""
        if not batch:
            return database
        try:
            database = database or self._open()
        except Exception as error:
            _refuse(batch, self.url, error)
            return None
        try:
            if any(statement == SAY for statement, _, _ in batch):  # `rows(after=)` goes by their numbers
                database.in_turn()
            for statement, values, _ in batch:
                database.run(statement, values)
            database.commit()
        except Exception as error:
            with contextlib.suppress(Exception):
                database.close()
            if len(batch) == 1:
                _refuse(batch, self.url, error)
                return None
            middle = len(batch) // 2
            return self._commit(self._commit(None, batch[:middle]), batch[middle:])
        for _, _, future in batch:
            future.set_result(None)
        return database

    def rows(
        self,
        *,
        model: str | None = None,
        shadow: bool = False,
        since: float | None = None,
        last: int | None = None,
        labelled: bool | None = None,
        after: int | None = None,
        uncertain: int | None = None,
    ) -> list[Kept]:
        """Requests in the order they came.

        shadow: those, too, whose answers nobody saw. since: seconds since 1970. last: at most so many, the
        newest. labelled: with feedback, or without. after: whose feedback is newer than that number
        (`Kept.said`). uncertain: in place of all, so many of the least confidence, the least first; those
        whose answers have none come last.
        """
        where, values = ["1 = 1" if shadow else "r.way <> 'shadow'"], []
        for clause, value in (("r.model = ?", model), ("r.at >= ?", since), ("f.seq > ?", after)):
            if value is not None:
                where.append(clause)
                values.append(value)
        if labelled is not None:
            where.append(f"f.seq IS {'NOT ' if labelled else ''}NULL")
        order, most = "r.seq DESC", last
        if uncertain is not None:
            order, most = "r.confidence IS NULL, r.confidence, r.seq", uncertain
        limit = "" if most is None else f" LIMIT {int(most)}"
        with contextlib.closing(self._open()) as database:
            found = database.rows(f"{ROWS}WHERE {' AND '.join(where)} ORDER BY {order}{limit}", values)
        kept = [_kept(row) for row in found]
        return kept if uncertain is not None else kept[::-1]

    def forget(self, *, days: float | None = None, most: int | None = None) -> int:
        """Remove requests older than so many days, and the oldest beyond so many, with their feedback; how
        many went. SQLite overwrites what it removes.

        Raises:
            SpecError: one of them is below 0, which would be all of them, or others than meant.
        """
        for name, value in (("days", days), ("most", most)):
            if value is not None and value < 0:
                raise SpecError(f"`{name}` must be at least 0 to forget by; it is {value:g}. Mend it.")
        gone: list[str] = []
        with contextlib.closing(self._open()) as database:
            if days is not None:
                gone += [row[0] for row in database.rows(OLD, (time.time() - days * 86_400,))]
            if most is not None:
                gone += [row[0] for row in database.rows(BEYOND, ())[most:]]
            gone = [*dict.fromkeys(gone)]
            for id in gone:
                database.run("DELETE FROM feedback WHERE id = ?", (id,))
                database.run("DELETE FROM requests WHERE id = ?", (id,))
            database.commit()
            database.compact()
        return len(gone)

    def count(self, model: str | None = None) -> dict[str, int]:
        """Requests kept, and those of them with feedback."""
        found = self.rows(model=model)
        return {"requests": len(found), "labelled": sum(one.said is not None for one in found)}


def _kept(row: Sequence[Any]) -> Kept:
    seq, id, at, model, version, way, text, answer, sure, is_json, truth, said = row
    told = None if truth is None else json.loads(truth)
    return Kept(seq, id, at, model, version, way, text, json.loads(answer), sure, told, said, is_json)


def asked_of(kept: Kept) -> Any:
    """What was asked: the text, or what else a task takes, which is kept as JSON."""
    if kept.is_json or (kept.is_json is None and kept.text[:1] in "{["):
        with contextlib.suppress(ValueError):  # a text that only begins so
            return json.loads(kept.text)
    return kept.text


def _refuse(batch: Sequence[Any], url: str, error: Exception) -> None:
    """Tell whoever waits for these that they are not kept."""
    if not isinstance(error, PenjingError):
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        error = NotSupported(
            f"Requests were to be kept in {shown(url)}; the database said: {said}. Nothing of them is kept. "
            "Make room or mend its rights: the next ones are tried anew."
        )
    for _, _, future in batch:
        future.set_exception(error)


def recorder(traffic: Traffic) -> Recorder:
    """What a service calls with each request: its inputs are kept one by one, and are on the disk when it
    returns. Of one input the id is the request's, of several `ID.0`, `ID.1` …; failed ones are not kept."""

    def record(asked: Asked, answered: Answered) -> None:
        own = asked.id if asked.way != "shadow" else f"{asked.id}~shadow"
        many = len(answered.answers) > 1
        futures = [
            traffic.record_soon(
                f"{own}.{i}" if many else own,
                given,
                answer if isinstance(answer, dict) else {"said": answer},
                model=asked.name,
                version=asked.version,
                way=asked.way,
                at=asked.at,
            )
            for i, (given, answer) in enumerate(zip(asked.inputs, answered.answers, strict=False))
        ]
        for future in futures:
            future.result()

    return record


def masker(names: Callable[[Sequence[str]], Sequence[dict[str, Any]]] | None = None) -> Mask:
    """A function that masks personal data and secrets in a text. names: `predict` of a bundle of `tag` that
    finds persons, whose names are masked too."""
    from penjing.pii import mask

    def plain(text: str) -> str:
        return mask(text)[0]

    def with_names(text: str) -> str:
        hidden = plain(text)
        if not hidden.strip():
            return hidden
        found = [e for e in names([hidden])[0]["entities"] if _person(str(e["label"]))]  # type: ignore[misc]
        for entity in sorted(found, key=lambda one: -int(one["start"])):
            hidden = f"{hidden[: entity['start']]}<name>{hidden[entity['end'] :]}"
        return hidden

    return with_names if names else plain


def _person(label: str) -> bool:
    return label.upper() in ("PER", "PERSON", "NAME", "人名")


def masked(value: Any, mask: Mask) -> Any:
    """A JSON value with every string in it masked, keys too; a whole number that is a telephone's, say,
    becomes the text of its mask."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, int) and abs(value) >= 10**9:
        hidden = mask(str(value))
        return value if hidden == str(value) else hidden
    if isinstance(value, dict):
        return {mask(str(key)): masked(one, mask) for key, one in value.items()}
    return [masked(one, mask) for one in value] if isinstance(value, list | tuple) else value


def _placed(entity: dict[str, Any], text: str, hidden: str, mask: Mask) -> dict[str, Any]:
    """An entity of a text where it stands in the masked one: what is before it is masked alike by itself."""
    ends = [mask(text[: entity[side]]) for side in ("start", "end")]
    if not all(map(hidden.startswith, ends)):  # it begins or ends within what is masked
        own = mask(text[entity["start"] : entity["end"]])
        at = max(0, hidden.find(own))
        return {**entity, "start": at, "end": min(at + len(own), len(hidden))}
    return {**entity, "start": len(ends[0]), "end": len(ends[1])}


@contextlib.contextmanager
def opened(url: str) -> Iterator[Traffic]:
    """An existing store, for a job that reads it.

    Raises:
        NotSupported: there is no such file.
    """
    refuse_missing(url)
    with Traffic(url) as traffic:
        yield traffic
