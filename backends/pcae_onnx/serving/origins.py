"""Web pages: browsers send what any page asks for, also to services that only this machine or network reaches."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.cors import CORSMiddleware

from pcae_onnx.serving.binary import LENGTH_HEADER
from pcae_onnx.serving.routes import service_of

_SAFE = ("GET", "HEAD", "OPTIONS")


async def check(request: Request) -> None:
    """Refuse a page of another origin that `allow_origin` does not name. Other clients say nothing of origins.

    Raises:
        HTTPException: 403.
    """
    if request.method not in _SAFE and not _may_ask(request):
        raise HTTPException(
            403, "a web page of another origin may not ask this service, unless --allow-origin names it"
        )


def _may_ask(request: Request) -> bool:
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if (origin is None and site is None) or origin in service_of(request).settings.allow_origin:
        return True
    if site is not None:  # browsers send it to https and to this machine; no page can change it
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def allow(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Tell browsers that pages of these origins may ask, and may read the answers (CORS)."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=(LENGTH_HEADER, "Content-Encoding"),
            expose_headers=(LENGTH_HEADER, "Retry-After"),
        )
