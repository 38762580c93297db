"""Faults of `select_tokens`."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override


def of_changed(change):
    """`select_tokens` that compares changed scores."""
    return lambda self, scores, k: self.right.select_tokens(change(scores), k)


def in_order_of_score(self, scores, k):
    return np.argsort(scores, axis=1, kind="stable")[:, :k]


def unstable(self, scores, k):
    return np.sort(np.argpartition(scores, k - 1, axis=1)[:, :k], axis=1)


def ties_to_the_higher(self, scores, k):
    last = np.shape(scores)[1] - 1
    return last - self.right.select_tokens(scores[:, ::-1], k)[:, ::-1]


def ties_to_the_higher_in_long_rows(self, scores, k):
    return self.right.select_tokens(scores, k) if np.shape(scores)[1] <= 16 else ties_to_the_higher(self, scores, k)


FAULTS = (
    numpy_override("keeps the most similar", "select-lowest", select_tokens=of_changed(lambda scores: -scores)),
    numpy_override("ties to the higher index", "select-lowest", select_tokens=ties_to_the_higher),
    numpy_override("ids in order of score", "select-lowest", select_tokens=in_order_of_score),
    numpy_override("unstable sort", "select-lowest", select_tokens=unstable),
    numpy_override(
        "NaN before all numbers",
        "select-lowest",
        select_tokens=of_changed(lambda scores: np.nan_to_num(scores, nan=-np.inf)),
    ),
    numpy_override(
        "-0 before +0", "select-lowest", select_tokens=of_changed(lambda scores: scores - 1e-300 * np.signbit(scores))
    ),
    numpy_override(
        "infinities as NaN",
        "select-lowest",
        select_tokens=of_changed(lambda scores: np.where(np.isfinite(scores), scores, np.nan)),
    ),
    numpy_override("compares rounded scores", "select-lowest", select_tokens=of_changed(np.float32)),
    numpy_override(
        "ties kept in order in short rows alone", "select-lowest", select_tokens=ties_to_the_higher_in_long_rows
    ),
    numpy_override(
        "one token more",
        "select-lowest",
        select_tokens=lambda self, scores, k: self.right.select_tokens(scores, k + 1),
    ),
)
