"""Faults of `split_by_noise`."""

from __future__ import annotations

from faults.mutation import numpy_fault

SPLIT = 'order = np.argsort(noise, axis=1, kind="stable")'

FAULTS = (
    numpy_fault("largest noise is visible", "masks-partition", ("ops", SPLIT, SPLIT.replace("noise,", "-noise,"))),
    numpy_fault("noise in float32", "masks-partition", ("ops", SPLIT, SPLIT.replace("noise,", "np.float32(noise),"))),
    numpy_fault(
        "visible ids in order of noise",
        "masks-partition",
        ("ops", "np.sort(order[:, :num_visible], axis=1)", "order[:, :num_visible]"),
    ),
    numpy_fault(
        "first patches seen more often",
        "masks-uniform",
        ("ops", SPLIT, SPLIT.replace("noise,", "noise * (1.0 + np.arange(noise.shape[1])),")),
    ),
    numpy_fault(
        "one split for the whole batch",
        "masks-place",
        ("ops", SPLIT, SPLIT.replace("noise,", "noise * 0.0 + noise[:1],")),
    ),
)
