"""What it costs to compute a batch one image at a time, which int8 models and, on CPUs, float16 models need.

    python benchmarks/onnx_batches.py [--model vit_small_patch16_224] [--keep 0.7] [--batch 8] [--threads 2]

Weights and pixels are random; each round calls every contender once. Below 1, one at a time is the faster way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from interleave import PAUSE, interleaved, parser, ratio, report, short

from pcae_core import parameters
from pcae_core.config import DataConfig, ModelConfig
from pcae_onnx import export, quantize, runtime


def main() -> None:
    made = parser(__doc__, rounds=7, batch=8)
    made.add_argument("--model", default="vit_small_patch16_224")
    made.add_argument("--keep", type=float, default=0.7)
    options = made.parse_args()
    config = ModelConfig.preset(options.model, num_classes=1000)
    weights = parameters.initial_parameters(config, seed=0)
    shape = (options.batch, config.in_chans, config.image_size, config.image_size)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder, calls = Path(name), {}
        chosen = export.Options(keep=options.keep, name="model")
        info = export.describe(config, DataConfig(), weights, folder, chosen)
        paths = {dtype: folder / f"{dtype}.onnx" for dtype in ("fp32", "fp16", "int8")}
        export.write_model(info, weights, paths["fp32"])
        export.write_model(info, weights, paths["fp16"], dtype="float16")
        quantize.to_int8(paths["fp32"], paths["int8"], info)
        for dtype, path in paths.items():
            session = runtime.session(path, threads=options.threads)
            for what, step in (("alone", 1), ("together", options.batch)):
                call = lambda session=session, step=step: runtime.run_in_parts(session, images, {}, step)  # noqa: E731
                calls[f"{dtype} {what}"] = call
        times = interleaved(calls, options, PAUSE)
    setting = f"{short(options.model)}, batch {options.batch}, keep {options.keep:g}"
    for dtype in paths:
        report(
            f"ONNX {dtype}: one at a time / together",
            setting,
            ratio(times, f"{dtype} alone", f"{dtype} together"),
            options,
        )


if __name__ == "__main__":
    main()
