"""Read the bodies of requests, with limits on size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from pcae_onnx.serving.binary import LENGTH_HEADER
from pcae_onnx.serving.encodings import Unpacker
from pcae_onnx.serving.settings import Settings

GONE = 499
"""Status of a request whose client has disconnected, as in nginx. No one reads the answer."""
_IN_MEMORY = 16
"""Number of bodies of the largest size that may arrive at the same time."""
_DIGITS = 20
_FORM = "the form must hold one file and nothing else; keep and topk go into the address, as in /predict?keep=0.7"


class Arrivals:
    """Bodies that are arriving, each within `read_timeout`. Together they are at most sixteen times the largest size.

    Above that limit, the largest body is dropped. So many slow clients with small bodies cannot block others.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parts: dict[asyncio.Timeout, bytearray] = {}
        self._held = 0

    async def read(self, chunks: AsyncIterable[bytes], unpacker: Unpacker) -> bytes:
        """The whole body, unpacked.

        Raises:
            TimeoutError: the body arrived too slowly, or was dropped for others.
            HTTPException: 413 for more than `max_body` bytes, before or after unpacking; others as `unpacker`.
        """
        async with asyncio.timeout(self._settings.read_timeout) as limit:
            body, arrived = bytearray(), 0
            self._parts[limit] = body
            try:
                async for chunk in chunks:
                    arrived += len(chunk)
                    for piece in unpacker.pieces(chunk):
                        self._add(limit, body, piece)
                        if max(arrived, len(body)) > self._settings.max_body:
                            raise too_large(self._settings, unpacker.packed)
                        self._make_room()
                        if unpacker.packed:
                            await asyncio.sleep(0)  # a small chunk may unpack to a large one: let others run
                self._add(limit, body, unpacker.end())
            finally:
                self._forget(limit)
        return bytes(body)

    def _add(self, limit: asyncio.Timeout, body: bytearray, piece: bytes) -> None:
        body += piece
        if limit in self._parts:
            self._held += len(piece)

    def _make_room(self) -> None:
        if self._held > _IN_MEMORY * self._settings.max_body:
            largest = max(self._parts, key=lambda limit: len(self._parts[limit]))
            self._forget(largest)
            largest.reschedule(asyncio.get_running_loop().time())

    def _forget(self, limit: asyncio.Timeout) -> None:
        self._held -= len(self._parts.pop(limit, b""))


def too_large(settings: Settings, packed: bool = False) -> HTTPException:
    """The error for a body above `max_body`."""
    unpacked = ", or is so once it is unpacked" if packed else ""
    return HTTPException(413, f"the body is larger than {settings.max_body_mb:g} MB{unpacked}")


async def read(request: Request, settings: Settings, arrivals: Arrivals) -> bytes:
    """The whole body, unpacked. Its Content-Length is used only to refuse a body that is too large.

    Raises:
        HTTPException: 413 above `max_body`, 408 after `read_timeout` or when dropped for others, `GONE` when the client
            has disconnected, 415 and 400 as `Unpacker`.
    """
    unpacker = Unpacker(request.headers.get("content-encoding", ""))
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > settings.max_body:
        raise too_large(settings)
    try:
        return await arrivals.read(request.stream(), unpacker)
    except TimeoutError:
        message = f"the body did not arrive in time, which is {settings.read_timeout:g} s, or others needed its room"
        raise HTTPException(408, message, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(GONE, "the client has gone") from None


async def read_tensors(request: Request, settings: Settings, arrivals: Arrivals) -> tuple[bytes, int | None]:
    """A body of JSON, perhaps with binary tensors, and the length of its JSON; None if all of it is JSON.

    A missing Content-Type is accepted: `origins.check` has refused foreign web pages before.

    Raises:
        HTTPException: 400 for another Content-Type, and as `read`.
    """
    media_type, length = _media_type(request), request.headers.get(LENGTH_HEADER)
    if media_type not in ("", "application/json", "application/octet-stream"):
        raise _wrong_type(f"application/json, or application/octet-stream with {LENGTH_HEADER}", media_type)
    if length is None and media_type == "application/octet-stream":
        raise HTTPException(400, f"binary tensors come after JSON, whose length the header {LENGTH_HEADER} gives")
    if length is not None and not (length.isascii() and length.isdecimal() and len(length) < _DIGITS):
        raise HTTPException(400, f"{LENGTH_HEADER} must be a number of bytes, not {length!r}")
    return await read(request, settings, arrivals), None if length is None else int(length)


async def read_picture(request: Request, settings: Settings, arrivals: Arrivals) -> bytes:
    """An image file: the body, or the one file of a multipart form. Raises HTTPException: 400, and as `read`."""
    media_type = _media_type(request)
    if media_type != "multipart/form-data":
        if not media_type.startswith("image/") and media_type not in ("", "application/octet-stream"):
            raise _wrong_type("an image's, application/octet-stream or multipart/form-data", media_type)
        return await read(request, settings, arrivals)
    body = await read(request, settings, arrivals)

    async def replay() -> Message:
        return {"type": "http.request", "body": body}

    try:
        async with Request(request.scope, replay).form(max_files=1, max_fields=0) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
    except StarletteHTTPException as error:
        raise HTTPException(400, f"{_FORM}: {error.detail}") from None
    raise HTTPException(400, f"{_FORM}: it holds no file")


def _wrong_type(known: str, media_type: str) -> HTTPException:
    return HTTPException(400, f"the Content-Type must be {known}, not {media_type!r}")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
