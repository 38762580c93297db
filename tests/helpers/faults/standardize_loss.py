"""Faults of `standardize` and `cosine_loss`."""

from __future__ import annotations

from faults.mutation import numpy_fault

VARIANCE = "latents.var(axis=-1, ddof=1, keepdims=True)"

FAULTS = (
    numpy_fault("biased variance", "standardize-definition", ("ops", VARIANCE, "latents.var(axis=-1, keepdims=True)")),
    numpy_fault("eps missing", "standardize-moments", ("ops", "np.sqrt(variance + eps)", "np.sqrt(variance)")),
    numpy_fault(
        "eps beside the root", "standardize-definition", ("ops", "np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)")
    ),
    numpy_fault("eps fixed", "standardize-invariance", ("ops", "np.sqrt(variance + eps)", "np.sqrt(variance + 1e-6)")),
    numpy_fault("over the tokens", "standardize-moments", ("ops", VARIANCE, "latents.var(axis=(1, 2), keepdims=True)")),
    numpy_fault("mean left in", "standardize-invariance", ("ops", "(latents - mean) / np", "latents / np")),
    numpy_fault(
        "NaN of a token hidden",
        "standardize-nan",
        ("backend", "ops.standardize(_floats(latents), eps)", "ops.standardize(np.nan_to_num(_floats(latents)), eps)"),
    ),
    numpy_fault(
        "sum for mean",
        "loss-definition",
        ("ops", "np.asarray(1.0 - cosine.mean())", "np.asarray((1.0 - cosine).sum())"),
    ),
    numpy_fault(
        "sign", "loss-definition", ("ops", "np.asarray(1.0 - cosine.mean())", "np.asarray(1.0 + cosine.mean())")
    ),
    numpy_fault(
        "similarity for distance",
        "loss-definition",
        ("ops", "np.asarray(1.0 - cosine.mean())", "np.asarray(cosine.mean())"),
    ),
    numpy_fault(
        "squared distance",
        "loss-scale",
        (
            "ops",
            "(unit_length(prediction) * unit_length(target)).sum(axis=-1)",
            "1.0 - 0.5 * ((prediction - target) ** 2).sum(axis=-1)",
        ),
    ),
)
