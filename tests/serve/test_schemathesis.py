"""The OpenAPI document is true to the service: what schemathesis makes of it is answered as it says.

Every operation is asked with inputs that the document allows and with such that it does not; in some of both
the model is one that there is. An answer must have a status, a media type and a body that the document names
for it; none may be 500. `pip install schemathesis` has it run; PENJING_EXAMPLES=100 makes it ask more.
"""

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from penjing.serve.app import create
from penjing.serve.batcher import Batcher
from penjing.serve.models import Models
from penjing.serve.service import Service

schemathesis = pytest.importorskip("schemathesis")
pytestmark = [pytest.mark.slow, pytest.mark.long]
KNOWN = ["support", "names", "search", "pairs", "talk", "support@1", "support@live"]
EXAMPLES = int(os.environ.get("PENJING_EXAMPLES", "12"))  # of each operation and kind


@pytest.fixture(scope="module")
def url(shelf: Path) -> Iterator[str]:
    """A service over HTTP."""
    import uvicorn

    models = Models(shelf, device="cpu")
    app = create(Service(models, Batcher(models.lanes), within_s=10), body=1 << 16, stop_s=5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def named(case: Any, model: str | None) -> Any:
    """The case, about a model that there is."""
    if model is not None:
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = model
        if case.path_parameters and "model" in case.path_parameters:
            case.path_parameters["model"] = model.partition("@")[0]
    return case


def asked(case: Any, model: str | None, codes: Counter[int]) -> list[str]:
    """What of the answer is not as the document says."""
    from schemathesis.specs.openapi import checks

    reply = named(case, model).call()
    codes[reply.status_code] += 1
    wanted = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    about = f"{case.method} {case.path} {str(case.body)[:200]}: {reply.status_code} {reply.text[:200]}"
    if reply.status_code == 500:
        return [about]
    try:
        case.validate_response(reply, checks=wanted)
    except Exception as error:  # a group of failures
        return [f"{about}: {str(error)[:400]}"]
    return []


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_one_that_the_document_names(url: str, mode: str) -> None:
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_dict(httpx2.get(f"{url}/openapi.json").json())
    schema.config.update(base_url=url)
    found: list[str] = []
    codes: Counter[int] = Counter()
    for result in schema.get_all_operations():
        cases = result.ok().as_strategy(GenerationMode(mode))

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(case=cases, model=st.sampled_from([None, *KNOWN]))
        def ask(case: Any, model: str | None) -> None:
            found.extend(asked(case, model, codes))

        with contextlib.suppress(Unsatisfiable):  # nothing of it can be wrong
            ask()
    assert codes[200 if mode == "positive" else 422] > 20, f"nothing to see was asked: {codes}"
    assert not found, f"{len(found)} of {codes}:\n" + "\n".join(found[:20])
