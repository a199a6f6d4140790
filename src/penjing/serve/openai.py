"""Routes in OpenAI's shapes, so that clients made for it work unchanged: embeddings, completions, chat.

What a client asks and this service cannot do is refused, never passed over.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.responses import StreamingResponse

from penjing.errors import DataError, NotSupported, PenjingError
from penjing.models.generate import Prompts, Said
from penjing.serve.asked import Caller, refuse_unreadable
from penjing.serve.guard import needs
from penjing.serve.idle import without_idle
from penjing.serve.opened import Opened
from penjing.serve.predict import About
from penjing.serve.replies import FAULTS, answer, named, of_error, while_there
from penjing.serve.service import Reply, Service
from penjing.serve.speaking import Wish, formed, prompts_to_answer, prompts_to_go_on, wished

Name = Annotated[str, Field(min_length=1, max_length=200)]
Tokens = Annotated[int | None, Field(ge=1, le=8192)]
Temperature = Annotated[
    float | None, Field(ge=0, le=2, description="0: the likeliest word; none: as the bundle does")
]
Share = Annotated[float | None, Field(gt=0, le=1)]
Ends = str | Annotated[list[str], Field(max_length=4)] | None
One = Annotated[int, Field(ge=1, le=1)]


def _only(given: Any) -> Any:
    """The one prompt of a list of one."""
    return given[0] if isinstance(given, list) and len(given) == 1 else given


class Embed(BaseModel):
    """Texts to make vectors of."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class Complete(BaseModel):
    """A text to go on from; what bundles of `summarize` and the like make of a text."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    prompt: Annotated[str, BeforeValidator(_only)]
    max_tokens: Tokens = None
    temperature: Temperature = None
    top_p: Share = None
    seed: int | None = None
    stop: Ends = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: One = 1
    user: str | None = None

    _without_idle = model_validator(mode="before")(without_idle)


class Piece(BaseModel):
    """Part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """What somebody said."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]  # developer: OpenAI's newer word for system
    content: str | list[Piece]


class Shape(BaseModel):
    """A JSON schema by a name; answers have it whether `strict` is said or not."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    description: str | None = None


class Format(BaseModel):
    """The form of an answer: any text, any JSON object, or one of a schema."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Shape | None = None

    def form(self) -> dict[str, Any] | None:
        """As `Bundle.formed` takes it; None of any text."""
        if self.type == "json_schema" and self.json_schema is None:
            raise DataError("`response_format.json_schema` was wanted beside the type json_schema. Give it.")
        if self.type == "text":
            return None
        schema = {"type": "object"} if self.json_schema is None else self.json_schema.schema_
        return {"schema": schema}


class Chat(BaseModel):
    """A conversation that ends with what the user says."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    response_format: Format | None = None
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    temperature: Temperature = None
    top_p: Share = None
    seed: int | None = None
    stop: Ends = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: One = 1
    user: str | None = None

    _without_idle = model_validator(mode="before")(without_idle)


class Usage(BaseModel):
    """Tokens read and said."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class Vector(BaseModel):
    """One text's vector, of length one; as base64 of its 32-bit floats, little end first, where asked."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class Vectors(BaseModel):
    """Vectors, in the texts' order."""

    object: str = "list"
    data: list[Vector]
    model: str
    usage: Usage
    bundle: About


class Completed(BaseModel):
    """A text, or a reply (`object` says which)."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
    bundle: About


STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "with `stream`: chunks, then `data: [DONE]`"}
}


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.post("/v1/embeddings", response_model=Vectors, responses=FAULTS)
    @needs("infer")
    async def embeddings(body: Embed, request: Request) -> Response:
        """Vectors of texts, by a bundle whose head makes them."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        asking = service.ask(body.model, "embed", texts, caller=request.state.caller)
        reply = await while_there(request, asking)
        data = [
            {"object": "embedding", "index": i, "embedding": _written(vector, body.encoding_format)}
            for i, vector in enumerate(reply.answers)
        ]
        usage = {"prompt_tokens": reply.n_tokens, "total_tokens": reply.n_tokens}
        about = {"model": body.model, "usage": usage, "bundle": reply.opened.about}
        return answer({"object": "list", "data": data, **about}, headers=named(reply))

    @routes.post("/v1/completions", response_model=Completed, responses=FAULTS | STREAMED)
    @needs("infer")
    async def completions(body: Complete, request: Request) -> Response:
        """Go on from a text."""
        ask = lambda opened: prompts_to_go_on(opened.bundle, body.prompt)  # noqa: E731
        return await _said(service, body, ask, body.prompt, request)

    @routes.post("/v1/chat/completions", response_model=Completed, responses=FAULTS | STREAMED)
    @needs("infer")
    async def chat(body: Chat, request: Request) -> Response:
        """Reply to a conversation."""
        messages = [
            {"role": "system" if one.role == "developer" else one.role, "content": _text(one)}
            for one in body.messages
        ]

        def ask(opened: Opened) -> Prompts:
            if opened.bundle.task.name not in ("chat", "prefer"):
                raise NotSupported(
                    f"Replies were wanted; `{opened.version.name}` is a bundle of "
                    f"`{opened.bundle.task.name}`. Ask a "
                    "bundle of `chat`, or use /v1/predict or /v1/completions."
                )
            return prompts_to_answer(opened.bundle, [{"messages": messages}])

        return await _said(service, body, ask, {"messages": messages}, request)

    return routes


