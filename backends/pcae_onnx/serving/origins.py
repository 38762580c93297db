"""Refuse requests of foreign web pages. Browsers send them even to services that only this machine can reach."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.cors import CORSMiddleware

from pcae_onnx.serving.binary import LENGTH_HEADER
from pcae_onnx.serving.routes import service_of

_SAFE = ("GET", "HEAD", "OPTIONS")


async def check(request: Request) -> None:
    """Refuse a web page of another origin that `allow_origin` does not name. Other clients send no origin.

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
    if site is not None:  # browsers send this header to https and to localhost, and no page can change it
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def allow(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Allow web pages of these origins to send requests and read the answers (CORS)."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=(LENGTH_HEADER, "Content-Encoding"),
            expose_headers=(LENGTH_HEADER, "Retry-After"),
        )
