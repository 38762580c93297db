"""Training runs that are killed and go on, over and over: nothing saved may be lost, and the end must be the same.

A run is killed half of the times by SIGKILL, at one of the operations on files that writing a checkpoint consists of
(also with half of a file written), else by SIGPROF at a random moment of its CPU time, which it does not catch either.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import patience
import runs

from pcae_core import checkpoint

STEPS, EVERY = 12, 2
RUN = (*runs.SETTINGS, "--backend", "numpy", "--steps", STEPS, "--checkpoint-every", EVERY, "--loader.workers", 0)
OPERATIONS = 40
"""A checkpoint takes about a dozen, so a process writes one or several before it dies."""

CHILD = """
import os, signal, sys
from pathlib import Path
import shutil
from pcae_core.storage import tensors
from pcae.cli import main as cli

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(function):
    def operation(*arguments, **options):
        global left
        left -= 1
        if left == 0 and when != "after":
            if when == "half" and function is save_file:
                function(*arguments, **options)
                os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
            die()
        result = function(*arguments, **options)
        if left == 0:
            die()
        return result
    return operation

kind, amount, when = sys.argv[1], float(sys.argv[2]), sys.argv[3]
left, save_file = int(amount), tensors.save_file
if kind == "operation":
    tensors.save_file = deadly(save_file)
    os.fsync, shutil.rmtree = deadly(os.fsync), deadly(shutil.rmtree)
    for name in ("rename", "replace", "mkdir", "unlink", "write_text"):
        setattr(Path, name, deadly(getattr(Path, name)))
else:
    signal.setitimer(signal.ITIMER_PROF, amount)
sys.exit(cli.run(sys.argv[4:]))
"""


@dataclass
class Outcome:
    """What has happened: deaths by kind, runs that came to their end, and the longest way back in steps."""

    deaths: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    most_lost: int = 0


def kill_runs(folder: Path, kills: int, seed: int = 0) -> Outcome:
    """Kill so many processes, each of which goes on where the one before died; AssertionError if anything is lost."""
    data = runs.write_data(folder / "data")
    whole = folder / "whole"
    before = cpu_seconds()
    done = runs.pcae("pretrain", "--data", data, "--out", whole, *RUN)
    assert done.returncode == 0, done.stderr
    seconds = cpu_seconds() - before
    (folder / "child.py").write_text(CHILD)
    rng = np.random.Generator(np.random.Philox(seed))
    outcome, number = Outcome(), 0
    while outcome.deaths.total() < kills:
        out = folder / f"run{number}"
        kind = "operation" if rng.random() < 0.5 else "moment"
        amount = rng.integers(1, OPERATIONS) if kind == "operation" else rng.uniform(0.0, seconds)
        when = rng.choice(["before", "after", "half"])
        child = [
            sys.executable,
            folder / "child.py",
            kind,
            amount,
            when,
            "pretrain",
            "--data",
            data,
            "--out",
            out,
            *RUN,
        ]
        done = subprocess.run(
            list(map(str, child)), capture_output=True, text=True, env=runs.environment(), timeout=patience.SECONDS
        )
        if done.returncode in (-signal.SIGKILL, -signal.SIGPROF):
            outcome.deaths[kind] += 1
            outcome.most_lost = max(outcome.most_lost, lost_steps(out))
            continue
        assert done.returncode == 0, done.stderr
        last = f"checkpoints/step_{STEPS:08d}"
        runs.assert_same_tensors(out / last, whole / last)
        assert [row["step"] for row in runs.metrics(out)] == list(range(1, STEPS + 1))
        outcome.ended, number = outcome.ended + 1, number + 1
    return outcome


def cpu_seconds() -> float:
    """Of all processes that have been started and waited for."""
    times = os.times()
    return times.children_user + times.children_system


def lost_steps(out: Path) -> int:
    """Measured steps beyond the newest checkpoint, at most an interval; every checkpoint there can be loaded."""
    measured = [row["step"] for row in runs.metrics(out)]
    saved = [checkpoint.load(path).manifest.step for path in checkpoint.list_checkpoints(out / "checkpoints")]
    lost = int(max(measured, default=0)) - max(saved, default=0)
    assert lost <= EVERY, f"{out} measured {measured} and has saved {saved}"
    return lost
