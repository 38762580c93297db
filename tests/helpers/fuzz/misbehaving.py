"""What must not happen, so that the harness is seen to notice: case n does the n-th of these."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import numpy as np

from fuzz import watch
from fuzz.kind import Kind


class Command:
    def __reduce__(self):
        return os.getcwd, ()


def _writes(folder: Path) -> None:
    (folder.parents[1] / "escaped").write_text("")


def _compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


_ACTS = (
    lambda folder: 1 / 0,
    lambda folder: os.system("true"),
    _writes,
    lambda folder: pickle.loads(pickle.dumps(Command())),
    lambda folder: _compute(0.3),
    lambda folder: time.sleep(0.3),  # which takes no time of the machine's, and is no fault
)
# 40 MB at once: smaller pieces may be of memory that the process has had, and do not count.
_HARM = (lambda folder: _compute(0.3), lambda folder: bytearray(b"x" * 40_000_000), lambda folder: os.abort())
ACTS = len(_ACTS) + len(_HARM)


def _act(folder: Path) -> int:
    return int((folder / "act").read_text())


def unguarded(folder: Path) -> None:
    """The last of the acts."""
    if _act(folder) >= len(_ACTS):
        _HARM[_act(folder) - len(_ACTS)](folder)


class Misbehaving(Kind):
    def good(self, folder: Path) -> None:
        (folder / "act").write_text("-1")
        self.next = 0

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        watch.LIMIT_SECONDS = watch.HARMLESS_SECONDS = 0.2
        watch.HARMLESS_MB = 20.0
        (folder / "act").write_text(str(self.next))
        self.next += 1
        return "act"

    def read(self, folder: Path) -> None:
        if 0 <= _act(folder) < len(_ACTS):
            _ACTS[_act(folder)](folder)
