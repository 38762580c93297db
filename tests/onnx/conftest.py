"""A small exported encoder with class names, and its session: what the services under test are held to."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_models import CLASSES, exported

from pcae_onnx.session import InferenceSession


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("serve") / "small", keep=None, class_names=CLASSES).path.parent


@pytest.fixture(scope="module")
def session(folder) -> InferenceSession:
    return InferenceSession(folder, threads=1)
