"""fp16 and int8 models: written, measured against fp32, and warned of."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
from onnx_models import CONFIG, OTHERS, exported, pixels

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


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
@pytest.mark.parametrize("settings", OTHERS)
def test_narrow_models_of_other_encoders(tmp_path, dtype, settings):
    config = CONFIG.model_copy(update=settings)
    done = exported(tmp_path, config, keep=0.7, dtype=dtype)
    assert done.agreement.kept_ids > 0.8
    assert done.agreement.cosine > 0.9


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


class _Counted:
    """A session, and the CPU time of its runs."""

    def __init__(self, session: InferenceSession) -> None:
        self.session, self.runs, self.seconds = session, 0, 0.0

    def run(self, *arguments: object) -> object:
        begin = time.process_time()
        answer = self.session.run(*arguments)
        self.runs, self.seconds = self.runs + 1, self.seconds + time.process_time() - begin
        return answer


def test_a_round_of_a_small_model_is_long_enough(tmp_path):
    exported(tmp_path, keep=0.7)
    counted = _Counted(InferenceSession(tmp_path, threads=1))
    quantize._speed(counted, counted, pixels(1), None)
    assert counted.seconds > 14 * 0.5 * quantize._ROUND_SECONDS
    assert counted.runs > 14


def test_speeds_do_not_hang_on_what_else_the_machine_does(tmp_path):
    """Beside programs that want every core, a model is as fast as itself."""
    exported(tmp_path, keep=0.7)
    session = InferenceSession(tmp_path, threads=1)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        assert 0.5 < quantize._speed(session, session, pixels(1), None) < 2
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_warnings_name_what_is_below_its_limit():
    assert quantize.Agreement(8, 0.7, 1.0, 1.0, None, ((1, 1.5),)).warnings() == []
    lines = quantize.Agreement(8, 0.7, 0.5, 0.6, 0.7, ((1, 0.5), (8, 2.0))).warnings()
    assert lines == [
        "kept patches 0.500 is below 0.95",
        "cosine of features 0.600 is below 0.99",
        "same best class 0.700 is below 0.98",
        "at batch 1 it is slower than float32 (0.50 x)",
    ]
