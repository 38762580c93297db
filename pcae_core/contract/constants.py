"""Constants and types that the contract, settings and backends share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

STANDARDIZE_EPS = 1e-6
"""Added to the variance of a target token."""
LAYER_NORM_EPS = 1e-6
"""Of every LayerNorm, unless `ModelConfig.layer_norm_eps` says otherwise."""
NORM_EPS = 1e-12
"""Smallest length that a vector is divided by, its largest entry scaled to 1: only a zero token has similarity 0."""
ADAM_EPS = 1e-8
"""Added to the root of AdamW's second moment."""

Array = Any
"""An array of the backend, or a NumPy array."""
Floats = NDArray[np.floating[Any]]
"""A NumPy array of any floating dtype."""
Center = Literal["unit", "raw"]
"""The mean that tokens are scored against: of the unit-length tokens, or of the tokens as they are."""
