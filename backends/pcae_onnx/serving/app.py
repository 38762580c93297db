"""The ASGI application: routes, and errors as one short line of JSON."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import pcae_core
from pcae_core.errors import PcaeError
from pcae_onnx.serving import origins, pictures, routes
from pcae_onnx.serving.metrics import Measured
from pcae_onnx.serving.service import Service
from pcae_onnx.serving.settings import Settings
from pcae_onnx.session import InferenceSession

_LONGEST = 300


def create_app(session: InferenceSession, settings: Settings) -> FastAPI:
    """The service as an ASGI application.

    Raises:
        ConfigError: a setting is out of range.
    """
    service = Service(session, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # FastAPI's documentation pages would fetch scripts from other servers
    app = FastAPI(
        title="PCAE",
        version=pcae_core.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(origins.check)],
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(pictures.router)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(PcaeError, _refused)
    app.add_exception_handler(Exception, _failed)
    origins.allow(app, settings.allow_origin)
    app.add_middleware(Measured, metrics=service.metrics)
    return app


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # nosec B101 # registered for it alone; tells mypy
    return _line(error.status_code, str(error.detail), dict(error.headers or {}))


def _wrong_query(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # nosec B101 # as above
    return _line(400, "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()))


def _refused(request: Request, error: Exception) -> JSONResponse:
    return _line(400, str(error))


def _failed(request: Request, error: Exception) -> JSONResponse:
    return _line(500, "the service failed on this request; its log tells why")


def _line(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    text = " ".join(message.split())
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return JSONResponse({"error": shown}, status, headers)
