"""Tolerances: the largest allowed error of a backend, from the dtype and the length of the sums.

Letters: eps the spacing of floating numbers at 1 (2**-52 for float64), N tokens, D width.

- A sum of n products, in any order and with or without fused operations, is off by at most `n * eps` times the sum of
  the products' sizes. For two unit vectors that sum is at most 1. So a cosine over D features is off by `D * eps`, plus
  a few eps for divisions and roots around it (`SLACK`). The bound is linear in n on purpose. Typical errors grow like
  the root of n and stay at a few percent of the bound, so no correct backend fails by chance. A real fault (half
  precision, a missing term, another eps) is orders of magnitude above it.
- Scores and losses are computed in float32 or better, so float32's eps applies to half-precision inputs too. Inputs
  are rounded to the dtype before backend and reference see them, so rounding the input is no error.
- The mean token may nearly cancel. Its error relative to its length then grows by the condition number
  `mean |token| / |mean token|`, and so does the error of the scores. If the mean cancels entirely, any score passes.
- Whole models multiply rounding errors layer by layer, so their bounds are measured, not derived (see `MODEL`).
"""

from __future__ import annotations

import numpy as np

from pcae_conformance.dtypes import EPS, Floats, compute_eps
from pcae_core.contract import Center

SLACK = 16
"""Number of roundings around a sum: divisions, roots, the final cast."""
MODEL = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 1.0, "float16": 0.125}
"""Error of a model's features and predictions, which are 1 to 3 in size.

float64 must reach 1e-9. The worst of 3,000 random models of up to five blocks in PyTorch were 2e-14 in float64, 4e-6 in
float32, 0.2 in bfloat16 and 0.015 in float16. Such errors are rare: they occur at a LayerNorm of a token with a small
standard deviation.
"""
SCORE_MARGIN = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""Scores inside a model that are closer than this may change places."""
GRADIENT = {"float64": 1e-9, "float32": 5e-4}
"""Error of a gradient, relative to the largest gradient of the model. Worst of 300,000 in PyTorch: 1e-14 and 3e-5."""
TRAINED = {"float64": 1e-9, "float32": 1e-3}
"""Error of a parameter after a step of AdamW, relative to the learning rate, plus one rounding of the parameter."""
TEN_STEPS = 1e-6
"""Error of a parameter after ten steps in float64, relative to the learning rate. Worst of 36,000: 1e-10.

It is larger than after one step, because AdamW divides a small gradient, and its rounding error, by the gradient's
size.
"""
HALF_RMS = {"bfloat16": 0.05, "float16": 0.006}
"""Root mean square error of a model's features. PyTorch has at most 0.014 and 0.0012. A model without attention's scale
has at least 0.22 in both."""
HALF_COSINE = 0.95
"""Smallest cosine between the gradients of a step and the reference's. The smallest of 1,200 in PyTorch was 0.992."""
DIFFERENCE_STEP = 1e-5
"""Length of the step of a central difference in float64."""
CENTRAL_DIFFERENCE = 1e-6
"""Error of a central difference: 1e-16 / step = 1e-11 by rounding, plus step**2 = 1e-10 times the third derivative."""


def cosine(width: int, dtype: str) -> float:
    """Tolerance of a cosine over D features."""
    return compute_eps(dtype) * (SLACK + width)


def scores(tokens: Floats, center: Center, dtype: str) -> Floats:
    """Tolerance (B, 1) of the similarity scores of tokens (B, N, D)."""
    length, width = tokens.shape[1:]
    size = np.linalg.norm(tokens, axis=-1, keepdims=True)
    members = tokens / np.where(size > 0, size, 1.0) if center == "unit" else tokens
    mean_size = np.linalg.norm(members, axis=-1).mean(axis=1)
    size_of_mean = np.linalg.norm(members.mean(axis=1), axis=-1)
    condition = np.divide(mean_size, size_of_mean, out=np.full_like(mean_size, np.inf), where=size_of_mean > 0)
    condition = np.where(mean_size > 0, condition, 1.0)  # all tokens are zero
    allowed: Floats = (cosine(width, dtype) + compute_eps(dtype) * (SLACK + length + width) * condition)[:, None]
    return allowed


def standardized(latents: Floats, eps: float, dtype: str) -> Floats:
    """Tolerance (B, K, 1) of standardised tokens (B, K, D). The mean's error counts relative to the deviation."""
    width = latents.shape[-1]
    deviation = np.sqrt(latents.var(axis=-1, ddof=1, keepdims=True) + eps)
    largest = np.abs(latents).max(axis=-1, keepdims=True)
    allowed: Floats = cosine(width, dtype) * (1.0 + largest / deviation) * np.sqrt(width)
    return allowed


def loss(shape: tuple[int, ...], dtype: str) -> float:
    """Tolerance of the mean cosine loss of tokens (B, K, D)."""
    return cosine(shape[-1], dtype) + compute_eps(dtype) * shape[0] * shape[1]


def ema(teacher: Floats, student: Floats, dtype: str) -> Floats:
    """Tolerance of an EMA step, whose result is rounded to the parameters' dtype."""
    allowed: Floats = 4.0 * EPS[dtype] * (np.abs(teacher) + np.abs(student))
    return allowed
