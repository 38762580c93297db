"""Floating dtypes by NumPy's names, and rounding to them. NumPy itself lacks bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
"""Spacing of the numbers just above 1, widest dtype first."""
LARGEST_EXPONENT = {"float64": 15, "float32": 15, "bfloat16": 15, "float16": 2}
"""Largest power of ten that scales inputs: they and their products with a weight stay finite."""


def parameter_dtype(precision: str) -> str:
    """Dtype of parameters and moments in training. Half precision applies to matrix products only."""
    return precision if precision in ("float64", "float32") else "float32"


def compute_eps(dtype: str) -> float:
    """Spacing at 1 in scores, standardisation and loss, which are computed in float32 or better."""
    return min(EPS[dtype], EPS["float32"])


def cast(arrays: Mapping[str, NDArray[Any]], dtype: str) -> dict[str, NDArray[Any]]:
    """Copies in `dtype`, by the same names."""
    return {name: value.astype(dtype) for name, value in arrays.items()}


def rounded(x: ArrayLike, dtype: str) -> Floats:
    """The values of `x` rounded to `dtype` (nearest, ties to even), as float64."""
    if dtype != "bfloat16":
        return np.asarray(np.asarray(x, dtype=dtype), dtype=np.float64)
    single = np.asarray(x, dtype=np.float32)
    bits = single.reshape(-1).view(np.uint32).astype(np.int64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # add half of the last kept bit, then truncate
    values = bits.astype(np.uint32).view(np.float32).reshape(single.shape)
    return np.where(np.isfinite(single), values, single).astype(np.float64)


def exact_factors(values: Floats, factors: Floats, dtype: str, axes: tuple[int, ...]) -> Floats:
    """The factors that multiply values in `dtype` without rounding, for whole `axes`; 1 in place of the others.

    Powers of two round nothing, unless a product is among the dtype's smallest or largest numbers.
    """
    scaled = values * factors
    exact = (rounded(scaled, dtype) == scaled).all(axis=axes, keepdims=True)
    return np.where(exact, factors, 1.0)


def dtype_name(array: Any, host: NDArray[Any]) -> str:
    """NumPy's name of the dtype of a backend's array. `host` is the array after `to_numpy`."""
    own = str(getattr(array, "dtype", "")).lower()
    if host.dtype == np.float32 and own.endswith("bfloat16"):  # `to_numpy` widens it
        return "bfloat16"
    return str(host.dtype)
