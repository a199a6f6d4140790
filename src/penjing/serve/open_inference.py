"""The Open Inference Protocol, version 2, as KServe and Triton speak it: one input tensor of BYTES, a text an
element (JSON of whatever the task takes), one output tensor of BYTES, JSON of an answer an element."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from penjing.errors import DataError
from penjing.serve.guard import needs
from penjing.serve.replies import FAULTS, answer, failure, named, while_there
from penjing.serve.service import Service


class Tensor(BaseModel):
    """An input: `shape` [n] or [n, 1], `data` n texts."""

    model_config = ConfigDict(extra="forbid")

    name: str
    shape: list[Annotated[int, Field(ge=0)]]
    datatype: Literal["BYTES"]
    data: list[Any]
    parameters: dict[str, Any] | None = None


class Inference(BaseModel):
    """A request of the protocol."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: list[dict[str, Any]] | None = None
    parameters: dict[str, Any] | None = None


class Inferred(BaseModel):
    """An answer of the protocol."""

    model_name: str
    model_version: str
    id: str
    outputs: list[dict[str, Any]]
    parameters: dict[str, Any]


def router(service: Service) -> APIRouter:
    """The routes, each model's with a version and without."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @routes.get("/health/live")
    @needs(None)
    async def live() -> Response:
        """The process is there."""
        return answer({"live": True})

    @routes.get("/health/ready", responses={503: FAULTS[503]})
    @needs(None)
    async def ready() -> Response:
        """Requests are taken."""
        return answer({"ready": True}) if service.ready else failure(503, "unavailable", "Not ready.")

    @routes.get("", responses=FAULTS)
    @needs("infer")
    async def server() -> Response:
        """What this is."""
        return answer({"name": "penjing", "version": version("penjing"), "extensions": []})

    async def about(model: str, version: str | None, request: Request) -> Response:
        chosen, opened = await service.found(_asked(model, version), request.state.caller)
        known = [str(v.number) for v in service.models.versions(chosen.version.name)]
        tensor = {"datatype": "BYTES", "shape": [-1]}
        return answer(
            {
                "name": chosen.version.name,
                "versions": known,
                "platform": f"penjing_{opened.bundle.task.name}",
                "inputs": [{"name": "input", **tensor}],
                "outputs": [{"name": "answers", **tensor}],
                "parameters": {"sha256": chosen.version.sha256, "version": str(chosen.version.number)},
            }
        )

    async def is_ready(model: str, version: str | None, request: Request) -> Response:
        chosen, _ = await service.found(_asked(model, version), request.state.caller)
        return answer({"name": chosen.version.name, "ready": True})

    async def infer(model: str, version: str | None, body: Inference, request: Request) -> Response:
        tensor = body.inputs[0]
        n = tensor.shape[0] if tensor.shape else 0
        if n != len(tensor.data) or len(tensor.shape) > 2 or tensor.shape[1:] not in ([], [1]):
            raise DataError(
                "`inputs.0.shape` must be [n] or [n, 1] with n elements of data; it is "
                f"{tensor.shape[:5]}, and "
                f"there are {len(tensor.data)}."
            )
        for output in body.outputs or ():
            if output.get("name") != "answers":
                raise DataError(
                    f"`outputs` names {str(output.get('name'))[:60]!r}; the one there is is `answers`. Leave "
                    "it out."
                )
        asking = service.ask(_asked(model, version), "predict", tensor.data, caller=request.state.caller)
        reply = await while_there(request, asking)
        data = [to_json(one, inf_nan_mode="null").decode() for one in reply.answers]
        output = {"name": "answers", "datatype": "BYTES", "shape": [len(data)], "data": data}
        own = reply.opened.version
        content = {
            "model_name": own.name,
            "model_version": str(own.number),
            "id": body.id or reply.id,
            "outputs": [output],
            "parameters": {"content_type": "application/json", "sha256": own.sha256, "id": reply.id},
        }
        return answer(content, headers=named(reply))

    @routes.get("/models/{model}", responses=FAULTS)
    @needs("infer")
    async def model_about(model: str, request: Request) -> Response:
        """What a model takes and gives."""
        return await about(model, None, request)

    @routes.get("/models/{model}/versions/{version}", responses=FAULTS)
    @needs("infer")
    async def version_about(model: str, version: str, request: Request) -> Response:
        """The same of a version."""
        return await about(model, version, request)

    @routes.get("/models/{model}/ready", responses=FAULTS)
    @needs("infer")
    async def model_ready(model: str, request: Request) -> Response:
        """The model is open, or opens now."""
        return await is_ready(model, None, request)

    @routes.get("/models/{model}/versions/{version}/ready", responses=FAULTS)
    @needs("infer")
    async def version_ready(model: str, version: str, request: Request) -> Response:
        """The same of a version."""
        return await is_ready(model, version, request)

    @routes.post("/models/{model}/infer", response_model=Inferred, responses=FAULTS)
    @needs("infer")
    async def model_infer(model: str, body: Inference, request: Request) -> Response:
        """Answers of a model."""
        return await infer(model, None, body, request)

    @routes.post("/models/{model}/versions/{version}/infer", response_model=Inferred, responses=FAULTS)
    @needs("infer")
    async def version_infer(model: str, version: str, body: Inference, request: Request) -> Response:
        """Answers of a version."""
        return await infer(model, version, body, request)

    return routes


def _asked(model: str, version: str | None) -> str:
    return model if version is None else f"{model.partition('@')[0]}@{version}"
