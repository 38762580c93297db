"""fp16 and int8 models: written, measured against fp32, and warned of."""

from __future__ import annotations

import contextlib
import resource

import numpy as np
import pytest
from onnx_models import exported, pixels

from pcae_core.errors import ModelFileError
from pcae_onnx import quantize
from pcae_onnx.session import InferenceSession


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
@pytest.mark.parametrize("keep", [0.7, None])
def test_narrow_models_are_measured(tmp_path, dtype, keep):
    done = exported(tmp_path, keep=keep, dtype=dtype)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "config.json", "preprocessor_config.json"}
    session = InferenceSession(tmp_path)
    assert session.info.dtype == dtype
    assert session.run(pixels(2)).logits.dtype == np.float32
    assert (done.agreement.images, done.agreement.keep) == (16, 0.7)
    assert done.agreement.kept_ids > 0.8
    assert done.agreement.cosine > 0.9
    assert [batch for batch, _ in done.agreement.speed] == [1, 8]


@contextlib.contextmanager
def files_up_to(size: int):
    """A limit on the size of files stands for a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_full_disk_at_quantising_is_one_line_and_changes_nothing(tmp_path):
    """ONNX Runtime's quantiser first writes the model with the shapes that it infers, which is larger."""
    size = exported(tmp_path, keep=0.7).path.stat().st_size
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_up_to(size + 300), pytest.raises(ModelFileError, match="cannot quantise the model; is the disk full"):
        exported(tmp_path, keep=0.7, dtype="int8")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_warnings_name_what_is_below_its_limit():
    assert quantize.Agreement(8, 0.7, 1.0, 1.0, None, ((1, 1.5),)).warnings() == []
    lines = quantize.Agreement(8, 0.7, 0.5, 0.6, 0.7, ((1, 0.5), (8, 2.0))).warnings()
    assert lines == [
        "kept patches 0.500 is below 0.95",
        "cosine of features 0.600 is below 0.99",
        "same best class 0.700 is below 0.98",
        "at batch 1 it is slower than float32 (0.50 x)",
    ]
