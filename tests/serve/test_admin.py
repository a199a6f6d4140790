"""Promoting, rolling back, shares and feedback over HTTP."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from penjing.jobs.serve import Serving, application
from penjing.serve.traffic import Traffic
from serving import TEXTS, made, registered

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def served(
    shelf: Path, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Traffic]]:
    """`support` with a second version, and a store of traffic."""
    work = tmp_path_factory.mktemp("admin")
    shutil.copytree(shelf / "support", work / "serving" / "support")
    registered(work / "serving", "support", made(work / "next", tiny("bert"), seed=77))
    how = Serving(registry=work / "serving", device="cpu", within=60)
    with (
        Traffic(str(work / "traffic.db")) as traffic,
        TestClient(application(["support"], how, traffic=traffic)) as client,
    ):
        yield client, traffic


def asked(client: TestClient, name: str = "support", text: str = TEXTS[0]) -> Any:
    reply = client.post("/v1/predict", json={"model": name, "inputs": text})
    assert reply.status_code == 200, reply.text
    return reply.json() | {"way": reply.headers["x-penjing-way"]}


@pytest.mark.slow
def test_a_promotion_is_in_force_when_it_answers_and_a_roll_back_at_once(served: Any) -> None:
    client, _ = served
    assert asked(client)["bundle"]["version"] == 1
    found = client.post("/admin/models/support/promote", json={"version": 2}).json()
    assert found["in_force"]["aliases"] == {"live": 2}
    assert asked(client)["bundle"]["version"] == 2
    assert client.post("/admin/models/support/roll_back").json()["in_force"]["aliases"] == {"live": 1}
    assert asked(client)["bundle"]["version"] == 1
    assert client.post("/admin/models/support/promote", json={"version": 9}).status_code == 404
    assert client.post("/admin/models/suport/promote", json={"version": 1}).status_code == 404
    history = client.get("/admin/models/support/route").json()["wanted"]["history"]
    assert [turn["why"] for turn in history[-2:]] == ["promoted", "rolled back"]


def test_a_canary_answers_its_share_and_a_shadow_is_only_recorded(served: Any) -> None:
    client, traffic = served
    client.post("/admin/models/support/canary", json={"version": 2, "share": 1.0})
    found = asked(client, text="the canary sings")
    assert (found["bundle"]["version"], found["way"]) == (2, "canary")
    assert asked(client, "support@1")["way"] == "pinned"
    client.post("/admin/models/support/canary", json={"version": 2, "share": 0})
    client.post("/admin/models/support/shadow", json={"version": 2, "share": 1.0})
    found = asked(client, text="seen twice")
    assert (found["bundle"]["version"], found["way"]) == (1, "live")
    client.post("/admin/models/support/shadow", json={"version": 2, "share": 0})
    for _ in range(200):
        rows = [row for row in traffic.rows(shadow=True) if row.text == "seen twice"]
        if len(rows) == 2:
            break
        asked(client)
    assert sorted((row.version, row.way) for row in rows) == [("1", "live"), ("2", "shadow")]
    assert client.post("/admin/models/support/canary", json={"version": 2, "share": 3}).status_code == 422
    assert client.post("/admin/models/support/sparrow", json={"version": 2, "share": 1}).status_code == 422


def test_a_version_can_be_put_away_and_is_opened_by_the_next_request(served: Any) -> None:
    client, _ = served
    asked(client)
    assert client.delete("/admin/models/support/versions/1/open").json() == {"open": False, "was_open": True}
    assert [m["open"] for m in client.get("/v1/models").json()["data"] if m["version"] == 1] == [False]
    assert asked(client)["bundle"]["version"] == 1
    assert client.post("/admin/models/support/versions/2/open").json()["version"] == 2


def test_feedback_is_kept_with_the_request_and_personal_data_is_masked(served: Any) -> None:
    client, traffic = served
    found = asked(client, text="write to ada@example.org about order 12")
    reply = client.post("/v1/feedback", json={"id": found["id"], "truth": "billing"})
    assert reply.json() == {"id": found["id"], "kept": True}
    row = next(row for row in traffic.rows() if row.id == found["id"])
    assert row.truth == "billing"
    assert row.text == "write to <email> about order 12"
    assert client.post("/v1/feedback", json={"id": "req_none", "truth": "x"}).status_code == 422
