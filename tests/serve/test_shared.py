"""What replicas have in common: one rate a caller, and one page of what all of them count."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from penjing.serve import keyring
from penjing.serve.app import create
from penjing.serve.asked import Busy, Closing
from penjing.serve.batcher import Batcher
from penjing.serve.limits import Limits
from penjing.serve.models import Models
from penjing.serve.service import Service
from penjing.serve.shared import HEARD_S, Ledger, Shared


def shared_with(ledger: Ledger, name: str) -> Shared:
    """What a replica has where the ledger is in its own process."""

    async def take(caller: str, kind: str, amount: float) -> None:
        refused = ledger.take(caller, kind, amount)
        if refused is not None:
            raise Busy(*refused)

    async def tell(families: Sequence[Any]) -> None:
        ledger.tell(name, families)

    async def told() -> list[Sequence[Any]]:
        return ledger.told(name)

    return Shared(name, take, tell, told)


def replica_of(root: Path, shared: Shared, keys: Path) -> TestClient:
    models = Models(root, device="cpu")
    service = Service(models, Batcher(models.lanes), shared=shared)
    return TestClient(create(service, keyring=keyring.Keyring(keys)))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[TestClient, TestClient]]:
    """Two replicas, and a key that may ask 6 times a minute."""
    keys, ledger = tmp_path / "keys.json", Ledger(Limits(requests=6))
    key, _ = keyring.make(keys, name="ci", scopes=["infer", "metrics"])
    with ExitStack() as after:
        apps = [replica_of(tmp_path / "serving", shared_with(ledger, name), keys) for name in ("a", "b")]
        clients = [after.enter_context(one) for one in apps]
        for client in clients:
            client.headers["authorization"] = f"Bearer {key}"
        yield clients[0], clients[1]


def test_a_rate_is_the_callers_whichever_replica_answers(two: tuple[TestClient, TestClient]) -> None:
    codes = [two[turn % 2].get("/v1/models").status_code for turn in range(8)]
    assert codes == [200] * 6 + [429] * 2


@pytest.mark.slow
def test_any_replica_tells_what_all_count_each_name_once(two: tuple[TestClient, TestClient]) -> None:
    for client in (two[0], two[1], two[1]):
        client.get("/v1/models")
    time.sleep(1.3)  # replicas tell every second
    text = two[0].get("/metrics").text
    counted = dict(
        re.findall(r'penjing_requests_total\{.*replica="(\w)".*route="/v1/models"\} ([\d.]+)', text)
    )
    assert counted == {"a": "1.0", "b": "2.0"}
    kinds = re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE)
    assert len(kinds) == len({*kinds}), "Prometheus takes a name once"


def test_what_a_replica_that_is_gone_counted_is_forgotten() -> None:
    at = 100.0
    ledger = Ledger(Limits(), now=lambda: at)
    ledger.tell("a", ["of a"])
    ledger.tell("b", ["of b"])
    assert ledger.told("a") == [["of b"]]
    at += HEARD_S / 2
    ledger.tell("a", ["of a"])
    at += HEARD_S / 2 + 1
    assert ledger.told("b") == [["of a"]]
    assert ledger.told("a") == []


def test_where_callers_cannot_be_counted_nothing_is_taken(tmp_path: Path) -> None:
    async def take(caller: str, kind: str, amount: float) -> None:
        raise Closing("What callers have asked cannot be counted just now.")

    lost = shared_with(Ledger(Limits()), "a")
    keys = tmp_path / "keys.json"
    key, _ = keyring.make(keys, name="ci", scopes=["infer"])
    with replica_of(tmp_path / "serving", Shared("a", take, lost.tell, lost.told), keys) as client:
        reply = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
