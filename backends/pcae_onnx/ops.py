"""The operations of PCAE as fragments of an ONNX graph.

Each function adds nodes to a graph and returns the names of their outputs. Letters: B images, N tokens, P prefix
tokens, k kept, D width. Scores are computed in float32 or better.
"""

from __future__ import annotations

import math

import numpy as np

from pcae_core.contract import NORM_EPS, Center
from pcae_onnx.graph import Graph

Count = int | str
"""Number of tokens to keep, or the name of an int64 vector of one element."""

KEEP_DECIMALS = 6
"""Decimals of a keep ratio that is an input; a float32 holds no more."""
_NAN_SCORE = 2.0  # above every cosine


def read_keep(keep: float) -> float:
    """The ratio that a graph with the input `keep` uses: six decimals, rounded up.

    A ratio of at most six decimals does not change, although it is passed as a float32.
    """
    scale = 10.0**KEEP_DECIMALS
    return math.ceil(float(np.float32(keep)) * scale - 0.1) / scale


def read_keep_nodes(g: Graph, keep: str) -> str:
    """Nodes for `read_keep` of a float32 scalar; the result is a float64 scalar."""
    scale = g.constant(10.0**KEEP_DECIMALS, "float64")
    scaled = g.add("Mul", g.cast(keep, "float64"), scale)
    return g.add("Div", g.add("Ceil", g.add("Sub", scaled, g.constant(0.1, "float64"))), scale)


def num_kept(g: Graph, num_tokens: Count, ratio: str) -> str:
    """Nodes for `schedule.num_kept` of a count and a float64 scalar; the result is int64 (1,)."""
    count = g.ints(num_tokens) if isinstance(num_tokens, int) else num_tokens
    product = g.add("Mul", g.cast(count, "float64"), ratio)
    return g.add("Max", g.cast(product, "int64"), g.ints(1))  # the cast truncates, as int() does


def slice_tokens(g: Graph, x: str, start: int, end: int | None = None, axis: int = 1) -> str:
    """x[:, start:end] along an axis."""
    last = np.iinfo(np.int64).max if end is None else end
    return g.add("Slice", x, g.ints(start), g.ints(int(last)), g.ints(axis))


def unit_length(g: Graph, vectors: str, dtype: str) -> str:
    """Vectors (..., D) divided by their length, after the largest entry is scaled to 1; zero vectors stay zero."""
    zero, one, tiny = (g.constant(x, dtype) for x in (0.0, 1.0, NORM_EPS))
    last = g.ints(-1)
    largest = g.add("ReduceMax", g.add("Abs", vectors), last, keepdims=1)
    scaled = g.add("Div", vectors, g.add("Where", g.add("Greater", largest, zero), largest, one))
    squares = g.add("ReduceSum", g.add("Mul", scaled, scaled), last, keepdims=1)
    length = g.add("Sqrt", squares)
    return g.add("Div", scaled, g.add("Where", g.add("Greater", length, tiny), length, tiny))


def similarity_scores(g: Graph, tokens: str, dtype: str, center: Center) -> str:
    """(B, N, D) of `dtype`, float32 or float64, to (B, N)."""
    unit = unit_length(g, tokens, dtype)
    mean = token_mean(g, unit if center == "unit" else tokens, dtype)
    product = g.add("Mul", unit, unit_length(g, mean, dtype))
    cosine = g.add("ReduceSum", product, g.ints(-1), keepdims=0)
    low, high = g.constant(-1.0, dtype), g.constant(1.0, dtype)
    # Clip may turn NaN into one of its bounds
    cosine = g.add("Where", g.add("Greater", cosine, high), high, cosine)
    return g.add("Where", g.add("Less", cosine, low), low, cosine)


def token_mean(g: Graph, x: str, dtype: str) -> str:
    """(B, n, D) of `dtype` to (B, 1, D).

    This uses pooling. ONNX Runtime's `ReduceMean` over this axis changes its order of summation if there are more
    images than threads. An image alone would then get other scores than in a batch.
    """
    if dtype == "float64":  # ONNX Runtime cannot pool float64
        return g.add("ReduceMean", x, g.ints(1), keepdims=1)
    pooled = g.add("GlobalAveragePool", g.add("Transpose", x, perm=[0, 2, 1]))
    return g.add("Transpose", pooled, perm=[0, 2, 1])


def is_number(g: Graph, x: str) -> str:
    """Whether each element of `x` is not NaN. Fewer runtimes support `IsNaN`."""
    return g.add("Equal", x, x)


def ascending(g: Graph, ids: str, k: Count) -> str:
    """Ids (B, k) in ascending order."""
    return _top(g, ids, k)[0]


