"""A page to try each model in a browser. It loads nothing from anywhere else."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from penjing.serve.guard import needs
from penjing.serve.service import Service

HERE = Path(__file__).parent / "page"


def router(service: Service) -> APIRouter:
    """The page and its script. They are open to all, as they hold nothing; what they ask needs a key."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    @needs(None)
    async def page() -> Response:
        """The page."""
        return Response((HERE / "try.html").read_bytes(), media_type="text/html; charset=utf-8")

    @routes.get("/page.js")
    @needs(None)
    async def script() -> Response:
        """Its script."""
        return Response((HERE / "try.js").read_bytes(), media_type="text/javascript; charset=utf-8")

    return routes
