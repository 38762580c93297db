"""Loading processes must neither outlive the run nor die before it.

Grain spawns them. Left alone they print tracebacks when Ctrl-C reaches them as well, and stay for ever when the run is
killed.
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
    """Start a thread that ends this process when the one that started it is gone; for Grain's `worker_init_fn`."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def signals_left_to_the_caller() -> Iterator[None]:
    """Threads and processes started in this block do not react to SIGINT and SIGTERM.

    Ctrl-C and batch systems send these to all processes of a run. The one that trains decides what to do, for example
    to save a checkpoint first, and needs its loading processes until then.
    """
    if sys.platform == "win32":  # cannot block signals
        yield
    else:
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
