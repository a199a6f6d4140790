"""The store of traffic: masked before it is kept, on the disk when it says so, the same on SQLite and
PostgreSQL."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from common import told
from penjing.errors import DataError, NotSupported, SpecError
from penjing.serve.asked import Answered, Asked
from penjing.serve.databases import Database, open_database
from penjing.serve.traffic import Traffic, asked_of, masked, masker, opened, recorder

ANSWER = {"label": "billing", "confidence": 0.9, "scores": {"billing": 0.9, "delivery": 0.1}}
SERVER = shutil.which("postgres")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A server of our own, of the machine's package, on a free port of this machine."""
    if not SERVER or not shutil.which("initdb"):
        pytest.skip("PostgreSQL's server is not installed (`apt-get install postgresql`)")
    pytest.importorskip("pg8000", reason="`pip install 'penjing[postgresql]'`")
    with tempfile.TemporaryDirectory(prefix="penjing-pg-") as folder:  # pytest's own are closed to others
        yield from _serving(Path(folder))


def _serving(place: Path) -> Iterator[str]:
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        who = pwd.getpwnam("postgres")
        os.chown(place, who.pw_uid, who.pw_gid)
        user = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place, **user}
    made = ["initdb", "-D", str(place / "db"), "-U", "penjing", "-A", "trust", "--no-sync"]
    subprocess.run(made, check=True, **quiet)
    on = ["-p", str(port), "-k", str(place), "-h", "127.0.0.1"]
    server = subprocess.Popen(["postgres", "-D", str(place / "db"), *on], **quiet)
    try:
        url = f"postgresql://penjing@127.0.0.1:{port}/postgres"
        for _ in range(100):
            try:
                Traffic(url).close()
                break
            except NotSupported:
                time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'traffic.db'}"
    found: str = request.getfixturevalue("postgresql")
    database = open_database(found)
    database.run("DROP TABLE IF EXISTS requests")
    database.run("DROP TABLE IF EXISTS feedback")
    database.commit()
    database.close()
    return found


def test_what_is_kept_comes_back_in_order_with_its_latest_feedback(url: str) -> None:
    with Traffic(url) as traffic:
        for i in range(3):
            traffic.record(f"r{i}", f"text {i}", ANSWER, model="support", version=2, at=100.0 + i)
        traffic.feedback("r1", "delivery", by="ann")
        traffic.feedback("r1", ["refund"], by="bob")
        rows = traffic.rows(model="support")
    assert [row.id for row in rows] == ["r0", "r1", "r2"]
    assert [row.truth for row in rows] == [None, ["refund"], None]
    assert rows[0].answer == {"label": "billing", "confidence": 0.9}
    assert (rows[0].text, rows[0].at, rows[0].version, rows[0].confidence) == ("text 0", 100.0, "2", 0.9)


def test_rows_are_chosen_by_time_number_feedback_and_doubt(url: str) -> None:
    with Traffic(url) as traffic:
        for i in range(6):
            traffic.record(f"r{i}", "x", {**ANSWER, "confidence": (3, 1, 4, 1, 5, 9)[i] / 10}, at=float(i))
        traffic.record("s", "x", ANSWER, way="shadow")
        traffic.feedback("r2", "a")
        first = traffic.rows(labelled=True)[0].said
        traffic.feedback("r4", "b")
        ids = lambda **how: [row.id for row in traffic.rows(**how)]  # noqa: E731
        assert ids(last=2) == ["r4", "r5"]
        assert ids(since=4.0) == ["r4", "r5"]
        assert ids(labelled=True) == ["r2", "r4"]
        assert ids(after=first) == ["r4"]
        assert ids(uncertain=3, labelled=False) == ["r1", "r3", "r0"]
        assert ids(model="other") == []
        assert ids(shadow=True)[-1] == "s"
        assert traffic.count() == {"requests": 6, "labelled": 2}


