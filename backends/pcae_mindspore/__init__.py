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

# Without bfloat16, which has kernels on Ascend only; `precision: bfloat16` is accepted there.
CAPABILITIES = Capabilities(training=True, dtypes=("float64", "float32", "float16"), devices=("ascend", "gpu", "cpu"))
# Elsewhere the extra is empty, since MindSpore has no wheel.
INSTALL = 'pip install "pcae[mindspore]", with Python 3.11 or 3.12 on Linux'


def __getattr__(name: str) -> Any:
    """`Encoder` needs MindSpore, which is imported when the class is first asked for."""
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
    """Check and set what MindSpore reads when it is imported. Raises BackendError when it cannot work here."""
    if importlib.util.find_spec("mindspore") is None:
        raise MissingExtraError(f"MindSpore is not installed; install it with: {INSTALL}")
    if int(np.__version__.partition(".")[0]) >= 2:
        raise BackendError(
            f"MindSpore is compiled for NumPy 1 and fails with NumPy {np.__version__}, which is installed here; "
            'install the pin with: pip install "numpy<2"'
        )
    # Compiling a graph logs warnings that nobody can act on; a graph that cannot be
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
