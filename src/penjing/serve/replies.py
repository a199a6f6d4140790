"""Answers as bytes, and errors in the one shape that all routes have (OpenAI's)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from math import ceil
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from penjing.errors import DataError, NotSupported, PenjingError, SpecError, nearest
from penjing.serve.asked import Busy, Closing, Forbidden, Gone, Late, Unknown
from penjing.serve.service import Reply, Service

T = TypeVar("T")
KINDS: list[tuple[type[PenjingError], int, str]] = [
    (Unknown, 404, "model_not_found"),
    (Forbidden, 403, "forbidden"),
    (Busy, 429, "rate_limit_exceeded"),
    (Late, 504, "deadline_exceeded"),
    (Closing, 503, "unavailable"),
    (Gone, 499, "client_gone"),  # as nginx has it; only the metrics see it
    (DataError, 422, "bad_input"),
    (SpecError, 400, "bad_request"),
    (NotSupported, 400, "not_supported"),
]
_BRANCH = re.compile(
    r"(str|int|float|bool|dict|list|constrained-\w+)(\[.*\])?"
)  # of a value of several kinds
_PATH = re.compile(r"(?<![\w.])(?!/v[12]/)(?:~|\.{1,2})?(?:/[\w.@+~-]+){2,}/?")  # but for our own routes


class Fault(BaseModel):
    """What went wrong, in words."""

    message: str
    type: str
    code: str
    param: str | None = None


class Failure(BaseModel):
    """Every answer that is none."""

    error: Fault


FAULTS: dict[int | str, dict[str, Any]] = {
    code: {"model": Failure, "description": about}
    for code, about in {
        400: "not possible as asked",
        401: "no valid key",
        403: "the key does not allow it",
        404: "no such model, version or path",
        408: "the body did not come in time",
        413: "the body is too large",
        422: "the input is not what the model takes",
        429: "too much at once; `Retry-After` says when to come back",
        500: "a fault of the service",
        503: "refused, stopping or not ready",
        504: "the deadline passed",
    }.items()
}


def answer(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; numbers that JSON has no word for become null."""
    body = to_json(content, inf_nan_mode="null")
    return Response(body, status, media_type="application/json", headers=headers)


def failure(status: int, code: str, message: str) -> Response:
    """An error in OpenAI's shape, without a path of the server's."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    fault = {"message": _PATH.sub("…", message)[:1000], "type": kind, "code": code, "param": None}
    return answer({"error": fault}, status=status)


def of_error(service: Service, error: PenjingError) -> Response:
    """The answer that an error of ours makes."""
    _, status, code = next((kind for kind in KINDS if isinstance(error, kind[0])), (None, 500, "internal"))
    told = failure(status, code, str(error))
    if isinstance(error, Busy):
        told.headers["retry-after"] = str(max(1, ceil(error.wait_s)))
    if isinstance(error, Closing):
        told.headers["retry-after"] = "1"
    if status in (429, 503, 504):
        service.metrics.refused.labels(code).inc()
    return told


async def while_there(request: Request, doing: Awaitable[T]) -> T:
    """What `doing` gives; it ends where the client goes before, so that nothing works for nobody.

    Raises:
        Gone: the client went.
    """
    task = asyncio.ensure_future(doing)
    gone = asyncio.ensure_future(request.receive())  # the body was read: what may come is that it goes
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone("The client went before its answer was there, so nothing more is made of it.")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))


def named(reply: Reply) -> dict[str, str]:
    """Headers that name who answered."""
    version = reply.opened.version
    headers = {
        "x-penjing-id": reply.id,
        "x-penjing-model": str(version),
        "x-penjing-sha256": version.sha256,
        "x-penjing-way": reply.way,
    }
    if reply.recorded is not None:
        headers["x-penjing-recorded"] = "true" if reply.recorded else "false"
    return headers


def _fields(request: Request) -> list[str]:
    """Names of what a route's body may have."""
    body = getattr(request.scope.get("route"), "body_field", None)
    kind = getattr(getattr(body, "field_info", None), "annotation", None)
    return [*getattr(kind, "model_fields", ())]


def install(app: FastAPI, service: Service) -> None:
    """Let every error have the one shape."""

    @app.exception_handler(PenjingError)
    async def _ours(request: Request, error: PenjingError) -> Response:
        return of_error(service, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        kind = request.headers.get("content-type", "")
        return failure(422, "bad_input", _misread(error.errors(), kind, _fields(request)))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 408: "too_slow", 413: "too_large"}
        return failure(error.status_code, codes.get(error.status_code, "bad_request"), _unread(error))


def _unread(error: HTTPException) -> str:
    """What an HTTP error says; of a body that could not be read FastAPI says no more than that."""
    why = error.__cause__
    if isinstance(why, UnicodeDecodeError):
        return (
            f"JSON in UTF-8 was wanted; byte {why.start + 1} of the body is 0x{why.object[why.start]:02x}. "
            "Send it as UTF-8, and not compressed."
        )
    if isinstance(why, RecursionError):
        return "The body has lists or objects within each other, too deep to be read. Send it flat."
    return str(error.detail)


def _misread(faults: Sequence[Any], kind: str, fields: Sequence[str]) -> str:
    """What is wrong with a body that is not what its route takes, and what to do; `kind` is what the client
    called it, `fields` are those it may have.

    Of a value that may be of several kinds the deepest complaint is told: a list that is too long is not told
    to be no text.
    """
    about = [one for one in faults if one["loc"][:2] == faults[0]["loc"][:2]]
    deepest = max(about, key=lambda one: (one["type"] not in ("string_type", "list_type"), len(one["loc"])))
    first = next((one for one in faults if one["type"] == "extra_forbidden"), deepest)
    path = [str(part) for part in first["loc"] if part != "body" and not _BRANCH.fullmatch(str(part))]
    where = ".".join(path)
    if first["type"] == "json_invalid":
        why = first["ctx"]["error"]
        return f"The body was to be JSON; after {where} characters it is not: {why}. Mend it there."
    if not where and "json" not in kind:
        came = f"as `{kind}`" if kind else "without a content type"
        return f"JSON was wanted; the body came {came}. Send it with `content-type: application/json`."
    if first["type"] == "extra_forbidden":
        return f"`{where}` is no field here.{nearest(path[-1], fields)} /openapi.json lists those there are."
    if first["type"] == "missing":
        return f"`{where or 'body'}` was wanted; there is none. Give it: /openapi.json says what it holds."
    return f"`{where or 'body'}`: {first['msg']}; it is {str(first['input'])[:60]!r}."