async def _said(
    service: Service,
    body: Complete | Chat,
    ask: Callable[[Opened], Prompts],
    asked: Any,
    request: Request,
) -> Response:
    """A text whole, or in chunks as it grows."""
    caller: Caller = request.state.caller
    at, began = time.time(), time.perf_counter()
    chosen, opened = await service.found(body.model, caller)
    ends = _ends(body)
    refuse_unreadable(asked, "the prompt" if isinstance(body, Complete) else "the messages")
    refuse_unreadable(ends, "`stop`")
    if any(not end for end in ends):
        raise DataError("`stop` must be texts of a character or more; one is empty. Leave it out.")
    form = body.response_format.form() if isinstance(body, Chat) and body.response_format else None
    made = await asyncio.to_thread(lambda: formed(ask(opened), opened.bundle, form))
    prompts = wished(made, _wish(body))
    number = f"{'chatcmpl' if isinstance(body, Chat) else 'cmpl'}-{secrets.token_hex(12)}"
    pieces = service.heard(opened, prompts, caller=caller, ends=ends)
    # Whatever refuses the text does so before the answer begins.
    first = await while_there(request, anext(pieces))

    async def finished(text: str, said: Said) -> Reply:
        spent = time.perf_counter() - began
        n_tokens = len(prompts.rows[0]) + len(said.ids)
        found = [{"text": text, "ended": _why(said, prompts, ends) == "stop"}]
        reply = Reply(number, opened, chosen.way, found, n_tokens, 0.0, spent)
        return await service.noted(
            reply, "chat" if isinstance(body, Chat) else "complete", [asked], caller, at
        )

    shape = {"id": number, "created": int(at), "model": body.model, "bundle": opened.about}
    if body.stream:
        chunks = _chunks(service, body, shape, first, pieces, prompts, finished)
        about = named(Reply(number, opened, chosen.way, [], 0, 0.0, 0.0))
        return StreamingResponse(chunks, media_type="text/event-stream", headers=about)
    every = [first, *await while_there(request, _rest(pieces))]
    said = every[-1][1]
    assert said is not None
    text, why = "".join(piece for piece, _ in every), _why(said, prompts, ends)
    reply = await finished(text, said)
    own = {"message": {"role": "assistant", "content": text}} if isinstance(body, Chat) else {"text": text}
    choice = {"index": 0, **own, "finish_reason": why, "logprobs": None}
    kind = "chat.completion" if isinstance(body, Chat) else "text_completion"
    content = {"object": kind, **shape, "choices": [choice], "usage": _usage(prompts, said)}
    return answer(content, headers=named(reply))


async def _rest(pieces: AsyncGenerator[tuple[str, Said | None], None]) -> list[tuple[str, Said | None]]:
    async with contextlib.aclosing(pieces):
        return [piece async for piece in pieces]


async def _chunks(
    service: Service,
    body: Complete | Chat,
    shape: dict[str, Any],
    first: tuple[str, Said | None],
    pieces: AsyncGenerator[tuple[str, Said | None], None],
    prompts: Prompts,
    finished: Callable[[str, Said], Any],
) -> AsyncIterator[str]:
    """Server-sent events: a chunk a piece, the reason why it ended, `[DONE]`."""
    chat = isinstance(body, Chat)
    shape = {"object": "chat.completion.chunk" if chat else "text_completion", **shape}

    def chunk(piece: str | None, why: str | None, **more: Any) -> str:
        own: dict[str, Any] = (
            {"delta": {} if piece is None else {"content": piece}} if chat else {"text": piece or ""}
        )
        choice = {"index": 0, **own, "finish_reason": why, "logprobs": None}
        return _event({**shape, "choices": [choice], **more})

    if chat:
        opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield _event({**shape, "choices": [opening]})
    parts: list[str] = []
    said: Said | None = None
    try:
        async with contextlib.aclosing(pieces):  # a client that goes ends its text
            piece, said = first
            while True:
                if piece:
                    parts.append(piece)
                    yield chunk(piece, None)
                if said is not None:
                    break
                piece, said = await anext(pieces)
        assert said is not None
        await finished("".join(parts), said)
        yield chunk(None, _why(said, prompts, _ends(body)))
        if body.stream_options is not None and body.stream_options.include_usage:
            yield _event({**shape, "choices": [], "usage": _usage(prompts, said)})
    except PenjingError as error:  # the answer has begun, so the fault is an event
        yield f"data: {bytes(of_error(service, error).body).decode()}\n\n"
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _why(said: Said, prompts: Prompts, ends: list[str]) -> str:
    """`stop`: by a stop token, or by one of the caller's ends; else `length`: the room was used up, that of
    the answer or the base's."""
    stopped = said.ended or any(end in prompts.text(said.ids) for end in ends)
    return "stop" if stopped else "length"


def _ends(body: Complete | Chat) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else body.stop or []


def _wish(body: Complete | Chat) -> Wish:
    most = body.max_tokens
    if isinstance(body, Chat) and body.max_completion_tokens is not None:
        most = body.max_completion_tokens
    return Wish(most, body.temperature, body.top_p, None if body.seed is None else abs(body.seed))


def _usage(prompts: Prompts, said: Said) -> dict[str, int]:
    read, n_said = len(prompts.rows[0]), len(said.ids)
    return {"prompt_tokens": read, "completion_tokens": n_said, "total_tokens": read + n_said}


def _text(one: Message) -> str:
    return one.content if isinstance(one.content, str) else "".join(piece.text for piece in one.content)


def _written(vector: np.ndarray, form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(x) for x in vector]
