"""The subject of a check: one backend in one dtype, the reference, and the largest error so far."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcae_conformance.compare import compare, require
from pcae_conformance.dtypes import Floats, dtype_name
from pcae_core.contract import Array, Backend, TrainingBackend, training_backend

AT_LEAST_FLOAT32 = "float32 or float64"
"""Dtype of scores, standardised features and losses."""
INTEGER = "integer"
"""Dtype of ids."""


@dataclass
class Subject:
    """A backend under test, with the comparisons that checks make.

    Attributes:
        backend: backend under test.
        reference: `pcae_numpy`.
        dtype: dtype of the floating inputs, which the backend claims.
        worst: largest error in units of its tolerance since the runner last reset it.
    """

    backend: Backend
    reference: TrainingBackend
    dtype: str
    worst: float = field(default=0.0, init=False)

    @property
    def training_backend(self) -> TrainingBackend:
        """The backend under test, for a check that needs training."""
        return training_backend(self.backend)

    @functools.cached_property
    def _own_type(self) -> type:
        return type(self.backend.asarray(np.zeros(1, dtype=np.float32)))

    def own(self, x: ArrayLike, dtype: str | None = None) -> Array:
        """The backend's array of the subject's dtype (or of `dtype`) with the values of `x`."""
        return self.backend.asarray(np.array(x), dtype or self.dtype)

    def own_ids(self, ids: ArrayLike) -> Array:
        """The backend's array of integers."""
        return self.backend.asarray(np.array(ids, dtype=np.int64))

    def own_all(self, parameters: Mapping[str, Floats]) -> dict[str, Array]:
        """Parameters as the backend's arrays of the subject's dtype."""
        return {name: self.own(value) for name, value in parameters.items()}

    def require_own(self, what: str, result: Array) -> None:
        """Raise Mismatch unless `result` is an array of the backend."""
        own = self._own_type
        require(isinstance(result, own), f"{what}: got a {type(result).__name__}, expected a {own.__name__}")

    def host(self, what: str, result: Array, dtype: str) -> NDArray[Any]:
        """A result as NumPy array, floats as float64. Raises Mismatch unless it is the backend's array in `dtype`."""
        self.require_own(what, result)
        host = self.backend.to_numpy(result)
        name = dtype_name(result, host)
        if dtype == INTEGER:
            require(host.dtype.kind == "i", f"{what}: got the dtype {name}, expected integers")
            return host.astype(np.int64)
        if dtype == AT_LEAST_FLOAT32:
            require(name in ("float32", "float64"), f"{what}: got the dtype {name}, expected float32 or better")
        else:
            require(name == dtype, f"{what}: got the dtype {name}, expected {dtype}")
        return host.astype(np.float64)

    def close(
        self, what: str, got: Array, expected: ArrayLike, tolerance: ArrayLike, dtype: str = AT_LEAST_FLOAT32
    ) -> NDArray[Any]:
        """Compare a result of the backend with the expected one, and return it as NumPy array. Raises Mismatch."""
        host = self.host(what, got, dtype)
        self.near(what, host, expected, tolerance)
        return host

    def near(self, what: str, got: ArrayLike, expected: ArrayLike, tolerance: ArrayLike) -> None:
        """As `close`, for values that are in NumPy already."""
        self.worst = max(self.worst, compare(what, np.asarray(got), expected, tolerance))

    def ids(self, what: str, got: Array, shape: tuple[int, ...], below: int) -> NDArray[np.int64]:
        """Ids as NumPy array. Raises Mismatch unless they are integers 0..below-1, ascending and unique in each row."""
        host = self.host(what, got, INTEGER)
        require(host.shape == shape, f"{what}: got the shape {host.shape}, expected {shape}")
        valid = bool(((host >= 0) & (host < below)).all())
        require(valid, f"{what}: ids must be in 0..{below - 1}, got {host.tolist()}")
        ascending = bool((np.diff(host, axis=1) > 0).all())
        require(ascending, f"{what}: ids must be ascending and unique in each row, got {host.tolist()}")
        return host
