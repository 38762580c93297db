"""Faults of `similarity_scores`."""

from __future__ import annotations

from faults.mutation import numpy_fault, torch_fault

MEAN = '(unit if center == "unit" else tokens).mean(axis=1, keepdims=True)'
CLIPPED = "np.clip((unit * unit_length(mean)).sum(axis=-1), -1.0, 1.0)"

FAULTS = (
    numpy_fault(
        "mean of raw tokens for unit ones", "scores-reference", ("ops", MEAN, "tokens.mean(axis=1, keepdims=True)")
    ),
    numpy_fault(
        "mean of unit tokens for raw ones", "scores-reference", ("ops", MEAN, "unit.mean(axis=1, keepdims=True)")
    ),
    numpy_fault(
        "mean over the whole batch", "scores-permutation", ("ops", MEAN, "unit.mean(axis=(0, 1), keepdims=True)")
    ),
    numpy_fault(
        "not kept within [-1, 1]", "scores-bounds", ("ops", CLIPPED, "(unit * unit_length(mean)).sum(axis=-1)")
    ),
    numpy_fault(
        "dot product for cosine", "scores-scale", ("ops", CLIPPED, "(tokens * unit_length(mean)).sum(axis=-1)")
    ),
    numpy_fault(
        "zero tokens divided by zero", "scores-bounds", ("ops", "np.where(largest > 0, largest, 1.0)", "largest")
    ),
    numpy_fault(
        "tiny tokens taken for zero ones",
        "scores-scale",
        ("ops", "np.where(largest > 0, largest, 1.0)", "1.0"),
    ),
    numpy_fault(
        "scores in float32",
        "scores-definition",
        (
            "backend",
            "ops.similarity_scores(_floats(tokens), center)",
            "np.float64(ops.similarity_scores(np.float32(tokens), center))",
        ),
    ),
    numpy_fault(
        "NaN replaced by 0",
        "scores-nan",
        (
            "backend",
            "ops.similarity_scores(_floats(tokens), center)",
            "ops.similarity_scores(np.nan_to_num(_floats(tokens)), center)",
        ),
    ),
    torch_fault(
        "scores in half precision",
        "scores-reference",
        "bfloat16",
        ("ops", "tokens = at_least_float32(tokens)\n    unit = unit_length(tokens)", "unit = unit_length(tokens)"),
        (
            "ops",
            "(unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0)",
            "at_least_float32((unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0))",
        ),
    ),
    torch_fault(
        "scores come out in half precision",
        "scores-reference",
        "float16",
        (
            "ops",
            "(unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0)",
            "(unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0).half()",
        ),
    ),
)