def lowest(g: Graph, scores: str, k: Count, dtype: str) -> str:
    """Ids (B, k) of the k lowest scores (B, N), ascending, ties to the lower index. Scores are in [-1, 1] or NaN."""
    numbers = g.add("Where", is_number(g, scores), scores, g.constant(_NAN_SCORE, dtype))
    return ascending(g, _top(g, numbers, k)[1], k)


def order(g: Graph, values: str, dtype: str) -> str:
    """Ids (B, N) that sort values (B, N) of any size, NaN last, ties to the lower index."""
    size = g.add("Shape", values, start=1, end=2)
    number = is_number(g, values)
    by_value = _top(g, g.add("Where", number, values, g.constant(np.inf, dtype)), size)[1]
    is_missing = g.add("Where", number, g.constant(0.0, "float32"), g.constant(1.0, "float32"))
    return gather(g, by_value, _top(g, gather(g, is_missing, by_value), size)[1])  # numbers first, else as they were


def _top(g: Graph, values: str, k: Count) -> list[str]:
    """The k lowest values (B, k), ascending, and their indices. In runtimes ties go to the lower index."""
    count = g.ints(k) if isinstance(k, int) else k
    return g.add_many("TopK", 2, values, count, axis=1, largest=0, sorted=1)


def gather(g: Graph, x: str, ids: str) -> str:
    """Gather rows of (B, N, ...) at ids (B, k): (B, k, ...)."""
    return g.add("GatherND", x, g.add("Unsqueeze", ids, g.ints(-1)), batch_dims=1)


def reduce_tokens(g: Graph, tokens: str, k: Count, prefix: int, center: Center, dtype: str) -> tuple[str, str, str]:
    """Reduce tokens (B, P + N, D) of `dtype`.

    Returns the tokens that stay (B, P + k, D), the ids of the patches that stay (B, k), and the scores (B, N).
    """
    patches, scores = patch_scores(g, tokens, prefix, center, dtype)
    ids = lowest(g, scores, k, score_dtype(dtype))
    kept = gather(g, patches, ids)
    if prefix:
        kept = g.add("Concat", slice_tokens(g, tokens, 0, prefix), kept, axis=1)
    return kept, ids, scores


def patch_scores(g: Graph, tokens: str, prefix: int, center: Center, dtype: str) -> tuple[str, str]:
    """The patch tokens (B, N, D) of tokens (B, P + N, D) of `dtype`, and their scores (B, N)."""
    patches = slice_tokens(g, tokens, prefix) if prefix else tokens
    wide = score_dtype(dtype)
    scored = g.cast(patches, wide) if wide != dtype else patches
    return patches, similarity_scores(g, scored, wide, center)


def score_dtype(dtype: str) -> str:
    """Dtype of the scores of tokens of `dtype`."""
    return "float32" if dtype == "float16" else dtype


def restore_grid(g: Graph, tokens: str, ids: str, num_patches: int, features: str | None, dtype: str) -> str:
    """(B, k, D), (B, k) -> (B, N, D): each patch its own token, or that of its most similar survivor.

    Args:
        features: features of all patches (B, N, F) in `dtype`, float32 or float64; None for closeness on the grid.
    """
    survivors, in_order = _top(g, ids, g.add("Shape", ids, start=1, end=2))  # the first of equals has the lowest id
    places = g.add("Reshape", g.ints(*range(num_patches)), g.ints(1, num_patches, 1))
    columns = g.add("Unsqueeze", survivors, g.ints(1))  # (B, 1, k)
    if features is None:
        similarity = g.add("Neg", g.cast(_squared_distances(g, places, columns, num_patches), dtype))
    else:
        unit = unit_length(g, features, dtype)
        similarity = g.add("MatMul", unit, g.add("Transpose", gather(g, unit, survivors), perm=[0, 2, 1]))
    lowest, highest = g.constant(-np.inf, dtype), g.constant(np.inf, dtype)
    similarity = g.add("Where", is_number(g, similarity), similarity, lowest)
    similarity = g.add("Where", g.add("Equal", columns, places), highest, similarity)
    nearest = g.add("ArgMax", similarity, axis=2, keepdims=0)  # (B, N), the first of equals
    return gather(g, tokens, gather(g, in_order, nearest))


def _squared_distances(g: Graph, places: str, survivors: str, num_patches: int) -> str:
    """Squared distance (B, N, k) of each patch (1, N, 1) to each survivor (B, 1, k) on the square grid, in patches."""
    side = g.ints(math.isqrt(num_patches))
    rows = g.add("Sub", g.add("Div", places, side), g.add("Div", survivors, side))
    columns = g.add("Sub", g.add("Mod", places, side), g.add("Mod", survivors, side))
    return g.add("Add", g.add("Mul", rows, rows), g.add("Mul", columns, columns))
