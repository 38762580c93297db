"""The reference: PCAE in plain NumPy and float64, written to be read next to the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcae_core.contract import Capabilities
from pcae_core.registry import BackendSpec

if TYPE_CHECKING:
    from pcae_numpy.backend import NumpyBackend

CAPABILITIES = Capabilities(training=True, dtypes=("float64",), devices=("cpu",))


def _create(device: str = "cpu") -> NumpyBackend:
    from pcae_numpy.backend import NumpyBackend

    return NumpyBackend(device)


SPEC = BackendSpec(
    name="numpy",
    create=_create,
    capabilities=CAPABILITIES,
    requires=("numpy",),
    distribution="numpy",
    install="pip install pcae",
    weights_suffix=".npz",
)
