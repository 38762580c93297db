"""Small real runs of the command line, in processes of their own."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import patience
from rich.console import Console
from safetensors.numpy import load_file

SETTINGS = shlex.split("""
--model.image-size 16 --model.patch-size 4 --model.in-chans 1 --model.embed-dim 16 --model.depth 3
--model.num-heads 2 --model.decoder-embed-dim 16 --model.decoder-depth 1 --model.decoder-num-heads 2
--model.mask-ratio 0.6 --model.reduction.keep 0.7 --model.init-residual-scale 0.1 --base-learning-rate 0.06
--batch-size 8 --log-every 1 --loader.workers 1 --drop-path 0.2 --device cpu
""")


def write_shapes(path: Path, count: int, seed: int, size: int = 16) -> None:
    """An .npz of bright squares (class 0) and discs (class 1) on noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, size, size), dtype=np.uint8)
    labels = np.arange(count) % 2
    rows, columns = np.mgrid[:size, :size]
    for image, label in zip(images, labels, strict=True):
        y, x, radius = rng.uniform(5, size - 5), rng.uniform(5, size - 5), rng.uniform(2.5, 4.5)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        square = np.maximum(abs(rows - y), abs(columns - x)) < radius
        image[disc if label else square] = rng.integers(150, 255)
    np.savez(path, images=images, labels=labels)


def write_data(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_shapes(folder / "train.npz", 64, seed=0)
    write_shapes(folder / "test.npz", 32, seed=1)
    return folder


def environment() -> dict[str, str]:
    """One thread, so that sums are in one order."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pcae.cli", *map(str, arguments)]


def pcae(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `pcae` to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), timeout=patience.SECONDS
    )


def torchrun(*arguments: object) -> list[str]:
    """`pcae` as two processes."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "pcae.cli"]
    return [sys.executable, *launcher, *map(str, arguments)]


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start `pcae` and do not wait."""
    return started(command(*arguments))


def started(command: list[object]) -> subprocess.Popen[str]:
    """A command line that is not waited for."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment(), **pipes)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds, while the process lives. A busy machine slows the process, not the one who watches."""
    if process.poll() is None:
        os.setpriority(os.PRIO_PROCESS, process.pid, 10)

    def holds() -> bool:
        held = condition()
        assert held or process.poll() is None, (process.stderr or process.stdout).read()
        return held

    patience.wait_for(holds)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def metrics(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def tensors(checkpoint: Path) -> dict[str, np.ndarray]:
    """Everything in a checkpoint's files."""
    return {
        f"{path.name}:{k}": v for path in sorted(checkpoint.glob("*.safetensors")) for k, v in load_file(path).items()
    }


def told(train: Callable[[Any, Console], Path], config: object) -> tuple[Path, str]:
    """A run in this process, and what it printed."""
    text = io.StringIO()
    return train(config, Console(file=text, width=1000)), text.getvalue()


def assert_same_tensors(one: Path, other: Path) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    assert first
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