def test_whoever_read_up_to_a_word_misses_none_that_another_replica_was_writing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL numbers a row when it is written; it is seen once its transaction is committed."""
    commit, begun, may_end = Database.commit, threading.Event(), threading.Event()

    def late(database: Database) -> None:
        if threading.current_thread() is slow._thread:
            begun.set()
            assert may_end.wait(20)
        commit(database)

    with Traffic(url) as slow, Traffic(url) as quick, ThreadPoolExecutor() as pool:
        for name in "ab":
            quick.record(name, "x", ANSWER)
        monkeypatch.setattr(Database, "commit", late)
        first = pool.submit(slow.feedback, "a", "billing")
        assert begun.wait(20)
        second = pool.submit(quick.feedback, "b", "billing")
        wait([second], 0.5)
        seen = quick.rows(labelled=True)
        may_end.set()
        first.result(), second.result()
        later = quick.rows(after=max((row.said or 0 for row in seen), default=0))
    assert sorted(row.id for row in seen + later) == ["a", "b"]


def test_the_same_request_twice_is_one(url: str) -> None:
    with Traffic(url) as traffic:
        traffic.record("r", "first", ANSWER)
        traffic.record("r", "again", ANSWER)
        assert [row.text for row in traffic.rows()] == ["first"]


def test_what_is_forgotten_is_gone_with_its_feedback(url: str) -> None:
    with Traffic(url) as traffic:
        for i, at in enumerate((1.0, time.time(), time.time())):
            traffic.record(f"r{i}", "x", ANSWER, at=at)
        traffic.feedback("r0", "a")
        assert traffic.forget(days=30) == 1
        assert traffic.forget(most=1) == 1
        assert [row.id for row in traffic.rows()] == ["r2"]
        assert traffic.count() == {"requests": 1, "labelled": 0}


def test_many_writers_share_transactions_and_none_is_lost(url: str) -> None:
    with Traffic(url) as traffic, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: traffic.record(f"r{i}", "x", ANSWER), range(200)))
        assert {row.id for row in traffic.rows()} == {f"r{i}" for i in range(200)}


def test_personal_data_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "traffic.db"
    secret = "ann@example.com", "13800138000"
    with Traffic(str(path)) as traffic:
        traffic.record(
            "r", f"mail {secret[0]}", {"label": "x", "why": [f"call {secret[1]}"], "confidence": 1.0}
        )
        traffic.feedback("r", f"{secret[0]} wants it")
        row = traffic.rows()[0]
        assert (row.text, row.answer["why"], row.truth) == (
            "mail <email>",
            ["call <phone>"],
            "<email> wants it",
        )
        kept = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert not [one for one in secret if one.encode() in kept]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_forgotten_is_overwritten(tmp_path: Path) -> None:
    with Traffic(str(tmp_path / "t.db")) as traffic:
        traffic.record("r", "a very peculiar sentence", ANSWER, at=1.0)
        traffic.forget(days=1)
        assert b"peculiar" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())


def test_names_are_masked_by_a_bundle_that_finds_them() -> None:
    def found(texts: Any) -> list[dict[str, Any]]:
        at = texts[0].find("Ann Lee")
        return [{"entities": [{"start": at, "end": at + 7, "label": "PER"}] if at >= 0 else []}]

    mask = masker(found)
    assert mask("Ann Lee, ann@example.com") == "<name>, <email>"
    assert masked({"a": ["by Ann Lee", 3]}, mask) == {"a": ["by <name>", 3]}


def test_a_service_keeps_each_input_of_a_request(tmp_path: Path) -> None:
    with Traffic(str(tmp_path / "t.db")) as traffic:
        record = recorder(traffic)
        about = {"at": 5.0, "name": "support", "version": 3, "sha256": "", "verb": "predict"}
        done = {"queue_s": 0.0, "seconds": 0.1, "n_tokens": 3}
        record(Asked(id="q", way="live", inputs=("one",), **about), Answered((ANSWER,), **done))
        record(Asked(id="q", way="shadow", inputs=("one",), **about), Answered((ANSWER,), **done))
        record(Asked(id="p", way="live", inputs=("a", "b"), **about), Answered((ANSWER, ANSWER), **done))
        record(Asked(id="x", way="live", inputs=("a",), **about), Answered((), error="late", **done))
        rows = traffic.rows(shadow=True)
    assert [row.id for row in rows] == ["q", "q~shadow", "p.0", "p.1"]
    assert [row.text for row in traffic_rows(tmp_path)] == ["one", "a", "b"]


def traffic_rows(folder: Path) -> list[Any]:
    with opened(str(folder / "t.db")) as traffic:
        return traffic.rows(model="support")


WRITER = """
import sys
from penjing.serve.traffic import Traffic
traffic = Traffic(sys.argv[1])
for i in range(100_000):
    traffic.record(f"r{i}", "text", {"label": "a", "confidence": 0.5})
    print(f"r{i}", flush=True)
