"""Whether NumPy, PyTorch and MindSpore train alike on real images, and whether a run may cross between them, on CPU.

    python benchmarks/frameworks_agree.py [--data data/fashion-mnist] [--steps 50] [--numpy-steps 10]

The demo's model (depth 6) and recipe, batch 32, drop path 0.1, float32 save NumPy's float64. First, one step after the
other from one initial state: losses, choice of targets, parameters. Then runs of `pcae pretrain` that change the
framework half-way, some of them with two processes in their first half, against runs that change nothing.

The key part of the qkv biases is left out of comparisons: softmax makes its gradient zero, and AdamW turns rounding
into motion. What that motion does to the features is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the frameworks are imported, below

import numpy as np

from pcae_conformance.selections import stages
from pcae_core import Backend, PretrainConfig, checkpoint, randomness, registry, schedule
from pcae_core.data import normalize
from pcae_core.parameters import pretraining_state

RECIPE = Path(__file__).parents[1] / "examples" / "fashion_mnist.yaml"
CHANGES = {"batch_size": 32, "drop_path": 0.1, "log_every": 1, "tensorboard": False}
FIRST_IS_PARALLEL = {"torch": "torchrun", "mindspore": "msrun"}


def without_key_bias(name: str, value: np.ndarray) -> np.ndarray:
    if not name.endswith("attn.qkv.bias"):
        return value
    query, _, rest = np.split(value, 3)
    return np.concatenate([query, rest])


def largest_difference(ours, theirs) -> float:
    """Of two dicts of parameters."""
    pairs = ((without_key_bias(n, ours[n]), without_key_bias(n, value)) for n, value in theirs.items())
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def features(config: PretrainConfig, student, pixels: np.ndarray) -> np.ndarray:
    out = registry.create("numpy").encode(config.model, student, pixels)
    return out.last_hidden_state


class Batches:
    """Images, noise and drop path of each step."""

    def __init__(self, config: PretrainConfig, data: Path) -> None:
        self.config = config
        self.images = np.load(data / "train.npz")["images"][:, None]
        self.rates = schedule.drop_path_rates(config.drop_path, config.model.depth)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count, seed = self.config.batch_size, self.config.seed
        images = self.images[step * count : (step + 1) * count]
        noise = randomness.mask_noise(seed, step, 0, count, self.config.model.num_patches)
        return images, noise, randomness.drop_path_scales(seed, step, 0, count, self.rates)

    def pixels(self, step: int) -> np.ndarray:
        return normalize(self.at(step)[0], *self.config.loader.normalization(1))


def choice(backend: Backend, config: PretrainConfig, state, pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Visible and target ids (B, V + K)."""
    out = backend.pretraining_forward(config.model, state.student, state.teacher, pixels, noise)
    return np.concatenate([backend.to_numpy(out.visible_ids), backend.to_numpy(out.target_ids)], axis=1)


