"""Steps whose loss or gradient is not finite: skipped, counted, and the end of the run when there are too many.

The fault is real: one image of 64 is white, the others are black, and the pixels' deviation is so small that white
overflows. An epoch has 8 steps, one of which has the white image.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import patience
import pytest
import runs
from rich.console import Console

from pcae_core import TrainingError, checkpoint, registry
from pcae_core.config import PretrainConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.training.finetune import finetune
from pcae_core.training.guard import NonFiniteGuard
from pcae_core.training.pretrain import pretrain

WHITE = 37
RUN = {
    "steps": 16,
    "batch_size": 8,
    "base_learning_rate": 0.06,
    "drop_path": 0.2,
    "checkpoint_every": 2,
    "log_every": 1,
    "device": "cpu",
    "loader": {"workers": 0, "mean": [0.0], "std": [1e-38]},
}
MODEL = {"image_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 3, "num_heads": 2}
DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    images, labels = np.zeros((64, 16, 16), np.uint8), np.arange(64) % 2
    np.savez(folder / "test.npz", images=images, labels=labels)
    images[WHITE] = 255
    np.savez(folder / "train.npz", images=images, labels=labels)
    return folder


def settings(data: Path, out: Path, **more: object) -> PretrainConfig:
    return PretrainConfig.from_dict({"model": MODEL | DECODER, "data": str(data), "out": str(out), **RUN, **more})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    said = io.StringIO()
    out = pretrain(settings(data, tmp_path_factory.mktemp("whole") / "run"), Console(file=said, width=200))
    assert said.getvalue().count("is skipped: its loss or gradient is not finite") == 2
    return out


def skipped_at(run: Path) -> list[int]:
    """Steps after which one more was skipped."""
    counts = [0.0, *(row["skipped_steps"] for row in runs.metrics(run))]
    return [step for step in range(1, len(counts)) if counts[step] > counts[step - 1]]


def test_the_guard_counts_in_a_row_whenever_it_is_asked():
    def reads(finite: list[bool], every: int) -> tuple[int | None, int]:
        """First of the steps in a row at which it says stop, and steps skipped until then."""
        guard = NonFiniteGuard(limit=3)
        for step, value in enumerate(finite):
            guard.add(step, value)
            if (step + 1) % every == 0 and guard.look(lambda x: x):
                return guard.first, guard.skipped
        return None, guard.skipped

    good, bad = True, False
    for every in (1, 2, 4, 8):
        assert reads([good, bad, bad, good, bad, bad, good, good], every) == (None, 4)
        assert reads([good, bad, good, bad, bad, bad, bad, good], every)[0] == 3
    guard = NonFiniteGuard(limit=3)
    assert [guard.add(step, bad) for step in range(3)] == [False, False, True]


def test_a_bad_step_is_skipped_and_the_run_goes_on(whole):
    steps = skipped_at(whole)
    assert len(steps) == 2
    rows = {int(row["step"]): row for row in runs.metrics(whole)}
    assert all("loss" not in rows[step] and "grad_norm" not in rows[step] for step in steps)
    assert all(np.isfinite(row["loss"]) for step, row in rows.items() if step not in steps)
    for name, value in runs.tensors(checkpoint.find(whole)).items():
        assert np.isfinite(value).all(), name


def test_two_processes_skip_the_same_steps(whole, data, tmp_path):
    """Though only one of them has the white image."""
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(settings(data, out).to_yaml())
    command = runs.torchrun("pretrain", "--config", file)
    done = subprocess.run(command, capture_output=True, text=True, env=runs.environment(), timeout=patience.SECONDS)
    assert done.returncode == 0, done.stderr
    assert skipped_at(out) == skipped_at(whole)
    one, two = ([row.get("loss", np.nan) for row in runs.metrics(run)] for run in (whole, out))
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_too_many_end_the_run_with_their_images_and_it_can_go_on(whole, data, tmp_path):
    out, bad = tmp_path / "run", skipped_at(whole)[0]
    with pytest.raises(TrainingError) as stopped:
        pretrain(settings(data, out, max_skipped_steps=1), Console(quiet=True))
    saved = checkpoint.find(out)
    for part in (f"from step {bad} on", saved.name, "lower base_learning_rate", "grad_clip"):
        assert part in str(stopped.value)
    assert bad - 2 <= checkpoint.read_manifest(saved).step <= bad
    written = dict(np.load(out / f"nonfinite_{bad:08d}.npz"))
    white = written.pop("sample_ids") == WHITE
    assert white.sum() == 1
    assert (written["images"][white] == 255).all()
    assert (written["images"][~white] == 0).all()
    config = settings(data, out)
    again = registry.create("torch", device="cpu").create_pretrainer(config, checkpoint.load(out, config.model).state)
    assert not again.step(**written, learning_rate=1e-3, momentum=0.9).finite
    pretrain(config, Console(quiet=True))
    runs.assert_same_tensors(checkpoint.find(out), checkpoint.find(whole))


def test_fine_tuning_too(whole, data, tmp_path):
    plain = {"random_erasing": 0.0, "rand_augment": None, "mixup": 0.0, "cutmix": 0.0, "max_skipped_steps": 1}
    run = RUN | {"data": str(data), "out": str(tmp_path / "run"), "pretrained": str(whole)} | plain
    with pytest.raises(TrainingError, match="max_skipped_steps = 1 times in a row"):
        finetune(FinetuneConfig.from_dict(run), Console(quiet=True))
    (written,) = (tmp_path / "run").glob("nonfinite_*.npz")
    inputs = np.load(written)
    assert WHITE in inputs["sample_ids"]
    assert inputs["targets"].shape == (8, 2)
