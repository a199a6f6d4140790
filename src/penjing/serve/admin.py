"""Routes for whoever runs the service: promote, roll back, canary, shadow, open, put away. All need
`admin`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penjing.serve import registry
from penjing.serve.guard import needs
from penjing.serve.replies import FAULTS, answer
from penjing.serve.service import Service


class Turn(BaseModel):
    """An alias and the version that it is to point at."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1)]
    alias: Annotated[str, Field(min_length=1, max_length=64)] = "live"


class Part(BaseModel):
    """A share of the live traffic for a version; 0 ends it."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(ge=0, le=1)]


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/admin/models/{model}", tags=["admin"])
    models = service.models

    async def turned(request: Request, model: str, what: str, route: registry.Route | None) -> Response:
        """Follow the change at once, and say where things stand."""
        about = {"model": model, "what": what, "key": request.state.caller.id}
        service.audit.note("admin", about)
        await asyncio.to_thread(models.follow)
        wanted = route or registry.read_route(models.root, model)
        forced = models.route(model)
        return answer({"model": model, "wanted": asdict(wanted), "in_force": asdict(forced)})

    @routes.get("/route", responses=FAULTS)
    @needs("admin")
    async def route(model: str, request: Request) -> Response:
        """Where the model's requests go, and where they went before."""
        models.choose(model)
        return await turned(request, model, "looked", None)

    @routes.post("/promote", responses=FAULTS)
    @needs("admin")
    async def promote(model: str, turn: Turn, request: Request) -> Response:
        """Let an alias point at a version; in force once that is open and has given its golden answers."""
        models.choose(model)
        found = await asyncio.to_thread(
            lambda: registry.point(models.root, model, turn.version, alias=turn.alias)
        )
        return await turned(request, model, f"{turn.alias} to {turn.version}", found)

    @routes.post("/roll_back", responses=FAULTS)
    @needs("admin")
    async def roll_back(model: str, request: Request) -> Response:
        """Return to what was live before."""
        models.choose(model)
        found = await asyncio.to_thread(registry.roll_back, models.root, model)
        return await turned(request, model, f"rolled back to {found.live}", found)

    @routes.post("/{kind}", responses=FAULTS)
    @needs("admin")
    async def share(model: str, kind: Literal["canary", "shadow"], part: Part, request: Request) -> Response:
        """Send a share of the live traffic to a version instead (canary) or too (shadow)."""
        models.choose(model)
        number = part.version if part.share else None
        found = await asyncio.to_thread(registry.share, models.root, model, kind, number, part.share)
        return await turned(request, model, f"{kind} {part.version} {part.share:g}", found)

    @routes.post("/versions/{version}/open", responses=FAULTS)
    @needs("admin")
    async def open_version(model: str, version: int, request: Request) -> Response:
        """Open a version, also one that was refused before."""
        chosen = models.choose(f"{model}@{version}").version
        models.forgive(chosen)
        opened = await asyncio.to_thread(models.open, chosen)
        service.audit.note("admin", {"model": str(chosen), "what": "open", "key": request.state.caller.id})
        return answer({"open": True, **opened.about})

    @routes.delete("/versions/{version}/open", responses=FAULTS)
    @needs("admin")
    async def close_version(model: str, version: int, request: Request) -> Response:
        """Put a version away; the next request opens it again."""
        chosen = models.choose(f"{model}@{version}").version
        closed = await asyncio.to_thread(models.close, chosen)
        service.audit.note("admin", {"model": str(chosen), "what": "close", "key": request.state.caller.id})
        return answer({"open": False, "was_open": closed})

    return routes
