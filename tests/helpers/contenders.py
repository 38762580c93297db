"""Contenders that processes of their own can import."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def noting(file: Path) -> Callable[[], None]:
    """A call that takes 10 ms and adds the number of its process to `file`."""

    def call() -> None:
        time.sleep(0.01)
        with file.open("a") as stream:
            stream.write(f"{os.getpid()} ")

    return call


def dying() -> Callable[[], None]:
    """A call that ends its process."""
    return lambda: os._exit(1)
