"""The state that routes share: the model, its batches, its limits."""

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
        session: session of the model.
        settings: settings of the service.
        metrics: counters of the service.
        arrivals: bodies that are being read.
    """

    def __init__(self, session: InferenceSession, settings: Settings) -> None:
        """Start the computing thread; `close` ends it.

        Raises:
            ConfigError: a setting is out of range.
        """
        settings.check()
        self.session, self.settings, self.metrics = session, settings, Metrics()
        self.arrivals = bodies.Arrivals(settings)
        self._open = 0
        # Few threads: JSON and images take many times their size in memory while they are read
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
        """Whether the service accepts inference requests."""
        return self._batcher.ready

    def close(self) -> None:
        """Finish the current requests and end the threads."""
        self._batcher.close()
        self._decoders.shutdown()

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Reserve a place for a request from the end of its body to its answer. Raises HTTPException: 503."""
        self.check_room()
        self._open += 1
        self.metrics.open_requests.set(self._open)
        try:
            yield
        finally:
            self._open -= 1
            self.metrics.open_requests.set(self._open)

    def check_room(self) -> None:
        """Raise HTTPException, 503, if all places are taken. Call it before reading a body."""
        if self._open >= self.settings.max_requests:
            raise overloaded("too many requests are underway; try again")

    async def aside(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in another thread, so that it does not block the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def infer(self, request: Request, pixels: NDArray[Any], keep: float | None) -> Outputs:
        """Compute in a batch with other waiting requests. Cancel if the client disconnects.

        Args:
            request: request whose body has been read.
            pixels: float32 (B, C, H, W), checked.
            keep: a number or None.

        Raises:
            HTTPException: 503, or 499 when the client has disconnected.
            PcaeError: the model refuses the pixels or the ratio.
        """
        if keep is None and self.session.dynamic_keep:
            keep = 1.0  # so that it shares a batch with requests that give 1
        try:
            answer = asyncio.wrap_future(self._batcher.submit(pixels, keep))
        except OverloadedError as error:
            raise overloaded(str(error)) from None
        # After the body, the only message left is that the client has disconnected
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
    """The error that asks a client to try again later."""
    return HTTPException(503, reason, {"Retry-After": "1"})
