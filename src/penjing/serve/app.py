"""The application: routes behind one guard. ASGI, so any server of such runs it; `jobs/serve.py` takes
uvicorn."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Response

from penjing.serve import admin, open_inference, openai, page, predict
from penjing.serve.guard import Guard, needs
from penjing.serve.keyring import Keyring
from penjing.serve.replies import answer, install
from penjing.serve.service import Service


def create(
    service: Service,
    *,
    keyring: Keyring | None = None,
    names: Sequence[str] = (),
    routers: Sequence[APIRouter] = (),
    body: int = 2 << 20,
    stop_s: float = 30.0,
) -> FastAPI:
    """The application of a service. names: models opened before it is ready. routers: more routes; each
    endpoint says by `guard.needs` who may ask it, or nobody may. body: bytes of a request at most.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start(names)
        try:
            yield
        finally:
            await service.stop(within_s=stop_s)

    app = FastAPI(
        title="Penjing",
        version=version("penjing"),
        summary="Tuned models behind one service.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    own = [part.router(service) for part in (predict, openai, open_inference, admin, page)]
    for router in (
        *own,
        *routers,
    ):  # flat, so that the guard sees every route: newer FastAPIs nest included routers
        app.router.routes.extend(router.routes)
    install(app, service)

    @app.get("/openapi.json", include_in_schema=False)
    @needs("infer")
    async def openapi() -> Response:
        """This service, described."""
        return answer(described(app, keys=keyring is not None))

    app.state.service = service
    app.add_middleware(Guard, routes=app, service=service, keyring=keyring, body=body)
    return app


def described(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The OpenAPI document, with the bearer key where keys are asked for."""
    document = app.openapi()
    if keys:
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer"}
        document["security"] = [{"key": []}]
    return document
