"""What the routes share: the model, its batches, its limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from numpy.typing import NDArray

from pcae_onnx.serving import bodies
from pcae_onnx.serving.batching import Batcher, OverloadedError
from pcae_onnx.serving.metrics import Metrics
from pcae_onnx.serving.settings import Settings
from pcae_onnx.session import InferenceSession, Outputs

_DECODERS = 2
T = TypeVar("T")


class Service:
    """One model that answers requests.

    Attributes:
        session, settings, metrics: as given, and what has been counted.
        arrivals: the bodies that are being read.
    """

    def __init__(self, session: InferenceSession, settings: Settings) -> None:
        """Start the thread that computes; `close` ends it.

        Raises:
            ConfigError: a setting is out of range.
        """
        settings.check()
        self.session, self.settings, self.metrics = session, settings, Metrics()
        self.arrivals = bodies.Arrivals(settings)
        self._open = 0
        # Few: JSON and pictures take many times their own size while they are read
        self._decoders = ThreadPoolExecutor(_DECODERS, "pcae-decoding")
        self._batcher = Batcher(
            session.run,
            settings.max_batch,
            settings.max_wait_ms / 1000,
            settings.queue,
            self.metrics.record_batch,
        )
        self.metrics.watch_queue(lambda: self._batcher.images_waiting)

    @property
    def ready(self) -> bool:
        """Whether requests for inference are taken."""
        return self._batcher.ready

    def close(self) -> None:
        """Finish what was begun."""
        self._batcher.close()
        self._decoders.shutdown()

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for one request, from when its body is there to its answer. Raises HTTPException: 503."""
        self.check_room()
        self._open += 1
        self.metrics.open_requests.set(self._open)
        try:
            yield
        finally:
            self._open -= 1
            self.metrics.open_requests.set(self._open)

    def check_room(self) -> None:
        """Raises HTTPException, 503, when all places are taken; for before a body is read."""
        if self._open >= self.settings.max_requests:
            raise overloaded("too many requests are underway; try again")

    async def aside(self, function: Callable[..., T], *arguments: object) -> T:
        """Run what would hold up the event loop in another thread."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def infer(self, request: Request, pixels: NDArray[Any], keep: float | None) -> Outputs:
        """Compute with whatever else waits; forget it when the client goes.

        Args:
            request: whose body has been read.
            pixels: float32 (B, C, H, W), checked.
            keep: a number or None.

        Raises:
            HTTPException: 503, or 499 when the client has gone.
            PcaeError: what the model refuses.
        """
        if keep is None and self.session.dynamic_keep:
            keep = 1.0  # so that it shares a batch with who says so
        try:
            answer = asyncio.wrap_future(self._batcher.submit(pixels, keep))
        except OverloadedError as error:
            raise overloaded(str(error)) from None
        # Once the body is read, the only message left is that the client has gone
        gone = asyncio.ensure_future(request.receive())
        try:
            pending: set[asyncio.Future[Any]] = {answer, gone}
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise HTTPException(bodies.GONE, "the client has gone")
            return answer.result()
        finally:
            gone.cancel()
            answer.cancel()


def overloaded(reason: str) -> HTTPException:
    """The answer to who should come again later."""
    return HTTPException(503, reason, {"Retry-After": "1"})
