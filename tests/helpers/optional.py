"""Which tests need a package that not every environment can have."""

from __future__ import annotations

import sys

import numpy as np
import pytest

_NEEDS = "MindSpore needs Linux, Python 3.11 or 3.12, and NumPy 1"
# By what MindSpore needs, not by whether it is there: where it can be had, its absence is a failure.
MINDSPORE_CANNOT_BE = (
    sys.platform != "linux" or sys.version_info >= (3, 13) or int(np.__version__.partition(".")[0]) >= 2
)
needs_mindspore = pytest.mark.skipif(MINDSPORE_CANNOT_BE, reason=_NEEDS)


def skip_module_without_mindspore() -> None:
    """For modules that import MindSpore before their tests."""
    if MINDSPORE_CANNOT_BE:
        pytest.skip(_NEEDS, allow_module_level=True)
