"""Fine-tuning on Fashion-MNIST from the demo's encoder: against training from scratch, and with tokens dropped.

    python benchmarks/finetuning.py [--run runs/demo] [--data data/fashion-mnist] [--seeds 3]

Pre-trains with examples/fashion_mnist.yaml when RUN is not there. All runs take examples/fashion_mnist_finetune.yaml
and differ only in what their names say; from scratch, all layers have one rate, half of the recipe's, which was better
on a part of the training split. Each runs on one thread, so that CPU seconds can be compared. Prints means and spreads
over the seeds, then the keep table of the last run with r = 0.2. It takes about eight minutes on two cores that nobody
else uses.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported

ROOT = Path(__file__).parents[1]
VARIANTS: dict[str, dict[str, object]] = {
    "fine-tuned, r = 0": {},
    "fine-tuned, r = 0.2": {"keep": 0.8},
    "from scratch, r = 0": {"from_scratch": True, "layer_decay": 1.0, "base_learning_rate": 16e-3},
}
KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True)
class Result:
    top1: float
    cpu_seconds: float


def pretrained(run: Path, data: Path) -> None:
    """The demo's encoder, pre-trained unless it is there."""
    from pcae_core import PretrainConfig, checkpoint
    from pcae_core.training.pretrain import pretrain

    if checkpoint.list_checkpoints(run / "checkpoints"):
        return
    began = time.monotonic()
    config = PretrainConfig.from_yaml(ROOT / "examples" / "fashion_mnist.yaml")
    pretrain(config.model_copy(update={"data": data, "out": run, "tensorboard": False}))
    print(f"pre-trained in {time.monotonic() - began:.0f} s")


def tune(run: Path, data: Path, out: Path, seed: int, settings: dict[str, object]) -> Result:
    """One run, in this process."""
    from rich.console import Console

    from pcae_core import FinetuneConfig, checkpoint
    from pcae_core.training.finetune import finetune

    recipe = FinetuneConfig().overlaid(ROOT / "examples" / "fashion_mnist_finetune.yaml")
    own = {"pretrained": run, "data": data, "out": out, "seed": seed, "tensorboard": False}
    config = recipe.model_copy(update=own | settings)
    config = config.model_copy(update={"loader": config.loader.model_copy(update={"workers": 0})})
    began = time.process_time()
    finetune(config, Console(quiet=True))
    taken = time.process_time() - began
    return Result(checkpoint.read_manifest(checkpoint.find(out)).metrics["top1"], taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "fashion-mnist")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / f"finetuning-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    pretrained(options.run, options.data)
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = {
            (name, seed): pool.submit(tune, options.run, options.data, folder(options.out, name, seed), seed, settings)
            for seed in range(options.seeds)
            for name, settings in VARIANTS.items()
        }
        results = {key: job.result() for key, job in jobs.items()}
    for name in VARIANTS:
        show(name, [results[name, seed] for seed in range(options.seeds)])
    print_table(folder(options.out, "fine-tuned, r = 0.2", options.seeds - 1), options.data)
    print(f"{time.monotonic() - began:.0f} s in all")


def folder(out: Path, name: str, seed: int) -> Path:
    return out / "".join(c if c.isalnum() else "-" for c in f"{name} {seed}")


def show(name: str, results: list[Result]) -> None:
    scores = [result.top1 for result in results]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    seconds = statistics.mean(result.cpu_seconds for result in results)
    each = ", ".join(f"{score:.2f}" for score in scores)
    print(f"{name:<20} top-1 {statistics.mean(scores):.2f} +- {spread:.2f} ({each}), {seconds:.0f} CPU seconds a run")


def print_table(run: Path, data: Path) -> None:
    from pcae.cli.evaluate import show
    from pcae_core import registry
    from pcae_core.evaluation import tables
    from pcae_core.evaluation.keep_table import keep_table

    path, rows, _ = keep_table(registry.create("torch"), run, data, KEEPS)
    show(tables.keep_ratio_table(rows), str(path))
    worst = min(row.speedup / row.predicted for row in rows)
    print(f"measured speed-up: at least {worst:.0%} of what the operations predict")


if __name__ == "__main__":
    main()
