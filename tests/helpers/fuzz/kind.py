"""What a kind of hostile input is."""

from __future__ import annotations

import abc
import zlib
from pathlib import Path

import numpy as np


class Kind(abc.ABC):
    """One kind of input; `samples` is a folder for the good inputs from which it makes wrong ones."""

    def __init__(self, samples: Path) -> None:
        self.samples = samples

    @abc.abstractmethod
    def good(self, folder: Path) -> None:
        """Put an input into the empty `folder` that must be accepted."""

    @abc.abstractmethod
    def write(self, rng: np.random.Generator, folder: Path) -> str:
        """Put a hostile input into the empty `folder`; returns what it is, in a few words."""

    @abc.abstractmethod
    def read(self, folder: Path) -> None:
        """What the project does with it."""


def stream(kind: str, number: int, seed: int) -> np.random.Generator:
    """The randomness of one case."""
    key = np.array([seed, zlib.crc32(kind.encode())], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, number]))


def choose(rng: np.random.Generator, values):
    """One of a sequence."""
    return values[int(rng.integers(len(values)))]
