"""How the service listens, batches and bounds what a client may ask of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pcae_core.errors import ConfigError

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Settings:
    """Of one service.

    Attributes:
        host: address to listen on; anything but loopback lets other machines in.
        port: 0 takes a free one.
        max_batch: pictures computed together at most, and pictures in one request.
        max_wait_ms: how long the first picture of a batch waits for others.
        queue: pictures that may wait; beyond, the answer is 503.
        max_body_mb: megabytes of one request's body, once it is unpacked.
        max_pixels: of one picture, before it is decoded.
        read_timeout: seconds for one request's header, and for its body, to arrive.
        allow_origin: a web page's origin, such as https://example.com, whose scripts may ask; pages of others may not.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 16
    max_wait_ms: float = 5.0
    queue: int = 64
    max_body_mb: float = 16.0
    max_pixels: int = 25_000_000
    read_timeout: float = 20.0
    allow_origin: tuple[str, ...] = ()

    @property
    def max_body(self) -> int:
        """Bytes of one request's body."""
        return int(self.max_body_mb * 1e6)

    @property
    def max_requests(self) -> int:
        """Requests that are read, waiting or computed at one time."""
        return self.queue + self.max_batch

    def check(self) -> None:
        """Raises ConfigError, naming the first setting that is out of range."""
        ranges: dict[str, tuple[float, float]] = {
            "port": (0, 65_535),
            "max_batch": (1, 4096),
            "max_wait_ms": (0, 10_000),
            "queue": (self.max_batch, 100_000),
            "max_body_mb": (0.001, 4096),
            "max_pixels": (1, 10**9),
            "read_timeout": (0.1, 3600),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                why = " (--max-batch)" if name == "queue" and value < low else ""
                raise ConfigError(f"--{name.replace('_', '-')} must be from {low:g}{why} to {high:g}, not {value:g}")
        for origin in self.allow_origin:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    "--allow-origin must be as browsers send it, in lower case and without a path, such as "
                    f"https://example.com or http://localhost:3000, not {origin!r}"
                )
