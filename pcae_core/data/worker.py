"""Grain, kept quiet, and its loading processes, which must neither outlive the run nor die before it.

Grain's processes are spawned. Left alone they print a warning each because JAX is not installed, print tracebacks when
Ctrl-C reaches them as well, and stay for ever when the run is killed.
"""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Not public: where another version of Grain has none of these, a warning may be printed, and nothing else changes.
_MODULE, _FUNCTION = "grain._src.python.dataset.transformations.process_prefetch", "_put_dataset_elements_in_buffer"
_SHARED_MODULE, _SHARED_CLASS = "grain._src.python.ipc.shared_memory_array", "SharedMemoryArray"

_grain_worker: Callable[..., None] | None = None


def import_grain() -> Any:
    """The module `grain`; what its processes run is replaced by `run_worker`."""
    global _grain_worker
    with _quiet_absl():
        grain = importlib.import_module("grain")
        try:
            module = importlib.import_module(_MODULE)
        except ModuleNotFoundError:
            return grain
    function = getattr(module, _FUNCTION, None)
    if function is not None and function is not run_worker:
        _grain_worker = function
        setattr(module, _FUNCTION, run_worker)
    return grain


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Drop what absl logs; its first message would also give the root logger a handler."""
    logger = importlib.import_module("absl.logging").get_absl_logger()
    handler, disabled = logging.NullHandler(), logger.disabled
    logging.root.addHandler(handler)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = disabled
        logging.root.removeHandler(handler)


def run_worker(*args: Any, **kwargs: Any) -> None:
    """What a loading process runs: this module is imported there before Grain is."""
    import_grain()
    if _grain_worker is not None:
        _grain_worker(*args, **kwargs)


def close(iterator: Any) -> None:
    """End Grain's iterator and its processes, and wait until the memory shared with them is released.

    Grain releases it in a thread, which the end of the interpreter would interrupt, and keeps the last array of every
    process in a cycle of references.
    """
    iterator.close()
    gc.collect()
    arrays = getattr(sys.modules.get(_SHARED_MODULE), _SHARED_CLASS, None)
    pool = getattr(arrays, "_del_thread_pool", None)
    if pool is not None:
        with suppress(ValueError):  # the pool has ended
            pool.apply(int)  # its only thread gets to this when it has done all before


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
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
