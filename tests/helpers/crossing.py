"""Training that is compared across frameworks: states after the same steps, and runs that go on in another one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import patience
import runs

from pcae_core.contract import TrainState

STEPS = 9
PROGRAMS = Path(sys.executable).parent


def without_key_bias(name: str, value: np.ndarray) -> np.ndarray:
    """Softmax makes the gradient of the key bias zero; AdamW turns its rounding noise into motion."""
    if not name.endswith("qkv.bias"):
        return value
    query, _, rest = np.split(value, 3)
    return np.concatenate([query, rest])


def assert_same_states(ours: TrainState, expected: TrainState, tolerance: float) -> None:
    assert ours.step == expected.step
    for group in ("student", "teacher", "exp_avg", "exp_avg_sq"):
        assert getattr(ours, group).keys() == getattr(expected, group).keys()
        for name, value in getattr(expected, group).items():
            pair = (without_key_bias(name, x) for x in (getattr(ours, group)[name], value))
            np.testing.assert_allclose(*pair, rtol=0, atol=tolerance, err_msg=f"{group} {name}")


def arguments(whole: Path, out: Path, *more: object) -> list[str]:
    """Of a run on the images that lie beside the whole one."""
    every = ("--steps", STEPS, "--checkpoint-every", 3, "--model.depth", 8)  # as many parameters as a real model
    data = whole.with_name("shapes")
    return list(map(str, ("pretrain", "--data", data, "--out", out, *runs.SETTINGS, *every, *more)))


def whole_run(folder: Path) -> Path:
    """A run in PyTorch that nothing disturbed, beside its images."""
    whole = folder / "whole"
    runs.write_data(whole.with_name("shapes"))
    done = runs.pcae(*arguments(whole, whole))
    assert done.returncode == 0, done.stderr
    return whole


def back_to(run: Path, step: int) -> None:
    """Remove the checkpoints after `step`, as if the run had been stopped there."""
    for path in (run / "checkpoints").glob("step_*"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)


def resume(run: Path, backend: str, working: Path) -> None:
    command = runs.command("pretrain", "--resume", run, "--backend", backend)
    environment = runs.environment()
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=patience.SECONDS, cwd=working
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert ("compiling the first step" in done.stdout) == (backend == "mindspore")


def start_job(command: list[str], working: Path) -> subprocess.Popen[str]:
    """Start a launcher's command line, which becomes several processes."""
    environment = runs.environment() | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, env=environment, cwd=working)


def launched(command: list[str], working: Path) -> None:
    """Run it to its end."""
    process = start_job(command, working)
    output, _ = process.communicate(timeout=patience.SECONDS)
    assert process.returncode == 0, output


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in runs.metrics(run)]


def assert_same_end(run: Path, whole: Path) -> None:
    ours, expected = (runs.tensors(path / "checkpoints" / f"step_{STEPS:08d}") for path in (run, whole))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        pair = (without_key_bias(name, x) for x in (ours[name], value))
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(losses(run), losses(whole), rtol=1e-4)
