"""Exported models on ONNX Runtime against PyTorch in eager mode: time ratios, interleaved in one process.

    python benchmarks/onnx_inference.py [--model vit_small_patch16_224] [--threads 2] [--rounds 7] [--batches 1 16]

Weights and pixels are random. All run float32, but for int8; each round calls every contender once, and ratios are
medians over the rounds. The MACs are those of `pcae profile`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleave import PAUSE, Times, interleaved, parser, ratio, report, short

from pcae_core import cost, parameters, registry
from pcae_core.config import DataConfig, ModelConfig
from pcae_onnx import export, quantize
from pcae_onnx.session import InferenceSession

Calls = dict[str, Callable[[], object]]


def sessions(
    config: ModelConfig, weights, keeps: list[float], folder: Path, threads: int
) -> dict[str, InferenceSession]:
    """The dynamic model, its int8 form, and one static model a ratio."""
    found = {}
    for keep in (None, *keeps):
        name = "dynamic" if keep is None else f"static {keep:g}"
        info = export.describe(config, DataConfig(), weights, folder, export.Options(keep=keep, name="model"))
        path = folder / f"{name}.onnx"
        export.write_model(info, weights, path)
        found[name] = InferenceSession(path, threads=threads)
        if keep is None:
            quantize.to_int8(path, folder / "int8.onnx", info.model_copy(update={"dtype": "int8"}))
            found["int8"] = InferenceSession(folder / "int8.onnx", threads=threads)
    return found


def calls(
    config: ModelConfig, weights, models: dict[str, InferenceSession], images: np.ndarray, keeps: list[float]
) -> Calls:
    backend = registry.create("torch")
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    pixels = torch.from_numpy(images)
    found: Calls = {}
    for keep in keeps:
        static = models[f"static {keep:g}"]
        found[f"torch {keep:g}"] = lambda keep=keep: backend.encode(config, tensors, pixels, keep)
        found[f"static {keep:g}"] = lambda static=static: static.run(images)
        found[f"dynamic {keep:g}"] = lambda keep=keep: models["dynamic"].run(images, keep)
        found[f"int8 {keep:g}"] = lambda keep=keep: models["int8"].run(images, keep)
    return found


def show(config: ModelConfig, times: Times, keeps: list[float], batch: int, options: argparse.Namespace) -> None:
    for keep in keeps:
        k, first = f"{keep:g}", f"static {keeps[0]:g}"
        setting = f"{short(options.model)}, batch {batch}, keep {k}"
        report("ONNX: PyTorch eager / ONNX Runtime", setting, ratio(times, f"torch {k}", f"static {k}"), options)
        report("ONNX: keep as an input / fixed", setting, ratio(times, f"dynamic {k}", f"static {k}"), options)
        report("ONNX: float32 / int8", setting, ratio(times, f"static {k}", f"int8 {k}"), options)
        predicted = cost.encoder_macs(config, keeps[0]) / cost.encoder_macs(config, keep)
        speedup = ratio(times, first, f"static {k}", 1 / predicted)
        report(f"ONNX: speed-up, of {predicted:.2f} predicted", setting, speedup, options)


def main() -> None:
    made = parser(__doc__, rounds=7)
    made.add_argument("--model", default="vit_small_patch16_224")
    made.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    made.add_argument("--keeps", type=float, nargs="+", default=[1.0, 0.7, 0.5])
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    config = ModelConfig.preset(options.model, num_classes=1000)
    initial = parameters.initial_parameters(config, seed=0)
    weights = {name: initial[name] for name in parameters.encoder_shapes(config)}
    shape = (max(options.batches), config.in_chans, config.image_size, config.image_size)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        models = sessions(config, weights, options.keeps, Path(folder), options.threads)
        for batch in options.batches:
            contenders = calls(config, weights, models, images[:batch], options.keeps)
            show(config, interleaved(contenders, options, PAUSE), options.keeps, batch, options)
        found = quantize.measure(models["dynamic"], models["int8"], images)
    print(
        f"int8, random weights, keep 0.7: kept {found.kept_ids:.3f}, cosine {found.cosine:.4f}, top-1 {found.top1:.3f}"
    )


if __name__ == "__main__":
    main()
