"""Faults while `pcae` works: signals, folders that cannot be written or are gone, clocks that jump."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import patience
import pytest
import runs
from PIL import Image
from refusals import refused

from pcae.cli import main as cli
from pcae_core import checkpoint

STEPS = 40
SETTINGS = (*runs.SETTINGS, "--steps", STEPS, "--checkpoint-every", 10, "--backend", "numpy", "--loader.workers", 0)
FORBID_AS_TO_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""What root may write in spite of a folder's mode, it must not."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Splits in `.npz` files; the test split takes a second to be scored."""
    folder = runs.write_data(tmp_path_factory.mktemp("faults") / "shapes")
    runs.write_shapes(folder / "test.npz", 600, seed=1)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert cli.run(list(map(str, pretraining(data, out)))) == 0
    return out


def pretraining(data: Path, out: Path, *more: object) -> list[object]:
    return ["pretrain", "--data", data, "--out", out, *SETTINGS, *more]


@contextlib.contextmanager
def held_after(steps: int, out: Path, process: subprocess.Popen[str]) -> Iterator[None]:
    """The run's process stands still once it has done so many steps."""
    runs.wait_for(lambda: len(runs.metrics(out)) >= steps, process)
    process.send_signal(signal.SIGSTOP)
    assert len(runs.metrics(out)) < STEPS
    yield
    process.send_signal(signal.SIGCONT)


def one_line(process: subprocess.Popen[str], code: int) -> str:
    """How the process ends."""
    stderr = complaints(process.communicate(timeout=patience.SECONDS)[1])
    assert process.returncode == code, stderr
    assert stderr.startswith("pcae: error: ")
    assert stderr.count("\n") == 1
    return stderr


def complaints(stderr: str) -> str:
    """Without the note that the data of these tests name no classes."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if "classes are matched by number" not in line)


def assert_goes_on_as(whole: Path, out: Path) -> None:
    """Resumed, a run ends as one that nothing disturbed."""
    assert cli.run(["pretrain", "--resume", str(out), "--loader.workers", "0"]) == 0
    assert_ended_as(whole, out)


def assert_ended_as(whole: Path, out: Path) -> None:
    last = f"checkpoints/step_{STEPS:08d}"
    runs.assert_same_tensors(out / last, whole / last)
    rows, expected = runs.metrics(out), runs.metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


# Signals


def test_sigterm_ends_an_evaluation_in_one_line(whole, data):
    process = runs.start("evaluate", whole, "--data", data, "--backend", "numpy")
    runs.wait_for(lambda: "test.npz" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGTERM)
    assert one_line(process, 1) == "pcae: error: interrupted\n"


def test_sigterm_while_the_test_split_is_scored_saves_the_score_too(whole, data, tmp_path):
    out, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    settings = ("--steps", 16, "--batch-size", 8, "--log-every", 1, "--backend", "numpy", "--loader.workers", 0)
    assert cli.run(list(map(str, ("finetune", whole, "--data", data, "--out", undisturbed, *settings)))) == 0
    process = runs.start("finetune", whole, "--data", data, "--out", out, *settings)
    runs.wait_for(lambda: len(runs.metrics(out)) >= 8, process)
    process.send_signal(signal.SIGTERM)
    assert len(runs.metrics(out)) == 8, "the first epoch has been scored already"
    assert f"go on with: pcae finetune --resume {out}" in one_line(process, 1)
    assert "top1" in runs.metrics(out)[-1]
    assert "top1" in checkpoint.read_manifest(out / "checkpoints" / "step_00000008").metrics
    assert cli.run(["finetune", "--resume", str(out)]) == 0
    rows, expected = ([r.get("loss", r.get("top1")) for r in runs.metrics(run)] for run in (out, undisturbed))
    assert rows == expected
    assert len(rows) == 18
    last = "checkpoints/step_00000016"
    runs.assert_same_tensors(out / last, undisturbed / last)


# Folders that cannot be written


def start_as_others(*arguments: object) -> subprocess.Popen[str]:
    """As `runs.start`, but what a folder's mode forbids is forbidden to root too."""
    if FORBID_AS_TO_OTHERS and subprocess.run([*FORBID_AS_TO_OTHERS, "true"], check=False).returncode:
        pytest.skip("root may write everywhere, and setpriv cannot take that from a process here")
    return runs.started([*FORBID_AS_TO_OTHERS, *runs.command(*arguments)])


