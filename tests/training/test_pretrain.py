"""Whole pre-training runs: what they leave, stopping, resuming, several processes."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import patience
import pytest
import runs

from pcae.cli import main as cli
from pcae_core import checkpoint
from pcae_core.config import PretrainConfig

STEPS = 40
CLIPPED = ("--grad-clip", 0.01)  # always, so that the norm's last bit counts


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return runs.write_data(tmp_path_factory.mktemp("pretrain") / "shapes")


def arguments(data: Path, out: Path, *more: object) -> list[object]:
    return [
        "pretrain",
        "--data",
        data,
        "--out",
        out,
        *runs.SETTINGS,
        *CLIPPED,
        "--steps",
        STEPS,
        "--checkpoint-every",
        10,
        *more,
    ]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = runs.pcae(*arguments(data, out))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


def last_checkpoint(run: Path) -> Path:
    return run / "checkpoints" / f"step_{STEPS:08d}"


def test_run_leaves_what_it_promises(whole, data):
    config = PretrainConfig.from_yaml(whole / "config.yaml")
    assert config.steps == STEPS
    rows = runs.metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert {"loss", "loss_ratio", "target_rank", "feature_rank", "kept_share", "images_per_second"} <= rows[0].keys()
    assert list((whole / "tensorboard").glob("events*"))
    kept = {path.name for path in (whole / "checkpoints").iterdir()}
    assert {"step_00000020", "step_00000030", "step_00000040"} <= kept
    assert len(kept) <= 4
    manifest = json.loads((last_checkpoint(whole) / "manifest.json").read_text())
    assert manifest["data"]["samples_seen"] == STEPS * 8
    assert manifest["versions"]["backend"] == "torch"


def test_run_learns(whole):
    losses = [row["loss"] for row in runs.metrics(whole)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_sigterm_saves_and_resume_ends_bit_identical(whole, data, tmp_path):
    out = tmp_path / "run"
    process = runs.start(*arguments(data, out))
    runs.wait_for(lambda: len(runs.metrics(out)) >= 13, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=patience.SECONDS)
    assert process.returncode == 1
    assert f"saved; go on with: pcae pretrain --resume {out}" in stderr
    assert len(stderr.splitlines()) == 1
    stopped = checkpoint.read_manifest(checkpoint.find(out)).step
    assert 13 <= stopped < STEPS

    done = runs.pcae("pretrain", "--resume", out)
    assert done.returncode == 0, done.stderr
    runs.assert_same_tensors(last_checkpoint(out), last_checkpoint(whole))
    assert [row["step"] for row in runs.metrics(out)] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in runs.metrics(out)] == [row["loss"] for row in runs.metrics(whole)]


def test_kill_between_checkpoints_and_automatic_resume_end_bit_identical(whole, data, tmp_path):
    out = tmp_path / "run"
    process = runs.start(*arguments(data, out))
    runs.wait_for(lambda: len(runs.metrics(out)) >= 25, process)
    process.send_signal(signal.SIGSTOP)
    second = runs.pcae(*arguments(data, out))
    assert second.returncode == 2
    assert f"another process trains in {out}" in second.stderr
    process.kill()
    process.communicate(timeout=patience.SECONDS)
    assert checkpoint.read_manifest(checkpoint.find(out)).step in (20, 30)

    done = runs.pcae(*arguments(data, out))
    assert done.returncode == 0, done.stderr
    runs.assert_same_tensors(last_checkpoint(out), last_checkpoint(whole))
    assert [row["step"] for row in runs.metrics(out)] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(("room", "file"), [(100, "metrics.jsonl"), (8000, "checkpoints/step_")])
def test_a_full_disk_stops_a_run_in_one_line_and_nothing_saved_is_lost(room, file, whole, data, tmp_path):
    """A limit on the size of files stands for the disk: it ends a line or a checkpoint half-written."""
    out = tmp_path / "run"
    process = runs.start(*arguments(data, out), "--no-tensorboard")
    runs.wait_for(lambda: len(runs.metrics(out)) >= 11, process)
    limit = (out / "metrics.jsonl").stat().st_size + room
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, stderr = process.communicate(timeout=patience.SECONDS)
    assert process.returncode == 2
    assert f"cannot write {'the checkpoint ' if room > 100 else ''}{out}/{file}" in stderr
    assert len(stderr.splitlines()) == 1
    assert not list((out / "checkpoints").glob(".writing_*"))
    done = runs.pcae("pretrain", "--resume", out)
    assert done.returncode == 0, done.stderr
    runs.assert_same_tensors(last_checkpoint(out), last_checkpoint(whole))
    assert [row["step"] for row in runs.metrics(out)] == list(range(1, STEPS + 1))


def test_finished_run_is_left_as_it_is(whole, data):
    before = (last_checkpoint(whole) / "manifest.json").read_bytes()
    done = runs.pcae("pretrain", "--resume", whole)
    assert done.returncode == 0, done.stderr
    assert (last_checkpoint(whole) / "manifest.json").read_bytes() == before


def test_two_processes_equal_one(whole, data, tmp_path):
    """Same global batch: same losses to 1e-5 over 20 steps, through torchrun and gloo."""
    out = tmp_path / "run"
    done = subprocess.run(
        runs.torchrun(*arguments(data, out)),
        capture_output=True,
        text=True,
        env=runs.environment(),
        timeout=patience.SECONDS,
    )
    assert done.returncode == 0, done.stderr
    one, two = ([row["loss"] for row in runs.metrics(run)][:20] for run in (whole, out))
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_a_rank_that_dies_ends_the_job_and_one_process_goes_on(whole, data, tmp_path):
    """At once, with the rank's number; the same run goes on with another number of processes."""
    out = tmp_path / "run"
    process = runs.started(runs.torchrun(*arguments(data, out)))
    runs.wait_for(lambda: len(runs.metrics(out)) >= 1, process)
    (second,) = (
        pid for pid in runs.children(process.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
    )
    runs.wait_for(lambda: len(runs.metrics(out)) >= 13, process)
    os.kill(second, signal.SIGKILL)
    _, stderr = process.communicate(timeout=patience.SECONDS)
    assert process.returncode == 1
    assert re.search(r"Root Cause.*rank +: 1 .*SIGKILL", stderr, re.DOTALL), stderr
    assert checkpoint.read_manifest(checkpoint.find(out)).step < STEPS
    done = runs.pcae("pretrain", "--resume", out)
    assert done.returncode == 0, done.stderr
    rows, expected = runs.metrics(out), runs.metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([row["loss"] for row in rows], [row["loss"] for row in expected], rtol=1e-5)


def test_other_workers_and_accumulation_give_the_same_run(whole, data, tmp_path):
    out = tmp_path / "run"
    done = runs.pcae(*arguments(data, out, "--loader.workers", 0, "--accumulation", 2))
    assert done.returncode == 0, done.stderr
    one, other = ([row["loss"] for row in runs.metrics(run)] for run in (whole, out))
    np.testing.assert_allclose(other[:20], one[:20], rtol=1e-5)


def test_reference_trains_the_same_run(whole, data, tmp_path):
    out = tmp_path / "run"
    done = runs.pcae(*arguments(data, out, "--backend", "numpy"))
    assert done.returncode == 0, done.stderr
    one, other = ([row["loss"] for row in runs.metrics(run)] for run in (whole, out))
    np.testing.assert_allclose(other[:20], one[:20], rtol=1e-4)


def test_continuing_with_other_settings_is_refused(whole, data):
    done = runs.pcae(*arguments(data, whole, "--seed", 5))
    assert done.returncode == 2
    assert "was started with seed 0 instead of 5" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_checkpoint_is_no_folder_for_a_run(whole, data):
    taken = last_checkpoint(whole)
    before = sorted(path.name for path in taken.iterdir())
    process = runs.pcae(*arguments(data, taken))
    assert process.returncode == 2
    assert f"{taken} is a checkpoint, not a run's folder; choose another --out" in process.stderr
    assert sorted(path.name for path in taken.iterdir()) == before


def test_continuing_with_other_data_is_refused(whole, tmp_path):
    runs.write_shapes(tmp_path / "other.npz", 64, seed=9)
    done = runs.pcae(*arguments(tmp_path / "other.npz", whole))
    assert done.returncode == 2
    assert "is not the data set that the run" in done.stderr


def test_processes_with_one_image_each_are_one_with_two(data, tmp_path):
    ends = []
    for name, command in (("one", runs.command), ("two", runs.torchrun)):
        settings = ("--batch-size", 2, "--steps", 4, "--loader.workers", 0)
        line = command(*arguments(data, tmp_path / name, *settings))
        done = subprocess.run(line, capture_output=True, text=True, env=runs.environment(), timeout=patience.SECONDS)
        assert done.returncode == 0, done.stderr
        assert "UserWarning" not in done.stderr
        ends.append([row["grad_norm"] for row in runs.metrics(tmp_path / name)])
    np.testing.assert_allclose(*ends, rtol=1e-4)


def test_a_run_of_single_images(data, tmp_path):
    out = tmp_path / "run"
    assert cli.run(list(map(str, arguments(data, out, "--batch-size", 1, "--steps", 3, "--loader.workers", 0)))) == 0
    assert len(runs.metrics(out)) == 3
    done = ("finetune", out, "--data", data, "--out", tmp_path / "tuned", "--batch-size", 1, "--steps", 2)
    done = (*map(str, done), "--device", "cpu", "--loader.workers", "0")
    assert cli.run([*done, "--mixup", "0", "--cutmix", "0"]) == 0
    assert cli.run(done) == 2  # pairs are mixed


def test_corrupt_images_are_named_and_too_many_stop_the_run(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(50):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:60])
    done = runs.pcae(*arguments(folder, tmp_path / "run"))
    assert done.returncode == 1
    assert "07.png" in done.stderr
