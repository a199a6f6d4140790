"""Our own routes: any task's answers, what is there, and whether the service is well."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penjing.serve.explain import explained, spans_of
from penjing.serve.guard import needs
from penjing.serve.opened import said_of
from penjing.serve.registry import LIVE
from penjing.serve.replies import FAULTS, answer, failure, named, while_there
from penjing.serve.service import Service

MOST = 4096  # inputs in one request, whatever the service is set to


class About(BaseModel):
    """Who answered: the model, its version, and the SHA-256 of the bundle's card."""

    name: str
    version: int
    sha256: str


class Question(BaseModel):
    """Texts, or what else the model's task takes: one, or a list."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["support", "support@3"])]
    inputs: Annotated[
        str | dict[str, Any] | list[Any], Field(examples=["My card was charged twice.", ["one", "two"]])
    ]
    scores: Annotated[bool, Field(description="those of every label, too")] = False
    explain: Annotated[bool, Field(description="how much each word did for the label, too")] = False
    within_s: Annotated[float | None, Field(gt=0, le=600, description="deadline in seconds")] = None


class Answers(BaseModel):
    """One answer an input, in their order."""

    id: str
    model: str
    bundle: About
    task: str
    answers: list[Any]
    tokens: int


class Listed(BaseModel):
    """A version of a model. `task` and more are told once it is open."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str = "model"
    created: int
    owned_by: str = "penjing"
    name: str
    version: int
    sha256: str
    live: bool
    open: bool


class Models(BaseModel):
    """Every version of every model."""

    object: str = "list"
    data: list[Listed]


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.post("/v1/predict", response_model=Answers, responses=FAULTS, tags=["predict"])
    @needs("infer")
    async def predict(question: Question, request: Request) -> Response:
        """Answers of a model to one input or many, whatever its task."""
        inputs = question.inputs if isinstance(question.inputs, list) else [question.inputs]
        spans = spans_of(inputs, most=service.most_inputs) if question.explain else []
        about = {"caller": request.state.caller, "within_s": question.within_s}
        asking = service.ask(question.model, "predict", inputs, **about)
        reply = await while_there(request, asking)
        found, n_tokens = reply.answers, reply.n_tokens
        if question.explain:
            found, more = await while_there(request, explained(service, reply, inputs, spans, **about))
            n_tokens += more
        answers = found if question.scores else [_short(one) for one in found]
        content = {
            "id": reply.id,
            "model": question.model,
            "bundle": reply.opened.about,
            "task": reply.opened.bundle.task.name,
            "answers": answers,
            "tokens": n_tokens,
        }
        return answer(content, headers=named(reply))

    @routes.get("/v1/models", response_model=Models, responses=FAULTS, tags=["models"])
    @needs("infer")
    async def models(request: Request) -> Response:
        """Every version of every model that the key may ask; the live one by its name alone, too."""
        may = request.state.caller.may_ask
        found = []
        for version, opened, route in await asyncio.to_thread(service.models.listed):
            if may(version.name):
                live = route.aliases.get(LIVE) == version.number
                about = {
                    "id": version.name if live else str(version),
                    "object": "model",
                    "created": int(version.added),
                    "owned_by": "penjing",
                    "name": version.name,
                    "version": version.number,
                    "sha256": version.sha256,
                    "live": live,
                    "open": opened is not None,
                }
                found.append(about | (said_of(opened) if opened else {}))
        return answer({"object": "list", "data": found})

    @routes.get("/v1/models/{model}", response_model=Listed, responses=FAULTS, tags=["models"])
    @needs("infer")
    async def model(model: str, request: Request) -> Response:
        """One model, opened where it is not."""
        chosen, opened = await service.found(model, request.state.caller)
        version, route = chosen.version, service.models.route(chosen.version.name)
        return answer(
            {
                "id": model,
                "object": "model",
                "created": int(version.added),
                "owned_by": "penjing",
                **opened.about,
                "live": route.live == version.number,
                "open": True,
                **said_of(opened),
            }
        )

    @routes.get("/healthz", tags=["health"])
    @needs(None)
    async def healthz() -> Response:
        """The process is there."""
        return answer({"alive": True})

    @routes.get("/readyz", tags=["health"], responses={503: FAULTS[503]})
    @needs(None)
    async def readyz() -> Response:
        """Requests are taken."""
        return answer({"ready": True}) if service.ready else failure(503, "unavailable", "Not ready.")

    @routes.get("/metrics", tags=["health"], responses={200: {"content": {"text/plain": {}}}, **FAULTS})
    @needs("metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(await service.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _short(one: Any) -> Any:
    return {key: value for key, value in one.items() if key != "scores"} if isinstance(one, dict) else one
