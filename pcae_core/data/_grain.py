"""Everything that works around Grain, which loads the training batches. Checked with Grain 0.2.18.

- Where JAX is not installed, importing Grain logs "Failed to load jax profiler". Each loading process logs it too: it
  is spawned, and imports Grain to find the function that it runs, before it calls `worker_init_fn`. `import_grain`
  silences the import, and puts `run_worker` in that function's place, so that a process imports this module first.
- An iterator creates those of its processes with its first element or state. `close` and `start_prefetch` skip what is
  not created yet, and a process that starts later is never closed. `iterate` asks for the state.
- Shared memory is released in a thread, which the end of the interpreter would interrupt, and a cycle of references
  keeps the last array of every process. `close` collects the cycle and waits for the thread.
- A RuntimeError tells that a loading process died. `cause_of_death` finds the reason in its text.

The replaced function and the thread are not public. Where another version of Grain has none of these, a warning may be
printed, and nothing else changes.
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
    """What a loading process calls, in place of Grain's own function."""
    import_grain()
    if _grain_worker is not None:
        _grain_worker(*args, **kwargs)


def iterate(dataset: Any) -> Any:
    """Grain's iterator over one of its data sets, with the iterators of all processes created."""
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
            pool.apply(int)  # its only thread gets to this when it has done all before


def cause_of_death(error: BaseException) -> str | None:
    """Why a loading process died, if that is what an error of the iterator says."""
    if isinstance(error, RuntimeError) and "terminated unexpectedly" in str(error):
        return str(error).partition("with ")[2].partition(". ")[0]
    return None
