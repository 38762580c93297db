"""Bodies of requests, bounded in size and time while they arrive."""

from __future__ import annotations

import asyncio

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message

from pcae_onnx.serving.settings import Settings

GONE = 499
"""Status of a request whose client has gone, as nginx counts it; nobody reads the answer."""


async def read(request: Request, settings: Settings) -> bytes:
    """The whole body; what its header says of its length is believed only where it is too much.

    Raises:
        HTTPException: 413 above `max_body`, 408 after `read_timeout`, `GONE`.
    """
    too_large = HTTPException(413, f"the body is larger than {settings.max_body_mb:g} MB")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.read_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_body:
                    raise too_large
    except TimeoutError:
        message = f"the body did not arrive within {settings.read_timeout:g} s"
        raise HTTPException(408, message, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(GONE, "the client has gone") from None
    return bytes(body)


async def read_json(request: Request, settings: Settings) -> bytes:
    """A body that says it is JSON. Raises HTTPException: 400 where it does not, and as `read`."""
    if _media_type(request) != "application/json":
        raise HTTPException(400, "the Content-Type must be application/json")
    if "inference-header-content-length" in request.headers:
        raise HTTPException(400, "binary tensors are not supported; send them as JSON")
    return await read(request, settings)


async def read_picture(request: Request, settings: Settings) -> bytes:
    """An image file: the body, or the one file of a multipart form. Raises HTTPException: 400, and as `read`."""
    media_type = _media_type(request)
    if media_type != "multipart/form-data":
        if not media_type.startswith("image/") and media_type != "application/octet-stream":
            raise HTTPException(
                400, "the Content-Type must be an image's, application/octet-stream or multipart/form-data"
            )
        return await read(request, settings)
    body = await read(request, settings)

    async def replay() -> Message:
        return {"type": "http.request", "body": body}

    async with Request(request.scope, replay).form(max_files=1, max_fields=0) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "the form holds no file")
        return await files[0].read()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
