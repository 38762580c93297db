"""Check that `torch.compile` can work: on CPUs it needs a C++ compiler, and its own error without one is long."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from pcae_core.errors import BackendError


def missing() -> str | None:
    """The first requirement of compiling for CPUs that this machine lacks, or None."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # PyTorch's choice
    if sys.platform != "win32" and shutil.which(compiler) is None:
        return f"the C++ compiler {compiler}"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"Python's header {header}"


def require(device: torch.device) -> None:
    """Raise BackendError when modules on `device` cannot be compiled."""
    lacking = missing() if device.type == "cpu" else None
    if lacking is not None:
        raise BackendError(
            f"torch.compile needs {lacking}, which is not installed; install it (Debian: apt install g++ python3-dev), "
            "or train without compiling"
        )
