"""Faults in how many tokens stay."""

from __future__ import annotations

from faults.fault import numpy_edit

KEPT = "kept_after_block = config.kept_after_block(ids.shape[1], keep)"

FAULTS = (
    numpy_edit(
        "keeps ceil for floor",
        "schedule-models",
        (
            "model",
            KEPT,
            "n, kept_after_block = ids.shape[1], {}\n"
            "    for i in config.kept_after_block(n, keep):\n"
            "        n = kept_after_block[i] = int(np.ceil(n * keep))",
        ),
    ),
    numpy_edit(
        "share of all tokens at each stage",
        "schedule-models",
        (
            "model",
            KEPT,
            "n = ids.shape[1]\n"
            "    kept_after_block = {i: max(1, int(n * keep)) for i in config.kept_after_block(n, keep)}",
        ),
    ),
)