"""


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(40)]
        child.kill()
        said += child.stdout.read().split()
    with opened(str(path)) as traffic:
        kept = {row.id for row in traffic.rows()}
        assert set(said) <= kept
        assert len(kept) <= len(said) + 1
        traffic.record("after", "x", ANSWER)


def test_a_disk_that_refuses_is_told_and_the_next_request_is_tried_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penjing.serve import databases

    with Traffic(str(tmp_path / "t.db")) as traffic:
        full = sqlite3.OperationalError("database or disk is full")
        with monkeypatch.context() as patch:
            patch.setattr(databases.Database, "commit", lambda self: (_ for _ in ()).throw(full))
            with pytest.raises(NotSupported) as error:
                traffic.record("r", "x", ANSWER)
        told(error, "Requests were to be kept", "disk is full", "Make room")
        traffic.record("s", "x", ANSWER)
        assert [row.id for row in traffic.rows()] == ["s"]


def test_an_entity_stands_where_it_stands_in_the_text_that_is_kept(tmp_path: Path) -> None:
    text = "Mail a@example.com or 13800138000 to Ada, in Bonn"
    named = [("PER", "Ada"), ("LOC", "Bonn"), ("MAIL", "a@example.com")]
    entities = [
        {"start": text.index(one), "end": text.index(one) + len(one), "label": label, "text": one}
        for label, one in named
    ]
    with Traffic(str(tmp_path / "t.db")) as traffic:
        traffic.record("r", text, {"entities": entities})
        kept = traffic.rows()[0]
    found = [kept.text[one["start"] : one["end"]] for one in kept.answer["entities"]]
    assert found == ["Ada", "Bonn", "<email>"] == [one["text"] for one in kept.answer["entities"]]


def test_a_zero_in_a_text_is_kept_as_a_sign_that_all_stores_have(url: str) -> None:
    with Traffic(url) as traffic:
        traffic.record("zero", "a\0b", ANSWER)
        assert [row.text for row in traffic.rows() if row.id == "zero"] == ["a\ufffdb"]


def test_a_row_that_cannot_be_kept_costs_no_other(tmp_path: Path) -> None:
    with Traffic(str(tmp_path / "t.db"), mask=lambda text: text) as traffic:
        futures = [traffic.record_soon(f"r{i}", "\ud800" if i == 3 else "ok", ANSWER) for i in range(9)]
        failed = [i for i, future in enumerate(futures) if future.exception(30) is not None]
        assert failed == [3]
        assert len(traffic.rows()) == 8


def test_who_waits_no_longer_for_the_disk_stops_nobody(tmp_path: Path) -> None:
    with Traffic(str(tmp_path / "t.db")) as traffic:
        for i in range(50):
            traffic.record_soon(f"r{i}", "x", ANSWER).cancel()
        traffic.record_soon("last", "x", ANSWER).result(30)


def test_numbers_of_an_input_are_masked_too_and_it_stays_json(tmp_path: Path) -> None:
    with Traffic(str(tmp_path / "t.db")) as traffic:
        traffic.record("r", {"phone": 13800138000, "a@example.com": 3, "n": 7}, ANSWER)
        assert asked_of(traffic.rows()[0]) == {"phone": "<phone>", "<email>": 3, "n": 7}


def test_a_text_that_is_json_stays_a_text(url: str) -> None:
    asked = ['{"a": 1}', "[1, 2]", "123", "null", '"so"', "{not json", {"a": 1}, ["one", "two"]]
    with Traffic(url) as traffic:
        for i, one in enumerate(asked):
            traffic.record(f"r{i}", one, ANSWER)
        assert [asked_of(row) for row in traffic.rows()] == asked


def test_a_store_from_before_kinds_were_noted_is_read_and_goes_on(url: str) -> None:
    with Traffic(url) as traffic:
        traffic.record("old", {"a": 1}, ANSWER)
    with contextlib.closing(open_database(url)) as database:
        database.run("ALTER TABLE requests DROP COLUMN is_json")
        database.commit()
    with Traffic(url) as traffic:
        traffic.record("new", '{"a": 1}', ANSWER)
        assert [asked_of(row) for row in traffic.rows()] == [{"a": 1}, '{"a": 1}']


def test_what_cannot_be_is_refused_and_no_password_is_shown(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        Traffic("mysql://me:secret@host/db")
    told(error, "A traffic store is a file", "mysql://me:…@host", "Give one of these")
    with pytest.raises(NotSupported) as missing, opened(str(tmp_path / "none.db")):
        pass
    told(missing, "none.db was wanted", "penjing serve --traffic")
    with pytest.raises(NotSupported) as closed:
        Traffic("postgresql://me:secret@127.0.0.1:1/db")
    told(closed, "cannot be", "me:…@127.0.0.1")
    with Traffic(str(tmp_path / "t.db")) as traffic:
        traffic.url = "postgresql://me:secret@host/db"
    with pytest.raises(NotSupported, match="me:…@host") as over:
        traffic.record("r", "x", ANSWER)
    assert "secret" not in str(over.value)
    with Traffic(str(tmp_path / "t.db")) as traffic, pytest.raises(DataError) as unknown:
        traffic.feedback("nobody", "a")
    told(unknown, "'nobody'", "the store keeps none of that id", "Give the id")
    with Traffic(str(tmp_path / "t.db")) as traffic:
        traffic.record("many.0", "x", ANSWER)
        with pytest.raises(DataError) as several:
            traffic.feedback("many", "a")
    told(several, "'many'", "several inputs, the first of them `many.0`")
