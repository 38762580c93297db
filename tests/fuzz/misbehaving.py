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


ACTS = (
    lambda folder: 1 / 0,
    lambda folder: os.system("true"),
    _writes,
    lambda folder: pickle.loads(pickle.dumps(Command())),
    lambda folder: time.sleep(0.3),
    lambda folder: os.abort(),
)


class Misbehaving(Kind):
    def good(self, folder: Path) -> None:
        (folder / "act").write_text("none")
        self.next = 0

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        watch.LIMIT_SECONDS = 0.2
        (folder / "act").write_text(str(self.next))
        self.next += 1
        return "act"

    def read(self, folder: Path) -> None:
        act = (folder / "act").read_text()
        if act != "none":
            ACTS[int(act)](folder)
