"""One pre-training step in MindSpore against PyTorch: time ratio, interleaved in one process, on CPU.

    python benchmarks/mindspore_step.py [--batch 32] [--threads 2] [--rounds 5] [--depth 12] [--dim 192]

Both: float32, one initial state, the same images and noise; forward, backward, AdamW and EMA. MindSpore's first step
compiles and is timed apart. CPU time is that of the whole process, all threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np


def step_of(name: str, config) -> Callable[[], float]:
    from pcae_core import randomness, registry

    pretrainer = registry.create(name, device="cpu").create_pretrainer(config)
    size = config.model.image_size
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, 3, size, size), dtype=np.uint8)
    noise = randomness.mask_noise(0, 0, 0, len(images), config.model.num_patches)
    return lambda: float(pretrainer.step(images, noise, learning_rate=1e-4, momentum=0.999).loss)


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--dim", type=int, default=192)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when the frameworks are imported, below
    import mindspore
    import torch

    from pcae_core import ModelConfig, PretrainConfig

    model = ModelConfig(embed_dim=options.dim, depth=options.depth, num_heads=3)
    config = PretrainConfig(model=model, batch_size=options.batch, drop_path=0.0)
    steps = {name: step_of(name, config) for name in ("torch", "mindspore")}
    first = {name: timed(step)[0] for name, step in steps.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(timed(step))
    print(f"dim {options.dim}, depth {options.depth}, batch {options.batch}, {options.threads} threads")
    print(f"torch {torch.__version__}, mindspore {mindspore.__version__}, {os.cpu_count()} cores")
    for name, values in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"  {name:9} {wall:.3f} s a step, {cpu:.3f} s of CPU time; first step {first[name]:.1f} s")
    for i, what in enumerate(("wall", "CPU")):
        ratios = [ms[i] / pt[i] for pt, ms in zip(times["torch"], times["mindspore"], strict=True)]
        print(f"  mindspore / torch, {what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
