"""Decompress bodies (Content-Encoding) piece by piece while they arrive."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from fastapi import HTTPException

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's parameter for gzip's header, and for zlib's
_PIECE = 262_144


class Unpacker:
    """Decompressor of one body. Pieces are small, so that the receiver can stop before a body becomes too large.

    Attributes:
        packed: whether the body is compressed.
    """

    def __init__(self, encoding: str) -> None:
        """Prepare for a value of the header Content-Encoding, or "" without the header.

        Raises:
            HTTPException: 415 for an encoding other than gzip and deflate.
        """
        name = encoding.strip().lower()
        self.packed = name not in ("", "identity")
        if not self.packed:
            return
        if name not in _WINDOW_BITS:
            raise HTTPException(
                415, f"the Content-Encoding must be gzip or deflate, not {name!r}", {"Accept-Encoding": "gzip, deflate"}
            )
        self._name, self._zlib = name, zlib.decompressobj(_WINDOW_BITS[name])

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces of a decompressed chunk of the body. Raises HTTPException: 400."""
        if not self.packed:
            yield chunk
            return
        while chunk:
            if self._zlib.eof:
                raise self._wrong("there is more after its end")
            try:
                piece = self._zlib.decompress(chunk, _PIECE)
            except zlib.error:
                raise self._wrong("it is something else, or damaged") from None
            chunk = self._zlib.unconsumed_tail or self._zlib.unused_data
            yield piece

    def end(self) -> bytes:
        """The rest at the end of the body, a few kilobytes at most. Raises HTTPException: 400."""
        if not self.packed:
            return b""
        try:
            rest = self._zlib.flush()
        except zlib.error:
            raise self._wrong("it is something else, or damaged") from None
        if not self._zlib.eof:
            raise self._wrong("its end is missing")
        return rest

    def _wrong(self, reason: str) -> HTTPException:
        return HTTPException(400, f"the body cannot be read as {self._name}, its Content-Encoding: {reason}")
