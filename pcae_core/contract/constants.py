"""Constants and types that the contract, settings and backends share."""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import NDArray

STANDARDIZE_EPS = 1e-6
"""Added to the variance of a target token."""
LAYER_NORM_EPS = 1e-6
"""Epsilon of every LayerNorm, unless `ModelConfig.layer_norm_eps` is set."""
NORM_EPS = 1e-12
"""Smallest length to divide a vector by, after its largest entry is scaled to 1. So only a zero token scores 0."""
ADAM_EPS = 1e-8
"""Added to the root of AdamW's second moment."""

Array = Any
"""An array of the backend, or a NumPy array."""
Floats = NDArray[Any]  # with np.floating, mypy refuses a dictionary of float64 arrays
"""A NumPy array of any floating dtype."""
Center = Literal["unit", "raw"]
"""The mean that tokens are compared with: of the unit-length tokens, or of the raw tokens."""
