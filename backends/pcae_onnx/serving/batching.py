"""Gather waiting requests into batches, which one thread computes.

Letters: B images of a request, C channels, H = W pixels.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_onnx.session import Outputs


class OverloadedError(Exception):
    """The queue is full, or the service is shutting down."""


@dataclass(eq=False)
class _Waiting:
    pixels: NDArray[Any]
    keep: float | None
    future: Future[Outputs] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """One thread that computes requests of equal keep ratio together, starting with the oldest request."""

    def __init__(
        self,
        run: Callable[[NDArray[Any], float | None], Outputs],
        max_batch: int,
        max_wait: float,
        queue: int,
        on_batch: Callable[[int, float], None],
    ) -> None:
        """Start the thread.

        Args:
            run: function that computes a batch, as `InferenceSession.run`.
            max_batch: largest number of images in a batch.
            max_wait: seconds that the first request of a batch waits for others.
            queue: largest number of images that may wait.
            on_batch: function that is called after each batch, with its number of images and its seconds.
        """
        self._run, self._on_batch = run, on_batch
        self._max_batch, self._max_wait, self._queue = max_batch, max_wait, queue
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="pcae-inference", daemon=True)
        self._thread.start()

    @property
    def images_waiting(self) -> int:
        """Images in the queue."""
        with self._changed:
            return _images(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether new requests are accepted."""
        return self._thread.is_alive() and not self._closing

    def submit(self, pixels: NDArray[Any], keep: float | None) -> Future[Outputs]:
        """Queue one request. Cancelling the future removes it from the queue, unless its batch has begun.

        Args:
            pixels: float32 (B, C, H, W) in the model's shape, with B from 1 to `max_batch`.
            keep: as in `InferenceSession.run`; a number, not NaN.

        Returns:
            A future of the request's own outputs, or of the error that `run` raised for its batch.

        Raises:
            OverloadedError: the queue is full or closed.
        """
        with self._changed:
            if self._closing:
                raise OverloadedError("the service is shutting down")
            self._waiting = [item for item in self._waiting if not item.future.cancelled()]
            if _images(self._waiting) + len(pixels) > self._queue:
                raise OverloadedError("too many pictures are waiting; try again")
            item = _Waiting(pixels, keep)
            self._waiting.append(item)
            self._changed.notify()
        return item.future

    def close(self) -> None:
        """Accept no more requests, compute the waiting ones, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            started = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if started:
                self._compute(started)

    def _next(self) -> list[_Waiting]:
        """The next batch; empty when the thread must end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return []
            first = self._waiting[0]
            while not self._closing and (left := first.since + self._max_wait - time.monotonic()) > 0:
                if _images(self._alike(first)) >= self._max_batch:
                    break
                self._changed.wait(left)
            batch = self._alike(first)
            self._waiting = [item for item in self._waiting if item not in batch]
            return batch

    def _alike(self, first: _Waiting) -> list[_Waiting]:
        """The oldest requests with the ratio of `first`, including `first`, as many as fit into a batch."""
        chosen, images = [first], len(first.pixels)
        for item in self._waiting:
            if item is not first and item.keep == first.keep and images + len(item.pixels) <= self._max_batch:
                chosen.append(item)
                images += len(item.pixels)
        return chosen

    def _compute(self, batch: Sequence[_Waiting]) -> None:
        start = time.monotonic()
        try:
            pixels = batch[0].pixels if len(batch) == 1 else np.concatenate([item.pixels for item in batch])
            outputs = self._run(pixels, batch[0].keep)
        except Exception as error:  # clients get any error, and the thread continues
            for item in batch:
                item.future.set_exception(error)
            return
        self._on_batch(len(pixels), time.monotonic() - start)
        stop = 0
        for item in batch:
            start_row, stop = stop, stop + len(item.pixels)
            item.future.set_result(_rows(outputs, slice(start_row, stop)))


def _images(items: Sequence[_Waiting]) -> int:
    return sum(len(item.pixels) for item in items)


def _rows(outputs: Outputs, rows: slice) -> Outputs:
    logits = None if outputs.logits is None else outputs.logits[rows]
    return Outputs(outputs.last_hidden_state[rows], outputs.kept_ids[rows], logits)
