"""Packed bodies (Content-Encoding), unpacked piece by piece while they arrive."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from fastapi import HTTPException

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # as zlib takes them: with the header of gzip, of zlib
_PIECE = 262_144


class Unpacker:
    """Of one body. Pieces are small, so that their receiver can stop long before a body that grows and grows is whole.

    Attributes:
        packed: whether bodies are anything but plain.
    """

    def __init__(self, encoding: str) -> None:
        """Take the value of the header Content-Encoding; "" where there is none.

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
        """What a chunk of the body unpacks to. Raises HTTPException: 400."""
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
        """What is left at the body's end, a few kilobytes at most. Raises HTTPException: 400."""
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
