"""Metrics of the service for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_NO_ROUTE = "none"


class Metrics:
    """Counters of one service in their own registry, with the memory and CPU time of the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("pcae_requests", "Requests answered", ("route", "status"), registry=self.registry)
        self.seconds = Histogram(
            "pcae_request_seconds", "From header to answer", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.batch_images = Histogram(
            "pcae_batch_images", "Pictures computed together", buckets=_IMAGES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "pcae_batch_seconds", "Time to compute a batch", buckets=_SECONDS, registry=self.registry
        )
        self.queue_images = Gauge("pcae_queue_images", "Pictures that wait", registry=self.registry)
        self.open_requests = Gauge("pcae_open_requests", "Requests for inference underway", registry=self.registry)

    def watch_queue(self, images_waiting: Callable[[], int]) -> None:
        """Register the function that gives the queue's length whenever the metrics are read."""
        self.queue_images.set_function(images_waiting)

    def record_batch(self, images: int, seconds: float) -> None:
        """Count one batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts and times HTTP requests by route, not by path, which clients could make up."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - start)
