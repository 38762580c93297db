"""Faults of `standardize` and `cosine_loss`."""

from __future__ import annotations

import numpy as np

from faults.fault import numpy_override


def standardizing(variance_axis=-1, ddof=1, centered=True, root=lambda variance, eps: np.sqrt(variance + eps)):
    """`standardize` with parts to get wrong."""

    def standardize(self, latents, eps=1e-6):
        latents = np.array(latents, dtype=np.float64)
        variance = latents.var(axis=variance_axis, ddof=ddof, keepdims=True)
        mean = latents.mean(axis=-1, keepdims=True) if centered else 0.0
        return (latents - mean) / root(variance, eps)

    return standardize


def squared_distance(self, prediction, target):
    return np.asarray(0.5 * ((prediction - target) ** 2).sum(axis=-1).mean())


def sum_for_mean(self, prediction, target):
    return np.asarray(self.right.cosine_loss(prediction, target) * prediction[..., 0].size)


def of_loss(change):
    """`cosine_loss` of which the value is changed."""
    return lambda self, prediction, target: np.asarray(change(self.right.cosine_loss(prediction, target)))


FAULTS = (
    numpy_override("biased variance", "standardize-definition", standardize=standardizing(ddof=0)),
    numpy_override(
        "eps missing",
        "standardize-moments",
        standardize=lambda self, latents, eps=1e-6: self.right.standardize(latents, 0.0),
    ),
    numpy_override(
        "eps beside the root",
        "standardize-definition",
        standardize=standardizing(root=lambda variance, eps: np.sqrt(variance) + eps),
    ),
    numpy_override(
        "eps fixed",
        "standardize-invariance",
        standardize=lambda self, latents, eps=1e-6: self.right.standardize(latents),
    ),
    numpy_override("over the tokens", "standardize-moments", standardize=standardizing(variance_axis=(1, 2))),
    numpy_override("mean left in", "standardize-invariance", standardize=standardizing(centered=False)),
    numpy_override(
        "NaN of a token hidden",
        "standardize-nan",
        standardize=lambda self, latents, eps=1e-6: self.right.standardize(np.nan_to_num(latents), eps),
    ),
    numpy_override("sum for mean", "loss-definition", cosine_loss=sum_for_mean),
    numpy_override("sign", "loss-definition", cosine_loss=of_loss(lambda loss: 2.0 - loss)),
    numpy_override("similarity for distance", "loss-definition", cosine_loss=of_loss(lambda loss: 1.0 - loss)),
    numpy_override("squared distance", "loss-scale", cosine_loss=squared_distance),
)
