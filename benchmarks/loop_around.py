"""What the loop around the step costs: data hand-over, logging and bookkeeping, as a share of the steps' own time.

    python benchmarks/loop_around.py [--model vit_small_patch16_224] [--batch 8] [--steps 80]

A run as `pcae pretrain` makes it, on JPEG files, with one loading process, metrics.jsonl and TensorBoard, measuring
every 20 steps as by default. From the end of one measurement to the end of the next: the time outside of
`Pretrainer.step` over the time in it. Checkpoints are timed apart, as steps
that one takes, and so are the measurements on a batch as large as a GPU's, beside whose steps they are not short.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_path import write_images
from interleave import Spread, parser, report, short
from rich.console import Console

from pcae_core import ModelConfig, PretrainConfig, registry
from pcae_core.config import DataConfig
from pcae_core.data import open_source
from pcae_core.training.collapse import collapse_metrics
from pcae_core.training.pretrain import create_loop


class Clock:
    """Ends of the steps, and the seconds that each took."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.ends: list[float] = []
        self.took: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        out = self.step(*args, **kwargs)
        out.loss.item()  # waits for a GPU
        self.ends.append(time.perf_counter())
        self.took.append(self.ends[-1] - begin)
        return out

    def windows(self, length: int) -> list[float]:
        """Time outside the steps over their own, window by window; the first holds the start and is left out."""
        starts = range(length, len(self.ends) - length + 1, length)
        return [(self.ends[i + length - 1] - self.ends[i - 1]) / sum(self.took[i : i + length]) - 1.0 for i in starts]


def measuring(model: ModelConfig, images: int) -> Spread:
    """Seconds of the measurements on a batch that a GPU would have."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(images, model.num_targets, model.embed_dim)).astype(np.float32)
    features = target.mean(axis=1)
    taken = []
    for _ in range(5):
        begin = time.process_time()
        collapse_metrics(1.0, target, features, model.num_patches)
        taken.append(time.process_time() - begin)
    return Spread.of(taken)


def run(config: PretrainConfig, device: str) -> tuple[Clock, float]:
    """The clock, and the seconds of the last checkpoint."""
    source = open_source(config.data, config.model.in_chans, split="train")
    backend = registry.create("torch", device=device)
    pretrainer = backend.create_pretrainer(config)
    clock = pretrainer.step = Clock(pretrainer.step)
    loop = create_loop(config, source, backend, pretrainer, 0, Console(quiet=True))
    save, saved_in = loop.save, []

    def timed_save() -> None:
        begin = time.perf_counter()
        save()
        saved_in.append(time.perf_counter() - begin)

    loop.save = timed_save
    loop.run()
    return clock, saved_in[-1]


def settings(options: argparse.Namespace, folder: Path) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig.preset(options.model),
        data=folder / "images",
        out=folder / "run",
        batch_size=options.batch,
        steps=options.steps,
        loader=DataConfig(workers=options.workers),
    )


def main() -> None:
    made = parser(__doc__, rounds=1, threads=1, batch=8)
    made.add_argument("--model", default="vit_small_patch16_224")
    made.add_argument("--steps", type=int, default=80)
    made.add_argument("--workers", type=int, default=1)
    options = made.parse_args()
    options.cpu_time = False  # images are loaded in another process
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        write_images(folder / "images")
        config = settings(options, folder)
        clock, saved_in = run(config, options.device)
    windows = clock.windows(config.log_every)
    options.rounds = len(windows)
    setting = f"{short(options.model)}, batch {options.batch}, {options.workers} worker"
    report("loop: time outside the step / in it", setting, Spread.of(windows), options, at_most=0.03)
    per_step = Spread.of([saved_in / seconds for seconds in clock.took[config.log_every :]])
    report("    a checkpoint, in steps (one per 1000)", setting, per_step, options)
    base = ModelConfig.preset("vit_base_patch16_224")
    report("    measurements, s (one per 20 steps)", "vit_base, batch 256", measuring(base, 256), options)


if __name__ == "__main__":
    main()