def nearest_scores(config: PretrainConfig, state, pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """How near the scores on both sides of a cut come, in the nearest stage of each image (B,)."""
    masked = np.sort(np.argsort(noise, axis=1, kind="stable")[:, config.model.num_visible :], axis=1)
    teacher = {name: value.astype(np.float64) for name, value in state.teacher.items()}
    found = stages(
        config.model, teacher, pixels.astype(np.float64), masked, config.model.reduction.keep, with_prefix=False
    )
    return np.min([stage.gaps() for stage in found], axis=0)


def side_by_side(config: PretrainConfig, batches: Batches, steps: int, numpy_steps: int) -> None:
    backends = {name: registry.create(name) for name in ("torch", "mindspore", "numpy")}
    start = pretraining_state(config.model, config.seed)
    trainers = {name: backend.create_pretrainer(config, start) for name, backend in backends.items()}
    worst = dict.fromkeys(("mindspore", "numpy"), 0.0)
    compared, different, widest = 0, 0, 0.0
    for step in range(steps):
        images, noise, drop_path = batches.at(step)
        pixels = batches.pixels(step)
        running = [name for name in backends if name != "numpy" or step < numpy_steps]
        states = {name: trainers[name].state() for name in running}
        chosen = {name: choice(backends[name], config, states[name], pixels, noise) for name in running}
        rate, momentum = config.hyper_parameters(step, steps)
        options = {"learning_rate": rate, "momentum": momentum, "drop_path": drop_path}
        losses = {name: float(trainers[name].step(images, noise, **options).loss) for name in running}
        gaps = nearest_scores(config, states["torch"], pixels, noise)
        for name in running[1:]:
            worst[name] = max(worst[name], abs(losses[name] / losses["torch"] - 1))
            rows = (chosen[name] != chosen["torch"]).any(axis=1)
            compared, different = compared + len(rows), different + int(rows.sum())
            widest = max([widest, *gaps[rows]])
    final = {name: trainers[name].state().student for name in ("torch", "mindspore")}
    print(f"losses against torch's, relative: mindspore {worst['mindspore']:.1e} ({steps} steps), ", end="")
    print(f"numpy {worst['numpy']:.1e} ({numpy_steps} steps)")
    print(f"images with other visible or target ids: {different} of {compared}; widest gap of scores {widest:.1e}")
    print(f"parameters, mindspore against torch: {largest_difference(final['mindspore'], final['torch']):.1e}")
    swapped = dict(final["mindspore"])
    moved = 0.0
    for name, value in final["torch"].items():
        if name.endswith("attn.qkv.bias"):
            dim = len(value) // 3
            moved = max(moved, float(np.abs(swapped[name] - value)[dim : 2 * dim].max()))
            swapped[name] = np.concatenate([swapped[name][:dim], value[dim : 2 * dim], swapped[name][2 * dim :]])
    pixels = batches.pixels(0)
    change = np.abs(features(config, swapped, pixels) - features(config, final["mindspore"], pixels)).max()
    print(f"key part of the qkv biases: {moved:.1e} apart; torch's in place of mindspore's moves features {change:.1e}")


def pretrain(*arguments: object, launcher: str | None = None, folder: Path) -> None:
    """`pcae pretrain`, with two processes when there is a launcher."""
    scripts = Path(sys.executable).parent
    command = [sys.executable, "-m", "pcae.cli"]
    if launcher == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m"]
        command += ["pcae.cli"]
    if launcher == "msrun":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [str(scripts / "msrun"), "--worker_num=2", "--local_worker_num=2", f"--master_port={port}"]
        command += ["--cluster_time_out=300", "--join=True", f"--log_dir={folder / 'logs'}", str(scripts / "pcae")]
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([*command, "pretrain", *map(str, arguments)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def crossings(config: PretrainConfig, batches: Batches, data: Path, steps: int, folder: Path) -> None:
    flags = ["--config", RECIPE, "--data", data, "--steps", steps, "--checkpoint-every", steps // 2, "--device", "cpu"]
    flags += ["--batch-size", config.batch_size, "--drop-path", config.drop_path, "--log-every", 1, "--no-tensorboard"]
    wholes = {name: folder / name for name in ("torch", "mindspore")}
    for name, run in wholes.items():
        pretrain(*flags, "--backend", name, "--out", run, folder=folder)
    for first, second in (("torch", "mindspore"), ("mindspore", "torch")):
        for launcher in (None, FIRST_IS_PARALLEL[first]):
            run = folder / f"{first}-{launcher}"
            pretrain(*flags, "--backend", first, "--out", run, launcher=launcher, folder=folder)
            shutil.rmtree(run / "checkpoints" / f"step_{steps:08d}")  # as if it had been stopped half-way
            pretrain("--resume", run, "--backend", second, folder=folder)
            how = f", {launcher}, 2 processes" if launcher else ""
            print(f"{steps // 2} steps {first}{how}, then {steps - steps // 2} steps {second}, against:")
            for name, whole in wholes.items():
                print(f"  {steps} steps {name}: {difference(config, batches, run, whole)}")


def difference(config: PretrainConfig, batches: Batches, run: Path, whole: Path) -> str:
    """Of two runs."""
    logged = [[json.loads(line)["loss"] for line in (r / "metrics.jsonl").open()] for r in (run, whole)]
    loss = np.abs(np.divide(*logged) - 1).max()
    ours, theirs = (checkpoint.load(r).state.student for r in (run, whole))
    pixels = batches.pixels(0)
    change = np.abs(features(config, ours, pixels) - features(config, theirs, pixels)).max()
    return f"losses {loss:.1e} relative, features {change:.1e}, parameters {largest_difference(ours, theirs):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--numpy-steps", type=int, default=10)
    options = parser.parse_args()
    config = PretrainConfig.from_yaml(RECIPE).model_copy(update={**CHANGES, "steps": options.steps})
    batches = Batches(config, options.data)
    side_by_side(config, batches, options.steps, options.numpy_steps)
    with tempfile.TemporaryDirectory() as folder:
        crossings(config, batches, options.data.resolve(), options.steps, Path(folder))


if __name__ == "__main__":
    main()
