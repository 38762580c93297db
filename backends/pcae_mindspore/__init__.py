"""PCAE in MindSpore: trains and infers on CPU, Ascend and GPU. MindSpore is imported when the backend is created."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcae_core.contract import Capabilities
from pcae_core.errors import BackendError, MissingExtraError
from pcae_core.registry import BackendSpec

if TYPE_CHECKING:
    from pcae_mindspore.backend import MindSporeBackend
    from pcae_mindspore.encoder import Encoder

__all__ = ["CAPABILITIES", "SPEC", "Encoder"]

# bfloat16 is not listed: only Ascend has kernels for it, and accepts `precision: bfloat16`.
CAPABILITIES = Capabilities(training=True, dtypes=("float64", "float32", "float16"), devices=("ascend", "gpu", "cpu"))
# On other platforms the extra is empty, because MindSpore has no wheel.
INSTALL = 'pip install "pcae[mindspore]", with Python 3.11 or 3.12 on Linux'


def __getattr__(name: str) -> Any:
    """Import `Encoder`, and MindSpore with it, on first use."""
    if name == "Encoder":
        prepare()
        from pcae_mindspore.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _create(device: str = "cpu") -> MindSporeBackend:
    prepare()
    from pcae_mindspore.backend import MindSporeBackend

    return MindSporeBackend(device)


def prepare() -> None:
    """Check packages and set the environment before MindSpore is imported. Raises BackendError when it cannot work."""
    if importlib.util.find_spec("mindspore") is None:
        raise MissingExtraError(f"MindSpore is not installed; install it with: {INSTALL}")
    if int(np.__version__.partition(".")[0]) >= 2:
        raise BackendError(
            f"MindSpore is compiled for NumPy 1 and fails with NumPy {np.__version__}, which is installed here; "
            'install the pin with: pip install "numpy<2"'
        )
    # Compiling a graph logs warnings that no user can act on. A graph that cannot be
    # compiled leaves a report, by default in the working directory.
    os.environ.setdefault("GLOG_v", "3")
    os.environ.setdefault("MS_OM_PATH", str(Path(tempfile.gettempdir()) / "mindspore"))


SPEC = BackendSpec(
    name="mindspore",
    create=_create,
    capabilities=CAPABILITIES,
    requires=("mindspore",),
    distribution="mindspore",
    install=INSTALL,
    weights_suffix=".ckpt",
)
