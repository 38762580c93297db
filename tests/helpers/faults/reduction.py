"""Faults of `gather_tokens` and `reduce_tokens`."""

from __future__ import annotations

from faults.mutation import numpy_fault

JOINED = "np.concatenate([prefix, gather_tokens(patches, ids)], axis=1), ids"
IDS = "ids = select_tokens(similarity_scores(patches, center), k)"
GATHER = "np.take_along_axis(tokens, ids[:, :, None], axis=1)"

FAULTS = (
    numpy_fault("prefix tokens dropped", "reduce-prefix", ("ops", JOINED, "gather_tokens(patches, ids), ids")),
    numpy_fault(
        "prefix tokens in the mean",
        "reduce-prefix",
        ("ops", IDS, "ids = select_tokens(similarity_scores(tokens, center)[:, num_prefix_tokens:], k)"),
    ),
    numpy_fault(
        "prefix tokens last",
        "reduce-own-scores",
        ("ops", JOINED, "np.concatenate([gather_tokens(patches, ids), prefix], axis=1), ids"),
    ),
    numpy_fault("ids count the prefix", "reduce-own-scores", ("ops", JOINED, JOINED + " + num_prefix_tokens")),
    numpy_fault(
        "center ignored", "reduce-reference", ("ops", IDS, "ids = select_tokens(similarity_scores(patches), k)")
    ),
    numpy_fault(
        "gathers in ascending order",
        "gather-indexing",
        ("ops", GATHER, "np.take_along_axis(tokens, np.sort(ids, axis=1)[:, :, None], axis=1)"),
    ),
    numpy_fault(
        "gathers by a product with 0 and 1",
        "gather-dropped",
        ("ops", GATHER, "(np.eye(tokens.shape[1])[ids][:, :, :, None] * tokens[:, None]).sum(axis=2)"),
    ),
    numpy_fault("every image gathers the first one's ids", "gather-indexing", ("ops", GATHER, "tokens[:, ids[0]]")),
)
