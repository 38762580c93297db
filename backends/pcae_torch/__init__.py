"""PCAE in PyTorch: trains and infers on CPU and CUDA. PyTorch is imported when the backend is created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pcae_core.contract import Capabilities
from pcae_core.registry import BackendSpec

if TYPE_CHECKING:
    from pcae_torch.backend import TorchBackend
    from pcae_torch.encoder import Encoder

__all__ = ["CAPABILITIES", "SPEC", "Encoder"]

CAPABILITIES = Capabilities(
    training=True, dtypes=("float64", "float32", "bfloat16", "float16"), devices=("cuda", "cpu")
)


def __getattr__(name: str) -> Any:
    """Import `Encoder`, and PyTorch with it, on first use."""
    if name == "Encoder":
        from pcae_torch.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _create(device: str = "cpu") -> TorchBackend:
    from pcae_torch.backend import TorchBackend

    return TorchBackend(device)


SPEC = BackendSpec(
    name="torch",
    create=_create,
    capabilities=CAPABILITIES,
    requires=("torch",),
    distribution="torch",
    install='pip install "pcae[torch]"',
    weights_suffix=".pth",
)
