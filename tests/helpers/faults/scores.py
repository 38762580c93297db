"""Faults of `similarity_scores`."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override, torch_override


def unit_length(vectors, zero=1.0):
    """`zero` stands in for the largest entry of a zero vector."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    return short_to_zero(vectors / np.where(largest > 0, largest, zero))


def short_to_zero(vectors):
    """Divided by their lengths, those shorter than 1e-12 by that."""
    return vectors / np.maximum(np.sqrt((vectors**2).sum(axis=-1, keepdims=True)), 1e-12)


def scoring(unit=unit_length, token=None, mean_axis=1, bound=1.0):
    """`similarity_scores` with parts to get wrong: of all vectors, of the tokens scored, of the mean, of the result."""

    def similarity_scores(self, tokens, center="unit"):
        tokens = np.array(tokens, dtype=np.float64)
        mean = (unit(tokens) if center == "unit" else tokens).mean(axis=mean_axis, keepdims=True)
        return np.clip(((token or unit)(tokens) * unit(mean)).sum(axis=-1), -bound, bound)

    return similarity_scores


def in_half_precision(self, tokens, center="unit"):
    """In PyTorch; the result is widened afterwards."""
    tokens = self.right.asarray(tokens)
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    mean = (unit if center == "unit" else tokens).mean(dim=1, keepdim=True)
    return (unit * mean / mean.norm(dim=-1, keepdim=True)).sum(dim=-1).clamp(-1.0, 1.0).float()


FAULTS = (
    numpy_override(
        "mean of raw tokens for unit ones",
        "scores-reference",
        similarity_scores=lambda self, tokens, center="unit": self.right.similarity_scores(tokens, "raw"),
    ),
    numpy_override(
        "mean of unit tokens for raw ones",
        "scores-reference",
        similarity_scores=lambda self, tokens, center="unit": self.right.similarity_scores(tokens, "unit"),
    ),
    numpy_override("mean over the whole batch", "scores-permutation", similarity_scores=scoring(mean_axis=(0, 1))),
    numpy_override("not kept within [-1, 1]", "scores-bounds", similarity_scores=scoring(bound=np.inf)),
    numpy_override("dot product for cosine", "scores-scale", similarity_scores=scoring(token=lambda vectors: vectors)),
    numpy_override(
        "zero tokens divided by zero",
        "scores-bounds",
        similarity_scores=scoring(unit=lambda vectors: unit_length(vectors, zero=0.0)),
    ),
    numpy_override("tiny tokens taken for zero ones", "scores-scale", similarity_scores=scoring(unit=short_to_zero)),
    numpy_override(
        "scores in float32",
        "scores-definition",
        similarity_scores=lambda self, tokens, center="unit": np.float64(
            np.float32(self.right.similarity_scores(tokens, center))
        ),
    ),
    numpy_override(
        "NaN replaced by 0",
        "scores-nan",
        similarity_scores=lambda self, tokens, center="unit": self.right.similarity_scores(
            np.nan_to_num(tokens), center
        ),
    ),
    torch_override("scores in half precision", "scores-reference", "bfloat16", similarity_scores=in_half_precision),
    torch_override(
        "scores come out in half precision",
        "scores-reference",
        "float16",
        similarity_scores=lambda self, tokens, center="unit": self.right.similarity_scores(tokens, center).half(),
    ),
)
