"""PCAE in JAX: infers on CPU, does not train. JAX is imported when the backend is created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcae_core import BackendSpec, Capabilities

if TYPE_CHECKING:
    from pcae_jax.backend import JaxBackend

CAPABILITIES = Capabilities(training=False, dtypes=("float64", "float32"), devices=("cpu",))


def _create(device: str = "cpu") -> JaxBackend:
    from pcae_jax.backend import JaxBackend

    return JaxBackend(device)


SPEC = BackendSpec(
    name="jax",
    create=_create,
    capabilities=CAPABILITIES,
    requires=("jax",),
    distribution="jax",
    install="pip install pcae-jax",
)
