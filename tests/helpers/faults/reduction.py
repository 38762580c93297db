"""Faults of `gather_tokens` and `reduce_tokens`."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override


def prefix_dropped(self, tokens, k, num_prefix_tokens=0, center="unit"):
    kept, ids = self.right.reduce_tokens(tokens, k, num_prefix_tokens, center)
    return kept[:, num_prefix_tokens:], ids


def prefix_in_the_mean(self, tokens, k, num_prefix_tokens=0, center="unit"):
    scores = self.right.similarity_scores(tokens, center)
    ids = self.right.select_tokens(scores[:, num_prefix_tokens:], k)
    patches = self.right.gather_tokens(tokens[:, num_prefix_tokens:], ids)
    return np.concatenate([tokens[:, :num_prefix_tokens], patches], axis=1), ids


def prefix_last(self, tokens, k, num_prefix_tokens=0, center="unit"):
    kept, ids = self.right.reduce_tokens(tokens, k, num_prefix_tokens, center)
    return np.roll(kept, -num_prefix_tokens, axis=1), ids


def prefix_counted(self, tokens, k, num_prefix_tokens=0, center="unit"):
    kept, ids = self.right.reduce_tokens(tokens, k, num_prefix_tokens, center)
    return kept, ids + num_prefix_tokens


def center_ignored(self, tokens, k, num_prefix_tokens=0, center="unit"):
    return self.right.reduce_tokens(tokens, k, num_prefix_tokens)


FAULTS = (
    numpy_override("prefix tokens dropped", "reduce-prefix", reduce_tokens=prefix_dropped),
    numpy_override("prefix tokens in the mean", "reduce-prefix", reduce_tokens=prefix_in_the_mean),
    numpy_override("prefix tokens last", "reduce-own-scores", reduce_tokens=prefix_last),
    numpy_override("ids count the prefix", "reduce-own-scores", reduce_tokens=prefix_counted),
    numpy_override("center ignored", "reduce-reference", reduce_tokens=center_ignored),
    numpy_override(
        "gathers in ascending order",
        "gather-indexing",
        gather_tokens=lambda self, tokens, ids: self.right.gather_tokens(tokens, np.sort(ids, axis=1)),
    ),
    numpy_override(
        "gathers by a product with 0 and 1",
        "gather-dropped",
        gather_tokens=lambda self, tokens, ids: np.einsum("bkn,bnd->bkd", np.eye(np.shape(tokens)[1])[ids], tokens),
    ),
    numpy_override(
        "every image gathers the first one's ids",
        "gather-indexing",
        gather_tokens=lambda self, tokens, ids: tokens[:, ids[0]],
    ),
)
