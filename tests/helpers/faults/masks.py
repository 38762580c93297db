"""Faults of `split_by_noise`."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override


def of_changed(change):
    """`split_by_noise` of changed noise."""
    return lambda self, noise, num_visible: self.right.split_by_noise(change(noise), num_visible)


def in_order_of_noise(self, noise, num_visible):
    _, masked = self.right.split_by_noise(noise, num_visible)
    return np.argsort(noise, axis=1, kind="stable")[:, :num_visible], masked


FAULTS = (
    numpy_override("largest noise is visible", "masks-partition", split_by_noise=of_changed(lambda noise: -noise)),
    numpy_override("noise in float32", "masks-partition", split_by_noise=of_changed(np.float32)),
    numpy_override("visible ids in order of noise", "masks-partition", split_by_noise=in_order_of_noise),
    numpy_override(
        "first patches seen more often",
        "masks-uniform",
        split_by_noise=of_changed(lambda noise: noise * (1.0 + np.arange(noise.shape[1]))),
    ),
    numpy_override(
        "one split for the whole batch",
        "masks-place",
        split_by_noise=of_changed(lambda noise: noise * 0.0 + noise[:1]),
    ),
)
