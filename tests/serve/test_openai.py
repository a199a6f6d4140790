"""What OpenAI's clients send: what asks for nothing is no fault, what is wrong is told by place and value."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from penjing.serve.app import create
from penjing.serve.batcher import Batcher
from penjing.serve.models import Models
from penjing.serve.service import Service
from serving import TEXTS


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    models = Models(shelf, device="cpu")
    with TestClient(create(Service(models, Batcher(models.lanes))), raise_server_exceptions=False) as found:
        yield found


def posted(client: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_what_clients_send_unasked_is_no_fault(client: TestClient) -> None:
    said = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}]
    ask = {"model": "talk", "messages": said, "max_tokens": 4}
    idle = {"n": None, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "tools": [],
            "tool_choice": None, "logit_bias": {}, "stream": None, "store": False}  # fmt: skip
    plain, sent = (posted(client, "/v1/chat/completions", **ask, **more)["choices"] for more in ({}, idle))
    assert plain == sent
    assert posted(client, "/v1/completions", model="notes", prompt=[TEXTS[2]], max_tokens=2)
    for more in ({"presence_penalty": 1}, {"tools": [{"type": "function"}]}, {"logprobs": 0}):
        fault = posted(client, "/v1/chat/completions", 422, **ask, **more)["error"]["message"]
        assert fault.startswith(f"`{next(iter(more))}` is no field here.")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_token": 3}, r"`max_token` is no field here\. Did you mean `max_tokens`\?"),
        ({"stop": [*"abcde"]}, r"`stop`: .*at most 4 items.*it is \"\['a', 'b'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         r"`messages\.0\.content\.0\.type`: .*'text'; it is 'image_url'"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_where_and_by_what(
    client: TestClient, more: dict[str, Any], told: str
) -> None:
    ask = {"model": "talk", "messages": [{"role": "user", "content": "hello"}], **more}
    message = posted(client, "/v1/chat/completions", 422, **ask)["error"]["message"]
    assert re.search(told, message), message
