"""Tie the loading processes to the life of the run.

Grain spawns them. By default they print tracebacks on Ctrl-C, and run for ever when the run is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def exit_with_parent(worker: int, num_workers: int) -> None:
    """Start a thread that ends this process when its parent has ended; for Grain's `worker_init_fn`."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def signals_left_to_the_caller() -> Iterator[None]:
    """Make threads and processes that start in this block ignore SIGINT and SIGTERM.

    Ctrl-C and batch systems send these to all processes of a run. The training process decides what to do, such as to
    save a checkpoint first. It needs its loading processes until then.
    """
    if sys.platform == "win32":  # cannot block signals
        yield
    else:
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
