"""The right answer to a request, told later: what live quality and the next round of learning are made of."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penjing.serve.asked import refuse_unreadable
from penjing.serve.guard import needs
from penjing.serve.replies import FAULTS, answer
from penjing.serve.traffic import Traffic


class Word(BaseModel):
    """What would have been right. `id`: of the answer; of one among several `ID.0`, `ID.1` …"""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(min_length=1, max_length=100)]
    truth: Annotated[Any, Field(description="a label, a list of labels, or what else the task answers")]


def router(traffic: Traffic) -> APIRouter:
    """The route of a service that keeps its traffic."""
    routes = APIRouter(tags=["feedback"])

    @routes.post("/v1/feedback", responses=FAULTS)
    @needs("feedback")
    async def feedback(word: Word, request: Request) -> Response:
        """Keep it; the latest word on a request counts."""
        refuse_unreadable(word.truth, "`truth`")
        await asyncio.to_thread(traffic.feedback, word.id, word.truth, by=request.state.caller.id)
        return answer({"id": word.id, "kept": True})

    return routes
