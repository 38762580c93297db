"""All randomness of a run, drawn on the host from NumPy's counter-based Philox generator.

A draw depends only on (seed, purpose, step or epoch, sample). It does not depend on the framework, the number of
processes, or earlier draws. So a resumed run draws the same numbers as an uninterrupted one. Letters: B images, N
patches, L blocks.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

_WORDS_PER_COUNT = 4  # Philox 4x64 yields four 64-bit words, thus four doubles, per count


class Purpose(enum.IntEnum):
    """Separates the random streams of one seed."""

    INIT = 0
    MASK = 1
    DROP_PATH = 2
    AUGMENT = 3
    MIX = 4


def generator(seed: int, purpose: Purpose, major: int = 0, minor: int = 0, start: int = 0) -> np.random.Generator:
    """A generator for one stream.

    Args:
        seed: the run's seed, 0 to 2**64 - 1.
        major, minor: place of the draw, such as (step, 0) or (epoch, sample).
        start: number of Philox counts, of four doubles each, to skip.
    """
    counter = np.array([start, 0, minor, major], dtype=np.uint64)
    key = np.array([seed, int(purpose)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def _rows(seed: int, purpose: Purpose, step: int, first: int, count: int, width: int) -> NDArray[np.float64]:
    """Uniform numbers (count, width) of the samples `first .. first+count-1`. A row is the same in every slice."""
    counts_per_row = -(-width // _WORDS_PER_COUNT)
    stream = generator(seed, purpose, major=step, start=first * counts_per_row)
    return stream.random((count, counts_per_row * _WORDS_PER_COUNT))[:, :width]


def mask_noise(seed: int, step: int, first: int, count: int, num_patches: int) -> NDArray[np.float64]:
    """Noise (B, N) in [0, 1) whose order splits each image's patches (see `Backend.split_by_noise`).

    Args:
        first, count: the samples' places in the global batch of `step`.
    """
    return np.ascontiguousarray(_rows(seed, Purpose.MASK, step, first, count, num_patches))


def drop_path_scales(seed: int, step: int, first: int, count: int, rates: list[float]) -> NDArray[np.float32] | None:
    """Factors (L, 2, B) of the residual branches: 0 or 1 / (1 - rate). None when every rate is 0.

    The two rows of a block are its attention branch and its MLP branch.
    """
    if not any(rates):
        return None
    uniform = _rows(seed, Purpose.DROP_PATH, step, first, count, 2 * len(rates))
    uniform = uniform.reshape(count, len(rates), 2).transpose(1, 2, 0)
    rate = np.asarray(rates)[:, None, None]
    return np.where(uniform >= rate, 1.0 / (1.0 - rate), 0.0).astype(np.float32)
