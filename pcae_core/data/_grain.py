"""Workarounds for Grain, which loads the training batches. Checked with Grain 0.2.18.

- Without JAX, importing Grain logs "Failed to load jax profiler". Each loading process is spawned and logs it too: it
  imports Grain to find the function that it runs, before it calls `worker_init_fn`. `import_grain` silences the import.
  It also replaces that function by `run_worker`, so that a loading process imports this module first.
- Grain creates the iterators of its processes with the first element or state. `close` and `start_prefetch` skip an
  iterator that does not exist yet, and a process that starts later is never closed. So `iterate` asks for the state.
- A thread releases shared memory, and the end of the interpreter would interrupt it. A reference cycle also keeps the
  last array of every process alive. `close` collects the cycle and waits for the thread.
- Grain raises a RuntimeError when a loading process died. `cause_of_death` finds the reason in its text.

The replaced function and the thread are private. If another version of Grain lacks them, a warning may be printed, and
nothing else changes.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_MODULE, _FUNCTION = "grain._src.python.dataset.transformations.process_prefetch", "_put_dataset_elements_in_buffer"
_SHARED_MODULE, _SHARED_CLASS = "grain._src.python.ipc.shared_memory_array", "SharedMemoryArray"

_grain_worker: Callable[..., None] | None = None


def import_grain() -> Any:
    """The module `grain`, whose processes call `run_worker`."""
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
    """Drop absl's log messages. The first of them would also add a handler to the root logger."""
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
    """Entry point of a loading process, in place of Grain's own function."""
    import_grain()
    if _grain_worker is not None:
        _grain_worker(*args, **kwargs)


def iterate(dataset: Any) -> Any:
    """Grain's iterator over one of its data sets, after the iterators of all processes are created."""
    iterator = iter(dataset)
    iterator.get_state()
    return iterator


def close(iterator: Any) -> None:
    """End Grain's iterator and its processes, and wait until the memory shared with them is released."""
    iterator.close()
    gc.collect()
    arrays = getattr(sys.modules.get(_SHARED_MODULE), _SHARED_CLASS, None)
    pool = getattr(arrays, "_del_thread_pool", None)
    if pool is not None:
        with suppress(ValueError):  # the pool has ended
            pool.apply(int)  # its only thread runs this after all earlier work


def cause_of_death(error: BaseException) -> str | None:
    """The reason why a loading process died, if an error of the iterator says that one died; else None."""
    if isinstance(error, RuntimeError) and "terminated unexpectedly" in str(error):
        return str(error).partition("with ")[2].partition(". ")[0]
    return None
