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
_IN_MEMORY = 16
"""Bodies of the largest size that may be arriving at one time."""


class Arrivals:
    """Bodies that are arriving: each within `read_timeout`, all together no larger than sixteen of the largest.

    Beyond, the largest makes room: many slow clients take little, and keep nobody out.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parts: dict[asyncio.Timeout, bytearray] = {}
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """The whole body. Raises TimeoutError, also when the body had to make room, or HTTPException: 413."""
        async with asyncio.timeout(self._settings.read_timeout) as limit:
            body = self._parts[limit] = bytearray()
            try:
                async for chunk in request.stream():
                    body += chunk
                    if limit in self._parts:
                        self._held += len(chunk)
                    if len(body) > self._settings.max_body:
                        raise too_large(self._settings)
                    self._make_room()
            finally:
                self._forget(limit)
        return bytes(body)

    def _make_room(self) -> None:
        if self._held > _IN_MEMORY * self._settings.max_body:
            largest = max(self._parts, key=lambda limit: len(self._parts[limit]))
            self._forget(largest)
            largest.reschedule(asyncio.get_running_loop().time())

    def _forget(self, limit: asyncio.Timeout) -> None:
        self._held -= len(self._parts.pop(limit, b""))


def too_large(settings: Settings) -> HTTPException:
    """The answer to a body above `max_body`."""
    return HTTPException(413, f"the body is larger than {settings.max_body_mb:g} MB")


async def read(request: Request, settings: Settings, arrivals: Arrivals) -> bytes:
    """The whole body; what its header says of its length is believed only where it is too much.

    Raises:
        HTTPException: 413 above `max_body`, 408 after `read_timeout` or as `Arrivals` says, `GONE`.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > settings.max_body:
        raise too_large(settings)
    try:
        return await arrivals.read(request)
    except TimeoutError:
        message = f"the body did not arrive in time, which is {settings.read_timeout:g} s, or others needed its room"
        raise HTTPException(408, message, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(GONE, "the client has gone") from None


async def read_json(request: Request, settings: Settings, arrivals: Arrivals) -> bytes:
    """A body that says it is JSON. Raises HTTPException: 400 where it does not, and as `read`."""
    if _media_type(request) != "application/json":
        raise HTTPException(400, "the Content-Type must be application/json")
    if "inference-header-content-length" in request.headers:
        raise HTTPException(400, "binary tensors are not supported; send them as JSON")
    return await read(request, settings, arrivals)


async def read_picture(request: Request, settings: Settings, arrivals: Arrivals) -> bytes:
    """An image file: the body, or the one file of a multipart form. Raises HTTPException: 400, and as `read`."""
    media_type = _media_type(request)
    if media_type != "multipart/form-data":
        if not media_type.startswith("image/") and media_type != "application/octet-stream":
            raise HTTPException(
                400, "the Content-Type must be an image's, application/octet-stream or multipart/form-data"
            )
        return await read(request, settings, arrivals)
    body = await read(request, settings, arrivals)

    async def replay() -> Message:
        return {"type": "http.request", "body": body}

    async with Request(request.scope, replay).form(max_files=1, max_fields=0) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "the form holds no file")
        return await files[0].read()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
