"""What callers send that no one should, and callers that go: the service stays as it is for all others."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from penjing.serve import keyring
from penjing.serve.app import create
from penjing.serve.asked import Busy, Caller, Gone
from penjing.serve.audit import Audit
from penjing.serve.batcher import Batcher
from penjing.serve.models import Models
from penjing.serve.replies import while_there
from penjing.serve.service import Service
from serving import TEXTS


def service_of(root: Path, **how: Any) -> Service:
    models = Models(root, device="cpu")
    return Service(models, Batcher(models.lanes), **how)


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    with TestClient(create(service_of(shelf)), raise_server_exceptions=False) as found:
        yield found


def posted(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        (
            "/v1/predict",
            b'{"model": "support", "inputs": ["ok", "a \\ud800 b"]}',
            "half of a character (\\ud800)",
        ),
        (
            "/v1/predict",
            b'{"model": "support", "inputs": %s}' % (b"[" * 900 + b"]" * 900),
            "more than 64 deep",
        ),
        (
            "/v1/chat/completions",
            b'{"model": "talk", "messages": [{"role": "user", "content": "\\udc00"}]}',
            "Unicode was wanted in the messages; sign 1",
        ),
    ],
)
def test_what_no_text_can_hold_is_told(client: TestClient, path: str, content: bytes, said: str) -> None:
    reply = client.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert said in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b'{"model": }', "application/json", "JSON; after 10 characters it is not"),
        (b'{"model": "support", "inputs": "x"}', "application/x-www-form-urlencoded", "`content-type: appl"),
        (
            b'{"model": "support", "input": "x"}',
            "application/json",
            "`input` is no field here. Did you",
        ),
        (b'{"model": "support"}', "application/json", "`inputs` was wanted; there is none"),
    ],
)
def test_a_body_that_is_misread_is_told_with_what_to_do(
    client: TestClient, content: bytes, kind: str, said: str
) -> None:
    reply = client.post("/v1/predict", content=content, headers={"content-type": kind})
    assert reply.status_code == 422
    assert said in reply.json()["error"]["message"]


def test_a_method_that_is_none_adds_no_label_to_the_metrics(client: TestClient) -> None:
    client.request("BREW", "/v1/predict")
    text = client.get("/metrics").text
    assert "BREW" not in text
    assert 'penjing_requests_total{code="405",method="other",route="none"}' in text


def test_without_keys_pages_of_other_sites_may_ask_nothing(client: TestClient) -> None:
    path = "/admin/models/support/roll_back"
    for origin in ("https://elsewhere.example", "null", "http://127.0.0.1.elsewhere.example"):
        reply = client.post(path, headers={"origin": origin})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")
    for origin in ("http://localhost:8000", "http://127.0.0.1:9000", "http://[::1]:8000"):
        assert client.post(path, headers={"origin": origin}).status_code == 404, "nothing to return to"


def test_a_text_says_whether_it_stopped_or_was_cut(client: TestClient) -> None:
    asked = {"model": "talk", "messages": [{"role": "user", "content": "my card " * 20}]}
    for more in ({"max_tokens": 2}, {"max_tokens": 8192}):
        found = posted(client, "/v1/chat/completions", **asked, **more)
        assert found["choices"][0]["finish_reason"] == "length"
    text = found["choices"][0]["message"]["content"]
    found = posted(client, "/v1/chat/completions", **asked, max_tokens=8192, stop=text[-1])
    assert found["choices"][0]["finish_reason"] == "stop"


def test_a_full_disk_under_the_audit_log_costs_no_answer(shelf: Path) -> None:
    with TestClient(create(service_of(shelf, audit=Audit(Path("/dev/full"))))) as found:
        assert found.get("/v1/models/nobody").status_code == 404
        assert posted(found, "/v1/predict", model="support", inputs="no")["answers"]
        assert "penjing_unaudited_total 2.0" in found.get("/metrics").text


def test_nothing_works_for_a_client_that_went() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("work")

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(Gone):
        asyncio.run(while_there(Request({"type": "http"}, gone), work()))
    assert ended == ["work"]


def test_where_one_text_is_refused_the_others_end_too(shelf: Path, monkeypatch: Any) -> None:
    service = service_of(shelf)
    opened = service.models.open(service.models.choose("notes").version)
    begun: list[Any] = []

    def talk(one: Any, *, within_s: float) -> Any:
        if len(begun) == 2:
            raise Busy("full", 1)
        begun.append(one)
        return one

    monkeypatch.setattr(service.batcher, "talk", talk)
    with pytest.raises(Busy):
        asyncio.run(service.answered(opened, "predict", TEXTS[:3], None, 5))
    assert [one.future.cancelled() for one in begun] == [True, True]


def test_who_waits_for_a_model_to_open_holds_nobody_else(shelf: Path, monkeypatch: Any) -> None:
    service, opens = service_of(shelf), threading.Event()
    monkeypatch.setattr(service.models, "open", lambda version: opens.wait(30))

    async def run() -> int:
        waits = [asyncio.create_task(service.found("support", Caller())) for _ in range(64)]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: 7), 5)  # as a recorder does
        finally:
            opens.set()
            await asyncio.gather(*waits)

    assert asyncio.run(run()) == 7


def test_a_key_file_that_is_broken_while_it_serves_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    key, _ = keyring.make(path, name="ci")
    ring = keyring.Keyring(path)
    assert ring.caller(key) is not None
    path.write_text("no keys", encoding="utf-8")
    assert [ring.caller(key), ring.caller(key)] == [None, None]
    assert caplog.text.count("nobody is let in") == 1
    assert key not in caplog.text
