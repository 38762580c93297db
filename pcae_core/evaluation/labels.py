"""Open a labelled train split, and check that it has two classes.

Letters: n images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core.config.data import Reading
from pcae_core.data import open_source
from pcae_core.data.classes import Labelled, labelled
from pcae_core.errors import DataError


def open_train(data: Path, in_chans: int, reading: Reading) -> Labelled:
    """Open the train split of a labelled data set.

    Raises:
        DataError: there is no such data set, it has no labels, or its images are of one class.
    """
    train = labelled(open_source(data, in_chans, "train", reading))
    check_two_classes(train.labels, data)
    return train


def check_two_classes(labels: NDArray[np.int64], data: Path) -> None:
    """Raise DataError unless the labels (n,) of the train split of `data` have at least two classes."""
    if len(np.unique(labels)) < 2:
        raise DataError(f"the train split of {data} has images of one class only; at least two are needed")
