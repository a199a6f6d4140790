"""The one door: every request passes it, and a route that does not say who may ask it is closed.

A route says so by `@needs(scope)`, or `@needs(None)` where anybody may. Without a key file the service
listens on this machine only, and whoever is on it may do all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from math import ceil
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penjing.serve.asked import Busy, Caller, Closing
from penjing.serve.keyring import Keyring, is_local
from penjing.serve.replies import failure, of_error
from penjing.serve.service import Service

LOG = logging.getLogger("penjing.serve")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
F = TypeVar("F", bound=Callable[..., Any])
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


def needs(scope: str | None) -> Callable[[F], F]:
    """Say which scope a route's caller must have; None: anybody may."""

    def mark(endpoint: F) -> F:
        endpoint.needs = scope  # type: ignore[attr-defined]
        return endpoint

    return mark


def needed(app: Any, scope: Scope) -> tuple[str, str | None] | None:
    """The path as the route has it, and what it needs; None where no route is there, or it does not say."""
    for route in app.routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            endpoint: Any = getattr(route, "endpoint", None)
            return (route.path, endpoint.needs) if hasattr(endpoint, "needs") else None
    return None


def methods(app: Any, scope: Scope) -> list[str]:
    """The methods that a path takes where it does not take the one asked for."""
    found = [r for r in app.routes if r.matches(scope)[0] is Match.PARTIAL and hasattr(r.endpoint, "needs")]
    return sorted({method for route in found for method in route.methods})


class Guard:
    """ASGI middleware: keys, scopes, rates, sizes, and what is counted and noted of every request.

    body: bytes that a request may have. body_s: seconds in which its body must be there.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Any,
        service: Service,
        keyring: Keyring | None,
        body: int = 2 << 20,
        body_s: float = 20.0,
    ) -> None:
        self._app, self._routes, self._service, self._keyring = app, routes, service, keyring
        self._body, self._body_s = body, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # websockets: there are none
        began, code, path, begun = time.perf_counter(), 500, "none", False
        bare = scope["method"] == "HEAD"  # as GET, less the body
        asked = {**scope, "method": "GET"} if bare else scope

        async def sending(message: Message) -> None:
            nonlocal code, begun
            if message["type"] == "http.response.start":
                code, begun = message["status"], True
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send({**message, "body": b""} if bare and "body" in message else message)

        found = needed(self._routes, asked)
        caller = self._caller(scope)
        try:
            if found is not None:
                path = found[0]
            refused = await self._refusal(asked, found, caller)
            if refused is not None:
                await refused(asked, receive, sending)
                return
            asked.setdefault("state", {})["caller"] = caller or Caller(scopes=frozenset())
            await self._app(asked, self._bounded(asked, receive), sending)
        except Exception:
            LOG.exception("%s %s failed", scope["method"], path)
            if begun:  # too late for another answer: the connection ends
                raise
            await failure(500, "internal", "Something failed here; the operator's log says what.")(
                scope, receive, sending
            )
        finally:
            seconds = time.perf_counter() - began
            metrics = self._service.metrics
            method = scope["method"] if scope["method"] in METHODS else "other"  # a caller's word is no label
            metrics.requests.labels(path, method, code).inc()
            metrics.duration.labels(path).observe(seconds)
            if code >= 400:
                about = {"path": path, "method": scope["method"], "code": code}
                self._service.audit.note("refused", about | {"key": caller.id if caller else ""})

    def _caller(self, scope: Scope) -> Caller | None:
        """Who asks; None where no valid key is given."""
        if self._keyring is None:
            return Caller()
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, key = given.partition(" ")
        return self._keyring.caller(key.strip()) if kind.lower() == "bearer" else None

    async def _refusal(
        self, scope: Scope, found: tuple[str, str | None] | None, caller: Caller | None
    ) -> Any:
        if found is not None and found[1] is None:
            return None
        if caller is None:
            self._service.metrics.refused.labels("key").inc()
            answer = failure(
                401, "invalid_api_key", "A valid API key was wanted: `Authorization: Bearer pj_…`."
            )
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        if self._keyring is None and not _from_here(scope):
            self._service.metrics.refused.labels("origin").inc()
            said = (
                "A page of another site asks. Without keys only pages of this machine may: serve with keys."
            )
            return failure(403, "forbidden", said)
        if found is None:
            taken = methods(self._routes, scope)
            if taken:
                said = f"This path takes {', '.join(taken)}; it was asked by {scope['method'][:20]}."
                answer = failure(405, "method_not_allowed", said)
                answer.headers["allow"] = ", ".join(taken)
                return answer
            return failure(
                404, "not_found", "There is no such path here. /openapi.json lists those there are."
            )
        if not caller.may(str(found[1])):
            self._service.metrics.refused.labels("scope").inc()
            return failure(403, "forbidden", f"This needs a key with the scope `{found[1]}`.")
        try:
            await self._service.shared.take(caller.id or _address(scope), "requests", 1)
        except Busy as error:
            self._service.metrics.refused.labels("rate").inc()
            answer = failure(429, "rate_limit_exceeded", str(error))
            answer.headers["retry-after"] = str(max(1, ceil(error.wait_s)))
            return answer
        except Closing as error:
            return of_error(self._service, error)
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        n_bytes, ends = 0, time.monotonic() + self._body_s
        done, large = (
            False,
            HTTPException(413, f"A body has {self._body:,} bytes at most. Send less at once."),
        )

        async def bounded() -> Message:
            nonlocal n_bytes, done
            if done:  # the body is there; what may come is that the caller goes
                return await receive()
            if declared.isdigit() and int(declared) > self._body:
                raise large
            try:
                message = await asyncio.wait_for(receive(), max(0.01, ends - time.monotonic()))
            except TimeoutError as error:
                raise HTTPException(408, "The body did not come in time. Send it at once.") from error
            n_bytes += len(message.get("body", b""))
            done = not message.get("more_body", False)
            if n_bytes > self._body:
                raise large
            return message

        return bounded


def _address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _from_here(scope: Scope) -> bool:
    """Whether the page that asks, if any does, is of this machine: browsers say whose it is. Else any site
    that its user looks at could promote and roll back, or call itself this machine and read (DNS
    rebinding)."""
    origin = dict(scope["headers"]).get(b"origin")
    if origin is None:
        return True
    try:
        return is_local(urlsplit(origin.decode("latin-1")).hostname or "")
    except ValueError:
        return False
