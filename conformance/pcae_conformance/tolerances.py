"""How far a backend may be from the exact result: one place, from the dtype and the length of the sums.

Letters: eps the spacing of floating numbers at 1 (2**-52 for float64), N tokens, D width.

- A sum of n products, in any order and with or without fused operations, is off by at most `n * eps` times the sum of
  the products' sizes. Of two unit vectors that is at most 1, so a cosine over D features is off by `D * eps`, plus a
  few eps for the divisions and roots around it (`SLACK`). The bound is linear in n on purpose: typical errors grow like
  the root of n and stay at a few percent of it, so that no healthy backend fails by bad luck, and a real fault (half
  precision, a missing term, another eps) is orders of magnitude above it.
- Scores and losses are computed in float32 or better, so half-precision inputs are judged by float32's eps. Inputs
  are rounded to the dtype before either side sees them: rounding the input is no error of a backend.
- The mean token may nearly cancel. Its error relative to its length then grows by the condition number
  `mean |token| / |mean token|`, and so does that of the scores. Where the mean cancels entirely, any score will do.
- Whole models multiply rounding errors layer by layer, so their bounds are measured, not derived (see `MODEL`).
"""

from __future__ import annotations

import numpy as np

from pcae_conformance.dtypes import EPS, Floats, compute_eps
from pcae_core.contract import Center

SLACK = 16
"""Roundings around a sum: divisions, roots, the final cast."""
MODEL = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 1.0, "float16": 0.125}
"""Error of a model's features and predictions, which are 1 to 3 in size.

1e-9 is what float64 must reach. Of 3,000 random models of up to five blocks in PyTorch the worst were 2e-14 in float64,
4e-6 in float32, 0.2 in bfloat16 and 0.015 in float16; the worst are rare, at a LayerNorm of a token of small deviation.
"""
SCORE_MARGIN = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""Scores inside a model that are nearer to each other may change places."""
GRADIENT = {"float64": 1e-9, "float32": 5e-4}
"""Error of a gradient, as a share of the largest of the model. Worst of 300,000 in PyTorch: 1e-14 and 3e-5."""
TRAINED = {"float64": 1e-9, "float32": 1e-3}
"""Error of a parameter after a step of AdamW, as a share of the learning rate, beside one rounding of the parameter."""
TEN_STEPS = 1e-6
"""Error of a parameter after ten steps in float64, as a share of the learning rate. Worst of 36,000: 1e-10.

Larger than that of one step, since AdamW divides a small gradient by its own size and rounding with it.
"""
HALF_RMS = {"bfloat16": 0.05, "float16": 0.006}
"""Root mean square error of a model's features. PyTorch's are at most 0.014 and 0.0012; without attention's scale they
are at least 0.22 in both."""
HALF_COSINE = 0.95
"""Smallest cosine between a step's gradients and the reference's. The smallest of 1,200 in PyTorch was 0.992."""
DIFFERENCE_STEP = 1e-5
"""Length of the step of a central difference in float64."""
CENTRAL_DIFFERENCE = 1e-6
"""Error of a central difference: 1e-16 / step = 1e-11 by rounding, and step**2 = 1e-10 of the third derivative."""


def cosine(width: int, dtype: str) -> float:
    """Of a cosine over D features."""
    return compute_eps(dtype) * (SLACK + width)


def scores(tokens: Floats, center: Center, dtype: str) -> Floats:
    """Of the similarity scores of tokens (B, N, D): (B, 1)."""
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
    """Of standardised tokens (B, K, D): (B, K, 1). The mean's error counts relative to the deviation."""
    width = latents.shape[-1]
    deviation = np.sqrt(latents.var(axis=-1, ddof=1, keepdims=True) + eps)
    largest = np.abs(latents).max(axis=-1, keepdims=True)
    allowed: Floats = cosine(width, dtype) * (1.0 + largest / deviation) * np.sqrt(width)
    return allowed


def loss(shape: tuple[int, ...], dtype: str) -> float:
    """Of the mean cosine loss of tokens (B, K, D)."""
    return cosine(shape[-1], dtype) + compute_eps(dtype) * shape[0] * shape[1]


def ema(teacher: Floats, student: Floats, dtype: str) -> Floats:
    """Of an EMA step; the result is rounded to the parameters' dtype."""
    allowed: Floats = 4.0 * EPS[dtype] * (np.abs(teacher) + np.abs(student))
    return allowed
