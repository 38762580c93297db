"""Checks of the labels that a source found. Letters: n images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core.errors import DataError, listed

NO_CLASS = -1
"""Label of an image without a class."""


def check_labels(path: Path, labels: NDArray[np.int64], names: Sequence[str] | None) -> NDArray[np.int64] | None:
    """The labels (n,) in the form of `Source.labels`. Raises DataError for a number that no class has."""
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < NO_CLASS or (names is not None and highest >= len(names)):
        known = "" if names is None else f" to {len(names) - 1}"
        raise DataError(
            f"labels in {path} must be numbers of classes from 0{known}, or -1 for none, not {lowest} to {highest}"
        )
    return None if highest == NO_CLASS else labels


def check_names(path: Path, names: Sequence[str]) -> list[str]:
    """The class names as a list. Raises DataError when two are the same."""
    twice = repeated(names)
    if twice:
        raise DataError(f"class_names in {path} names classes twice: {listed(twice)}; give each class its own name")
    return list(names)


def repeated(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)
