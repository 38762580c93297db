"""Comparisons that raise on a mismatch of type, shape, dtype or values, in this order.

A comparison of values also returns its error in units of the tolerance. The subject records the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Mismatch(AssertionError):  # noqa: N818 (it is the outcome of a comparison, not an error of the suite)
    """A result of a backend does not conform to the contract. The text holds both values and the tolerance.

    Attributes:
        error: error in units of the tolerance.
    """

    def __init__(self, message: str, error: float = math.inf) -> None:
        super().__init__(message)
        self.error = error


def require(condition: bool, message: str) -> None:
    """Raise Mismatch with `message` unless `condition` holds."""
    if not condition:
        raise Mismatch(message)


def require_raises(expected: type[Exception], what: str, attempt: Callable[[], object]) -> None:
    """Raise Mismatch unless `attempt` raises `expected`. Messages call the attempt `what`."""
    try:
        attempt()
    except expected:
        return
    except Exception as error:
        raise Mismatch(f"{what}: got {type(error).__name__}, expected {expected.__name__}") from error
    raise Mismatch(f"{what}: got no error, expected {expected.__name__}")


def _text(values: NDArray[Any]) -> str:
    return np.array2string(values, threshold=24, edgeitems=3, separator=", ").replace("\n", "\n            ")


def _worst(error: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))


def compare(what: str, got: NDArray[Any], expected: ArrayLike, tolerance: ArrayLike) -> float:
    """The largest `|got - expected| / tolerance`. Equal values count as 0, also NaN and infinities.

    Args:
        tolerance: tolerance, broadcast against the values; 0 requires equal values.

    Raises:
        Mismatch: the shapes differ, or a value is off by more than the tolerance.
    """
    expected = np.asarray(expected)
    require(got.shape == expected.shape, f"{what}: got the shape {got.shape}, expected {expected.shape}")
    if np.array_equal(got, expected):  # the usual case
        return 0.0
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    allowed = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), got.shape)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.abs(np.asarray(got, dtype=np.float64) - np.asarray(expected, dtype=np.float64))
        error = np.where(same, 0.0, difference / allowed)
    error = np.where(np.isnan(error), np.inf, error)  # one of the two is NaN, or they are opposite infinities
    worst = float(error.max())
    if worst > 1.0:
        at = _worst(error)
        raise Mismatch(
            f"{what}: {int((error > 1.0).sum())} of {got.size} values differ; the worst, at {at}: "
            f"got {got[at].item()!r}, expected {expected[at].item()!r}, "
            f"difference {difference[at]:.3g}, tolerance {allowed[at]:.3g}\n"
            f"  got       {_text(got)}\n  expected  {_text(expected)}",
            worst,
        )
    return worst
