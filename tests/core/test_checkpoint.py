"""Checkpoints as files: round trip, strictness, what survives a failed write, which ones are kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pcae_core import CheckpointError, ModelConfig, PretrainConfig, TrainState, checkpoint, parameters
from pcae_core.storage.tensors import check_tensors

CONFIG = PretrainConfig(model=ModelConfig.preset("vit_micro_patch8_64", depth=3))
DATA = checkpoint.DataPosition(fingerprint="abc", num_samples=10, samples_seen=0)


def state(step: int = 0) -> TrainState:
    student = parameters.initial_parameters(CONFIG.model, step)
    teacher = {name: student[name] for name in parameters.encoder_shapes(CONFIG.model)}
    moments = {name: np.full_like(v, step) for name, v in student.items() if parameters.is_trainable(name)}
    return TrainState(student, teacher, moments, {k: 2 * v for k, v in moments.items()}, step, (128.0, 3))


def save(folder: Path, step: int, ratio: float = 0.5) -> Path:
    return checkpoint.save(folder, state(step), CONFIG, DATA, {"loss_ratio": ratio, "bad": float("nan")}, {})


def test_round_trip(tmp_path):
    path = save(tmp_path, 7)
    found = checkpoint.load(path, CONFIG.model)
    assert found.state.step == 7
    assert found.state.loss_scale == (128.0, 3)
    assert found.manifest.config == CONFIG
    assert found.manifest.metrics == {"loss_ratio": 0.5}
    for group in ("student", "teacher", "exp_avg", "exp_avg_sq"):
        ours, theirs = getattr(state(7), group), getattr(found.state, group)
        assert list(ours) == list(theirs)  # what is summed over all tensors depends on the order
        for name, value in ours.items():
            np.testing.assert_array_equal(theirs[name], value)


@pytest.mark.parametrize("failing", ["mkdir", "fsync", "rename"])
def test_failed_write_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, failing):
    first = save(tmp_path, 1)

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        *{"mkdir": (Path, "mkdir"), "fsync": (os, "fsync"), "rename": (Path, "rename")}[failing], refuse
    )
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoint.list_checkpoints(tmp_path) == [first]
    assert checkpoint.load(first).state.step == 1
    assert checkpoint.load(save(tmp_path, 2)).state.step == 2


def test_half_written_folder_is_ignored_and_replaced(tmp_path):
    done = save(tmp_path / "checkpoints", 1)
    half = tmp_path / "checkpoints" / ".writing_step_00000002"
    shutil.copytree(done, half)
    assert checkpoint.find(tmp_path) == done
    assert checkpoint.load(save(tmp_path / "checkpoints", 2)).state.step == 2
    assert not half.exists()


def test_wrong_tensors_are_listed():
    expected = {"a": (2,), "b": (3, 1)}
    found = {"b": np.zeros((1, 3)), "c": np.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        check_tensors(Path("x"), found, expected)
    for part in ("missing a", "surplus c", "b has shape (1, 3) instead of (3, 1)"):
        assert part in str(caught.value)


def test_other_format_is_refused(tmp_path):
    path = save(tmp_path, 1)
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(path)
