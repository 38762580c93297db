"""Settings of the service: its address, its batches, and the limits on requests."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pcae_core.errors import ConfigError

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Settings:
    """Settings of one service.

    Attributes:
        host: address to listen on. With any address but loopback, other machines can connect.
        port: port to listen on; 0 picks a free port.
        max_batch: largest number of images in a batch, and in a request.
        max_wait_ms: milliseconds that the first image of a batch waits for others.
        queue: largest number of images that may wait. Further requests get status 503.
        max_body_mb: largest size of a request's body, decompressed, in megabytes.
        max_pixels: largest number of pixels of an image, according to its header.
        read_timeout: seconds that a request's header may take to arrive, and its body as well.
        allow_origin: origin of web pages that may send requests, such as https://example.com. Other origins may not.
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
        """Raise ConfigError if a setting is out of range. The text names the first."""
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
