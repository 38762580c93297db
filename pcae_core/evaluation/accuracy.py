"""Accuracy of a classifier.

Letters: n images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcae_core.contract import Floats, TrainState
from pcae_core.data import CorruptLog
from pcae_core.data.classes import Labelled
from pcae_core.errors import listed
from pcae_core.evaluation.encoding import LoadedEncoder
from pcae_core.parameters import Arrays


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy, in percent.

    Attributes:
        samples: number of scored samples.
    """

    top1: float
    top5: float
    samples: int


def accuracy(scores: Floats, labels: NDArray[np.int64]) -> Accuracy:
    """Accuracy from the scores of all classes (n, classes) and the true classes (n,)."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits = order == labels[:, None]
    return Accuracy(100.0 * float(hits[:, 0].mean()), 100.0 * float(hits.any(axis=1).mean()), len(labels))


def best_parameters(state: TrainState) -> Arrays:
    """The parameters to evaluate: the moving average if there is one, else the weights."""
    return state.teacher or state.student


def score(encoder: LoadedEncoder, test: Labelled, keep: float, log: CorruptLog | None = None) -> Accuracy:
    """Top-1 and top-5 accuracy on the readable images of `test`, whose labels are the model's class numbers.

    Args:
        log: as in `LoadedEncoder.collect`.

    Raises:
        DataError, TrainingError: as `LoadedEncoder.collect`.
    """
    logits, ids = encoder.collect(test.source, lambda out: out.logits, keep, log=log)
    return accuracy(logits, test.labels[ids])


def one_class_warning(found: Accuracy, labels: NDArray[np.int64], names: Sequence[str] | None) -> str | None:
    """A warning if top-1 equals the share of the most frequent class, else None.

    A model that predicts one class for every image has this accuracy.

    Args:
        labels: labels of the scored images (n,).
        names: names of the classes, or None.
    """
    counts = np.bincount(labels)
    share = 100.0 * float(counts.max() / counts.sum())
    if share == 100.0 or not math.isclose(found.top1, share):
        return None
    best = [names[number] if names else f"class {number}" for number in np.flatnonzero(counts == counts.max()).tolist()]
    return (
        f"top-1 {found.top1:.2f}% is the share of the most frequent class ({listed(best)}): the model may give one "
        "answer whatever it sees; train longer, or with another learning rate"
    )
