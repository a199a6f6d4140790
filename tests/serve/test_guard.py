"""What the one door does with requests of any form, before a model is asked."""

import gzip
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from penjing.serve import keyring
from penjing.serve.app import create
from penjing.serve.batcher import Batcher
from penjing.serve.keyring import Keyring
from penjing.serve.models import Models
from penjing.serve.service import Service


@pytest.fixture
def keyed(tmp_path: Path) -> tuple[TestClient, dict[str, str]]:
    """A service of no model that asks for keys, and the header of one."""
    path, models = tmp_path / "keys.json", Models(tmp_path / "serving", device="cpu")
    key, _ = keyring.make(path, name="ci")
    app = create(Service(models, Batcher(models.lanes)), keyring=Keyring(path))
    return TestClient(app), {"authorization": f"Bearer {key}"}


def test_head_is_get_without_its_body(keyed: tuple[TestClient, dict[str, str]]) -> None:
    client, key = keyed
    for path, headers, status in (("/healthz", {}, 200), ("/v1/models", {}, 401), ("/v1/models", key, 200)):
        bare, whole = (client.request(how, path, headers=headers) for how in ("HEAD", "GET"))
        assert (bare.status_code, bare.content) == (status, b"")
        assert bare.headers["content-length"] == whole.headers["content-length"] != "0"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            '{"model": "support", "inputs": "退款"}'.encode("gb18030"),
            "byte 33 of the body is 0xcd. Send it as UTF-8",
        ),
        (gzip.compress(b'{"model": "support", "inputs": "x"}'), "0x8b. Send it as UTF-8, and not compressed"),
        (b'{"model": "support", "inputs": ' + b"[" * 9000 + b"]" * 9000 + b"}", "too deep to be read"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_what_is_wrong(
    keyed: tuple[TestClient, dict[str, str]], body: bytes, said: str
) -> None:
    client, key = keyed
    reply = client.post("/v1/predict", content=body, headers={**key, "content-type": "application/json"})
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]
