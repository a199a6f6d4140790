"""A look at what came: what moved is named, what did not is left in peace, and people are told."""

import http.server
import json
import re
import smtplib
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from common import told
from conftest import tickets
from penjing import tune
from penjing.cli import app
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs import alerts
from penjing.jobs.watch import Watched, watch
from penjing.jobs.watch_page import write_page
from penjing.run import Run
from penjing.serve import registry
from penjing.serve.traffic import Traffic

MOVED = "".join(chr(0x4E00 + 7 * i) for i in range(12))


@pytest.fixture(scope="module")
def run(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was proved on 100 rows."""
    folder = tmp_path_factory.mktemp("watched")
    for name, part in (("train", tickets(320)[:100]), ("valid", tickets(320)[100:200])):
        rows = "".join(f'"{text}",{label}\n' for text, label in part)
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    files = {name: folder / f"{name}.csv" for name in ("train", "valid")}
    settings = {"steps": 2, "evals": 1, "device": "cpu", "precision": "fp32", "out": folder}
    return tune(base=tiny("bert"), method="bitfit", **files, **settings)


@pytest.fixture(scope="module")
def store(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """120 requests like the rows it was proved on, then 60 of another language."""
    path = tmp_path_factory.mktemp("traffic") / "traffic.db"
    texts = [text for text, _ in tickets(320)][200:] + [f"{MOVED}{i}" for i in range(60)]
    with Traffic(str(path)) as traffic:
        futures = [
            traffic.record_soon(f"r{i}", text, answer, model="support", version=1, at=1e9 + i)
            for i, (text, answer) in enumerate(zip(texts, run.bundle.predict(texts), strict=True))
        ]
        for future in futures:
            future.result()
    return str(path)


@pytest.fixture(scope="module")
def moved(run: Run, store: str) -> Watched:
    return watch(run.folder, traffic=store, last=60)


@pytest.mark.slow
def test_what_moved_is_named_and_shown(moved: Watched) -> None:
    assert moved.moved
    names = {check.name for check in moved.verdict.checks if check.moved} if moved.verdict else set()
    assert {"vectors", "unknown", "language"} <= names
    assert "languages (en 1" in moved.sentence or "languages (" in moved.sentence
    assert all(one["text"].startswith(MOVED) for one in moved.farthest)
    json.dumps(moved.plain())


def test_more_of_the_same_is_still(run: Run, tmp_path: Path) -> None:
    lines = "\n".join(text for text, _ in tickets(320)[200:])
    (tmp_path / "same.txt").write_text(lines, encoding="utf-8")
    found = watch(run.folder, data=tmp_path / "same.txt")
    assert not found.moved
    assert found.verdict is not None
    assert found.plain()["verdict"] == "still"
    assert found.model == run.folder.name, "and not `best`, as every run's bundle is called"


def test_few_rows_say_nothing(run: Run, store: str) -> None:
    found = watch(run.folder, traffic=store, last=49)
    assert (found.verdict, found.moved, found.plain()["verdict"]) == (None, False, "too few")
    assert "too few rows" in found.sentence


@pytest.mark.slow
def test_wrong_answers_move_the_quality(run: Run, store: str, tmp_path: Path) -> None:
    import shutil

    place = shutil.copy(store, tmp_path / "t.db")
    with Traffic(str(place)) as traffic:
        for row in traffic.rows(last=60):
            traffic.feedback(row.id, "another label")
    found = watch(run.folder, traffic=str(place), last=60)
    quality = [c for c in found.verdict.checks if c.name == "quality"] if found.verdict else []
    assert quality[0].facts["is"] == 0.0
    assert quality[0].facts["rows"] == 60
    assert any("60 rows have feedback" in note for note in found.notes)


def test_feedback_that_says_nothing_is_left_out_and_counted(run: Run, store: str, tmp_path: Path) -> None:
    """Anybody with the right to give feedback may send any JSON."""
    import shutil

    place = shutil.copy(store, tmp_path / "t.db")
    with Traffic(str(place)) as traffic:
        for i, row in enumerate(traffic.rows(last=60)):
            traffic.feedback(row.id, [{"label": "a"}, None, ""][i] if i < 3 else row.answer["label"])
    found = watch(run.folder, traffic=str(place), last=60)
    assert found.new.right is not None
    assert found.new.right.tolist() == [True] * 57
    assert "57 rows have feedback" in found.notes
    left = next(note for note in found.notes if "left out" in note)
    assert left.startswith("3 rows of feedback cannot be compared and left out, such as ")
    assert "was wanted as one label" in left


def test_a_model_of_a_registry_is_watched_by_its_name_and_live_version(
    run: Run, store: str, tmp_path: Path
) -> None:
    registry.add(tmp_path, "support", run.folder)
    assert watch(tmp_path / "support", traffic=store, last=60).model == "support"
    registry.add(tmp_path, "other", run.folder)
    with pytest.raises(DataError) as error:
        watch(tmp_path / "other", traffic=store)
    told(error, "requests to `other`", "it keeps none yet", "check the name")


def test_other_versions_answers_are_not_laid_at_the_live_ones_door(
    run: Run, store: str, tmp_path: Path
) -> None:
    """After an update the store is full of the old version's mistakes, which people have corrected."""
    path = str(tmp_path / "t.db")
    registry.add(tmp_path, "support", run.folder)
    with Traffic(store) as known, Traffic(path) as traffic:
        for one in known.rows(last=60):
            wrong = {"label": "nonsense", "confidence": 0.1}
            traffic.record(one.id, one.text, wrong, model="support", version=7)
            traffic.feedback(one.id, "account")
    found = watch(tmp_path / "support", traffic=path)
    assert found.new.right is None, "feedback on version 7"
    assert found.new.answers is not None
    assert "nonsense" not in found.new.answers
    assert "other versions answered 60 rows: version 1 is asked now" in found.notes


def test_requests_to_several_models_are_no_ones(run: Run, tmp_path: Path) -> None:
    with Traffic(str(tmp_path / "t.db")) as traffic:
        for name in ("desk", "support"):
            traffic.record(name, "late", {"label": "a"}, model=name)
    with pytest.raises(DataError) as error:
        watch(run.folder, traffic=str(tmp_path / "t.db"))
    told(error, "Requests to one model", "those to desk, support", "penjing watch serving/NAME")


def test_a_look_at_nothing_or_with_too_little_is_refused(run: Run, store: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        watch(run.folder)
    told(error, "--traffic", "neither is given", "Give one")
    with pytest.raises(SpecError, match="`alpha` must lie between 0 and 1; it is 2"):
        watch("nowhere", traffic=store, alpha=2)
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    with pytest.raises(DataError) as little:
        watch(run.folder, traffic=store, reference=few)
    told(little, "At least 50 rows", "was proved on 2", "--reference")
    with pytest.raises(NotSupported, match="no such file"):
        watch(run.folder, traffic=str(tmp_path / "none.db"))


def test_the_page_is_whole_and_shows_a_picture_of_what_moved(moved: Watched, tmp_path: Path) -> None:
    for language in ("en", "zh"):
        page = write_page(moved, tmp_path / f"{language}.html", language=language).read_text(encoding="utf-8")
        assert page.count("<figure>") >= 6
        assert MOVED in page
        assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)
    with pytest.raises(SpecError, match="`language` is `fr`"):
        write_page(moved, tmp_path / "x.html", language="fr")


@pytest.mark.slow
def test_the_verb_says_what_moved_by_its_exit_code(run: Run, store: str, tmp_path: Path) -> None:
    log, prom, page = tmp_path / "a.jsonl", tmp_path / "penjing.prom", tmp_path / "w.html"
    more = ["--alert", f"log:{log}", "--metrics", str(prom), "--page", str(page)]
    asked = ["watch", str(run.folder), "--traffic", store, "--last", "60"]
    done = CliRunner().invoke(app, [*asked, *more])
    assert done.exit_code == 3, done.output
    assert "moved" in done.output
    assert json.loads(log.read_text())["verdict"] == "moved"
    assert page.is_file()
    lines = [line for line in prom.read_text().splitlines() if not line.startswith("#")]
    form = re.compile(r'penjing_\w+\{model="[^"]*"(,check="\w+")?\} [-+.e\d]+')
    assert all(form.fullmatch(line) for line in lines), lines
    assert any(line.startswith("penjing_drift_moved") and line.endswith(" 1") for line in lines)
    as_json = CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(as_json.stdout)["verdict"] == "moved"
    broken = CliRunner().invoke(app, ["watch", str(tmp_path), "--traffic", store])
    assert broken.exit_code == 1
    log.unlink()
    unwritten = CliRunner().invoke(app, [*asked, "--alert", f"log:{log}", "--page", str(log / "w.html")])
    assert unwritten.exit_code == 1
    assert json.loads(log.read_text())["verdict"] == "moved", "an alarm was lost"
    french = CliRunner().invoke(app, ["watch", "nowhere", "--traffic", store, "--language", "fr"])
    assert "`language` is `fr`" in french.stderr


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any]]]:
    """A webhook that fails once, then takes what comes."""
    heard: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path, json.loads(body)))
            self.send_response(503 if len(heard) == 1 else 204)
            self.end_headers()

        def log_message(self, *about: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook?k=1", heard
        server.shutdown()


@pytest.mark.slow
def test_a_webhook_is_told_and_tried_again(moved: Watched, hook: tuple[str, list[Any]]) -> None:
    url, heard = hook
    assert alerts.alert(moved, [url], pause_s=0) == []
    assert [path for path, _ in heard] == ["/hook?k=1"] * 2
    assert heard[1][1]["text"] == moved.sentence


@pytest.fixture
def mail() -> Iterator[tuple[str, list[str]]]:
    """A mail server of a dozen lines."""
    letters: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go\r\n")
                    body = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        body.append(part.decode())
                    letters.append("".join(body))
                self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"smtp://127.0.0.1:{server.server_address[1]}?to=ops@example.com&from=bot@example.com", letters
        server.shutdown()


@pytest.mark.slow
def test_a_letter_says_what_moved(moved: Watched, mail: tuple[str, list[str]]) -> None:
    url, letters = mail
    assert alerts.alert(moved, [url]) == []
    assert "To: ops@example.com" in letters[0]
    assert "From: bot@example.com" in letters[0]
    assert "Subject: Penjing:" in letters[0]


@pytest.mark.slow
def test_no_password_is_said_in_the_open(moved: Watched, mail: tuple[str, list[str]]) -> None:
    url, letters = mail
    troubles = alerts.alert(moved, [url.replace("smtp://", "smtp://me:secret@")], pause_s=0)
    assert letters == []
    assert "STARTTLS" in troubles[0]
    assert "secret" not in troubles[0]
    assert issubclass(smtplib.SMTPNotSupportedError, OSError)


def test_a_target_that_is_none_is_refused_before_anything_is_looked_at() -> None:
    with pytest.raises(SpecError) as error:
        alerts.check_targets(["log:a.jsonl", "httpz://x"])
    told(error, "An alert goes to", "`httpz://x`", "Did you mean `http")
    with pytest.raises(SpecError) as letter:
        alerts.check_targets(["smtp://me:secret@host"])
    told(letter, "needs a host and an address", "smtp://host", "Add it")


def test_what_cannot_be_reached_is_told_in_words(moved: Watched) -> None:
    (trouble,) = alerts.alert(moved, ["http://127.0.0.1:9/x"], pause_s=0)
    assert trouble.startswith("http://127.0.0.1 could not be told in 3 tries")


def test_a_target_that_fails_in_any_way_keeps_no_other_from_being_told(
    moved: Watched, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    wrong = [f"log:{tmp_path}/file/a.jsonl", "http://127.0.0.1:9/钩子", "http://127.0.0.1:99999/"]
    troubles = alerts.alert(moved, [*wrong, f"log:{tmp_path}/b.jsonl"], pause_s=0)
    assert [trouble.partition(" could not")[0] for trouble in troubles] == [
        f"log:{tmp_path}/file/a.jsonl",
        "http://127.0.0.1",
        "http://127.0.0.1",
    ]
    assert json.loads((tmp_path / "b.jsonl").read_text())["verdict"] == "moved"
