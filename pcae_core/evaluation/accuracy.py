"""How often a classifier is right.

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
    """Shares of test samples, in percent, whose class is the first, or among the first five, answers.

    Attributes:
        samples: how many were scored.
    """

    top1: float
    top5: float
    samples: int


def accuracy(scores: Floats, labels: NDArray[np.int64]) -> Accuracy:
    """From the classes' scores (n, classes) and the true classes (n,)."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits = order == labels[:, None]
    return Accuracy(100.0 * float(hits[:, 0].mean()), 100.0 * float(hits.any(axis=1).mean()), len(labels))


def best_parameters(state: TrainState) -> Arrays:
    """What is evaluated: the moving average where there is one."""
    return state.teacher or state.student


def score(encoder: LoadedEncoder, test: Labelled, keep: float, log: CorruptLog | None = None) -> Accuracy:
    """Top-1 and top-5 of the readable images labelled with the model's numbers.

    Raises:
        DataError, TrainingError: as `LoadedEncoder.collect`, which also says what `log` is.
    """
    logits, ids = encoder.collect(test.source, lambda out: out.logits, keep, log=log)
    return accuracy(logits, test.labels[ids])


def one_class_warning(found: Accuracy, labels: NDArray[np.int64], names: Sequence[str] | None) -> str | None:
    """Whether top-1 is just the share of the most frequent class, as when the model gives one answer to everything.

    Args:
        labels: of the images that were scored (n,).
        names: of the classes, where they have names.
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
