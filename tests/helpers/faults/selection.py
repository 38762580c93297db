"""Faults of `select_tokens`."""

from __future__ import annotations

from faults.mutation import numpy_fault

SORT = 'np.sort(np.argsort(scores, axis=1, kind="stable")[:, :k], axis=1)'

FAULTS = (
    numpy_fault("keeps the most similar", "select-lowest", ("ops", "np.argsort(scores,", "np.argsort(-scores,")),
    numpy_fault(
        "ties to the higher index",
        "select-lowest",
        (
            "ops",
            SORT,
            'np.sort(scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, :k], axis=1)',
        ),
    ),
    numpy_fault(
        "ids in order of score", "select-lowest", ("ops", SORT, 'np.argsort(scores, axis=1, kind="stable")[:, :k]')
    ),
    numpy_fault(
        "unstable sort",
        "select-lowest",
        ("ops", SORT, "np.sort(np.argpartition(scores, k - 1, axis=1)[:, :k], axis=1)"),
    ),
    numpy_fault(
        "NaN before all numbers",
        "select-lowest",
        ("ops", "np.argsort(scores,", "np.argsort(np.nan_to_num(scores, nan=-np.inf),"),
    ),
    numpy_fault(
        "-0 before +0",
        "select-lowest",
        ("ops", "np.argsort(scores,", "np.argsort(scores - 1e-300 * np.signbit(scores),"),
    ),
    numpy_fault(
        "infinities as NaN",
        "select-lowest",
        ("ops", "np.argsort(scores,", "np.argsort(np.where(np.isfinite(scores), scores, np.nan),"),
    ),
    numpy_fault(
        "compares rounded scores", "select-lowest", ("ops", "np.argsort(scores,", "np.argsort(np.float32(scores),")
    ),
    numpy_fault(
        "ties kept in order in short rows alone",
        "select-lowest",
        (
            "ops",
            SORT,
            f"{SORT} if scores.shape[1] <= 16 else "
            'np.sort(scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, :k], axis=1)',
        ),
    ),
    numpy_fault("one token more", "select-lowest", ("ops", SORT, SORT.replace(":k]", ":k + 1]"))),
)