def test_a_folder_that_cannot_be_written_is_refused_but_can_be_read(whole, data, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    out.chmod(0o555)
    message = one_line(start_as_others("pretrain", "--resume", out), 2)
    assert f"cannot write the run's folder {out}: Permission denied" in message
    message = one_line(start_as_others("report", out), 2)
    assert f"cannot write {out / 'report.html'}: Permission denied" in message
    small = runs.write_data(tmp_path / "small")
    process = start_as_others("evaluate", out, "--data", small, "--backend", "numpy")
    stdout, stderr = process.communicate(timeout=patience.SECONDS)
    assert (process.returncode, complaints(stderr)) == (0, "")
    assert "random" in stdout
    out.chmod(0o755)


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/step_00000010"])
def test_a_folder_that_becomes_read_only_stops_a_run_in_one_line(place, whole, data, tmp_path):
    """The checkpoints' folder, and that of an old one which is to be deleted."""
    out = tmp_path / "run"
    process = start_as_others(*pretraining(data, out, "--checkpoint-every", 2))
    with held_after(11, out, process):
        (out / place).chmod(0o555)
    assert "Permission denied" in one_line(process, 2)
    (out / place).chmod(0o755)
    assert_goes_on_as(whole, out)


def test_a_full_disk_leaves_the_settings(whole, tmp_path):
    """A limit on the size of files stands for the disk."""
    out = shutil.copytree(whole, tmp_path / "run")
    settings = (out / "config.yaml").read_bytes()
    process = runs.started(["prlimit", "--fsize=100", *runs.command("pretrain", "--resume", out)])
    assert f"cannot write the run's folder {out}: File too large" in one_line(process, 2)
    assert (out / "config.yaml").read_bytes() == settings


TENSORBOARD = """
import contextlib, pathlib, sys
from pcae_core import ConfigError
from pcae_core.training.loggers import TensorBoardLogger

logger = TensorBoardLogger(pathlib.Path(sys.argv[1]), 0)
try:
    with contextlib.closing(logger):
        logger.write(1, {f"metric {number}": 1.0 for number in range(1000)})
except ConfigError as error:
    sys.exit(f"pcae: error: {error}")
"""


def test_tensorboard_on_a_full_disk_is_an_error_and_not_a_wait(tmp_path):
    folder = tmp_path / "tensorboard"
    process = runs.started(["prlimit", "--fsize=4096", sys.executable, "-c", TENSORBOARD, folder])
    assert f"cannot write {folder}: File too large" in one_line(process, 1)


# Data that is gone


@pytest.fixture(scope="module")
def archive(data) -> Path:
    return data / "train.npz"


@pytest.fixture
def pictures(archive, tmp_path) -> Path:
    """The same images in the same order, in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    with np.load(archive) as arrays:
        for number, image in enumerate(arrays["images"]):
            Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_images_that_vanishes_stops_a_run_in_one_line(workers, pictures, whole, tmp_path, capsys):
    out = tmp_path / "run"
    process = runs.start(*pretraining(pictures, out, "--loader.workers", workers))
    with held_after(11, out, process):
        pictures.rename(tmp_path / "elsewhere")
    message = one_line(process, 2)
    assert "21 images in a row cannot be read" in message
    assert "it does not exist" in message
    assert checkpoint.load(out).manifest.step in (10, 20, 30)
    assert f"there is no data set at {pictures}" in refused(capsys, "pretrain", "--resume", out)
    (tmp_path / "elsewhere").rename(pictures)
    assert_goes_on_as(whole, out)


def copied_archive(archive: Path, place: Path) -> Path:
    return Path(shutil.copy(archive, place / "copy.npz"))


def arrow_folder(archive: Path, place: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image()})
    with np.load(archive) as arrays:
        rows = {"image": [Image.fromarray(image) for image in arrays["images"]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(place / "arrow")
    return place / "arrow"


@pytest.mark.parametrize("write", [copied_archive, arrow_folder])
def test_mapped_data_that_vanishes_is_read_on(write, archive, whole, tmp_path):
    """The file is open, and as long as it is the system keeps it."""
    out, copy = tmp_path / "run", write(archive, tmp_path)
    process = runs.start(*pretraining(copy, out))
    with held_after(11, out, process):
        copy.rename(tmp_path / "elsewhere")
        shutil.rmtree(tmp_path / "elsewhere") if copy.suffix == "" else (tmp_path / "elsewhere").unlink()
    _, stderr = process.communicate(timeout=patience.SECONDS)
    assert (process.returncode, stderr) == (0, "")
    assert_ended_as(whole, out)


# Clocks

CLOCK = """
import datetime, itertools, random, sys, time

if __name__ == "__main__":
    rng, real = random.Random(0), time.time
    time.time = lambda: real() + rng.choice([-1e8, -3600, 0, 3600, 1e8])
    time.time_ns = lambda: int(1e9 * time.time())
    from pcae.cli import main as cli
    sys.exit(cli.run(sys.argv[1:]))
"""


def test_clocks_that_jump_change_nothing(whole, data, tmp_path):
    """Years and hours, to and fro, at each look; times of files in the reverse order."""
    (tmp_path / "clock.py").write_text(CLOCK)
    out = tmp_path / "run"

    def run(*arguments: object) -> None:
        process = runs.started([sys.executable, tmp_path / "clock.py", *arguments])
        _, stderr = process.communicate(timeout=patience.SECONDS)
        assert (process.returncode, stderr) == (0, "")

    run(*pretraining(data, out, "--loader.workers", 1))
    saved = checkpoint.list_checkpoints(out / "checkpoints")
    for age, path in enumerate(saved):
        for file in (*path.iterdir(), path):
            os.utime(file, (1e9 - 1e6 * age,) * 2)
    assert checkpoint.find(out).name == f"step_{STEPS:08d}"
    shutil.rmtree(saved[-1])
    assert checkpoint.find(out) == saved[-2]
    run("pretrain", "--resume", out)
    assert_ended_as(whole, out)
    rates = [row["images_per_second"] for row in runs.metrics(out)]
    assert 0 < min(rates) <= max(rates) < 1e6


# Second processes


def test_a_second_job_in_a_folder_is_refused_and_the_first_goes_on(whole, data, tmp_path):
    """By each of its processes in one line; the rest is torchrun's account, which ends with 1 whatever they say."""
    out = tmp_path / "run"
    first = runs.start(*pretraining(data, out))
    with held_after(11, out, first):
        second = runs.started(runs.torchrun(*pretraining(data, out, "--backend", "torch")))
        _, stderr = second.communicate(timeout=patience.SECONDS)
    _, complaint = first.communicate(timeout=patience.SECONDS)
    assert second.returncode == 1
    assert f"pcae: error: another process trains in {out}; wait for it, stop it, or choose another --out\n" in stderr
    assert re.search(r"Root Cause.*exitcode +: 2 ", stderr, re.DOTALL), stderr
    assert "[rank" not in stderr, "a traceback"
    assert (first.returncode, complaint) == (0, "")
    assert_ended_as(whole, out)
