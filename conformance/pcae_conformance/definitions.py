"""Parts of the method written a second time, in plain Python, independent of the reference.

They are slow and exact (`math.fsum`), and check the reference itself against the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcae_conformance.dtypes import Floats
from pcae_core.config import Activation
from pcae_core.contract import Center

Vector = Sequence[float]


def unit(vector: Vector) -> list[float]:
    """`vector / |vector|`; a zero vector stays zero."""
    length = math.hypot(*vector)
    return [x / length if length else 0.0 for x in vector]


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors; 0 if one of them is zero."""
    return math.fsum(x * y for x, y in zip(unit(a), unit(b), strict=True))


def similarity(tokens: Floats, center: Center) -> Floats:
    """(B, N, D) -> (B, N): cosine of each token with the mean of its sequence."""
    return np.array([_sequence_similarity(sequence, center) for sequence in tokens.tolist()])


def _sequence_similarity(sequence: list[list[float]], center: Center) -> list[float]:
    members = [unit(token) for token in sequence] if center == "unit" else sequence
    mean = [math.fsum(feature) / len(sequence) for feature in zip(*members, strict=True)]
    return [cosine(token, mean) for token in sequence]


def grid_similarities(features: Floats | None, survivors: NDArray[np.int64], side: int) -> Floats:
    """Similarity (B, N, k) of each patch to each survivor, ids (B, k).

    It is the cosine of the features (B, N, F), or without features minus the squared distance. A NaN becomes minus
    infinity.
    """
    result = np.zeros((len(survivors), side**2, survivors.shape[1]))
    for b, n, i in np.ndindex(result.shape):
        other = int(survivors[b, i])
        if features is None:
            result[b, n, i] = -((n // side - other // side) ** 2) - (n % side - other % side) ** 2
        else:
            value = cosine(features[b, n].tolist(), features[b, other].tolist())
            result[b, n, i] = -math.inf if math.isnan(value) else value
    return result


def lowest(row: Vector, k: int) -> list[int]:
    """Ascending positions of the k lowest values. Ties go to the lower position; NaN comes after every number."""
    order = sorted(range(len(row)), key=lambda i: (math.isnan(row[i]), 0.0 if math.isnan(row[i]) else row[i], i))
    return sorted(order[:k])


def lowest_of_each(rows: Floats, k: int) -> NDArray[np.int64]:
    """(B, N) -> (B, k): `lowest` of each row."""
    return np.array([lowest(row, k) for row in rows.tolist()], dtype=np.int64)


def standardized(token: Vector, eps: float) -> list[float]:
    """A token standardised to mean 0 and unbiased variance 1."""
    mean = math.fsum(token) / len(token)
    variance = math.fsum((x - mean) ** 2 for x in token) / (len(token) - 1)
    return [(x - mean) / math.sqrt(variance + eps) for x in token]


def activation(x: float, kind: Activation) -> float:
    """GELU, exact or by tanh, or `x sigmoid(1.702 x)`."""
    if kind == "gelu":
        return 0.5 * x * math.erfc(-x / math.sqrt(2.0))
    if kind == "gelu_tanh":
        return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return x / (1.0 + math.exp(-1.702 * x))


def linear(row: Vector, weight: Floats, bias: Floats) -> list[float]:
    """(D_in,), (D_out, D_in), (D_out,) -> (D_out,)."""
    products = ([w * x for w, x in zip(weights, row, strict=True)] for weights in weight.tolist())
    return [math.fsum([*terms, b]) for terms, b in zip(products, bias.tolist(), strict=True)]


def layer_norm(token: Vector, weight: Floats, bias: Floats, eps: float) -> list[float]:
    """Biased variance."""
    mean = math.fsum(token) / len(token)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in token) / len(token) + eps)
    scales = zip(token, weight.tolist(), bias.tolist(), strict=True)
    return [(x - mean) / deviation * w + b for x, w, b in scales]


def patch(image: Floats, size: int, row: int, column: int) -> list[float]:
    """Of an image (C, H, W), flat: channel by channel, row by row."""
    part = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
    return [x for channel in part.tolist() for line in channel for x in line]


def patch_counts(depth: int, stages: int, keep: float, tokens: int) -> list[int]:
    """Patch tokens after each block: floor(n * keep) of n stay after blocks 0, d, 2d, ... with d = depth // stages."""
    counts = []
    for block in range(depth):
        if block % (depth // stages) == 0 and block // (depth // stages) < stages:
            tokens = max(1, math.floor(tokens * keep))
        counts.append(tokens)
    return counts
