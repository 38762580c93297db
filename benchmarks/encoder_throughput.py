"""Images per second of the encoder that drops tokens: PyTorch, torch.compile, ONNX Runtime, MindSpore, and ToMe.

    python benchmarks/encoder_throughput.py [--model vit_small_patch16_224] [--keeps 1 0.7 0.5] [--batch 16]
        [--without mindspore compile]

Random weights and pixels, float32, one of each in turn. ToMe (`tome.py`) runs in PyTorch on the same weights and merges
as many tokens as make its operations the same. "speed-up / predicted" is the time at the first keep ratio over that
at this one, by what the operations predict.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from interleave import PAUSE, Times, interleaved, parser, rate, ratio, report, short

from pcae_core import cost, parameters
from pcae_core.config import DataConfig, ModelConfig

Call = Callable[[], object]


class Contenders:
    """Makes a call for each engine and keep ratio."""

    def __init__(self, config: ModelConfig, options: argparse.Namespace, folder: Path) -> None:
        import torch

        import pcae_torch.model

        self.config, self.options, self.folder = config, options, folder
        initial = parameters.initial_parameters(config, seed=0)
        self.weights = {name: initial[name] for name in parameters.encoder_shapes(config)}
        shape = (options.batch, config.in_chans, config.image_size, config.image_size)
        self.images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        self.pixels = torch.from_numpy(self.images).to(options.device)
        self.encoder = pcae_torch.model.build(pcae_torch.model.Encoder, config)
        tensors = {name: torch.from_numpy(value).to(options.device) for name, value in self.weights.items()}
        pcae_torch.model.load(self.encoder, tensors)

    def _inferring(self, call: Call) -> Call:
        """Without gradients."""
        import torch

        return torch.inference_mode()(call)

    def torch(self, keep: float) -> Call:
        return self._inferring(lambda: self.encoder(self.pixels, keep))

    def compile(self, keep: float) -> Call:
        import torch

        compiled = torch.compile(lambda pixels: self.encoder(pixels, keep).last_hidden_state, dynamic=False)
        return self._inferring(lambda: compiled(self.pixels))

    def tome(self, keep: float) -> Call:
        import tome

        fewer = tome.fewer_for(self.config, cost.encoder_macs(self.config, keep))
        merging = tome.ToMe(self.encoder, fewer)
        return self._inferring(lambda: merging(self.pixels))

    def onnx(self, keep: float) -> Call:
        from pcae_onnx import export
        from pcae_onnx.session import InferenceSession

        info = export.describe(
            self.config, DataConfig(), self.weights, self.folder, export.Options(keep=keep, name="model")
        )
        path = self.folder / f"{keep:g}.onnx"
        export.write_model(info, self.weights, path)
        provider = "cuda" if self.pixels.is_cuda else "cpu"
        session = InferenceSession(path, provider, threads=self.options.threads)
        return lambda: session.run(self.images)

    def mindspore(self, keep: float) -> Call:
        import mindspore

        import pcae_mindspore.model

        encoder = pcae_mindspore.model.Encoder(self.config)
        tensors = {name: mindspore.Tensor(value) for name, value in self.weights.items()}
        pcae_mindspore.model.load(encoder, tensors)
        images = mindspore.Tensor(self.images)

        @mindspore.jit
        def compiled(pixels):
            return encoder(pixels, keep)[0]

        return lambda: compiled(images).asnumpy()


def show(config: ModelConfig, times: Times, engines: list[str], options: argparse.Namespace) -> None:
    model = f"{short(options.model)}, batch {options.batch}"
    first = options.keeps[0]
    for keep in options.keeps:
        setting = f"{model}, keep {keep:g}"
        predicted = cost.encoder_macs(config, first) / cost.encoder_macs(config, keep)
        for engine in engines:
            name = f"{engine} {keep:g}"
            report(f"encoder: {engine}, images/s", setting, rate(times, name, options.batch), options)
            if keep != first and engine != "tome":
                speedup = ratio(times, f"{engine} {first:g}", name, 1 / predicted)
                report(f"    {engine}: speed-up / {predicted:.2f} predicted", setting, speedup, options)
        if "tome" in engines:
            report("    ToMe / ours, PyTorch", setting, ratio(times, f"tome {keep:g}", f"torch {keep:g}"), options)


def main() -> None:
    made = parser(__doc__, rounds=7, batch=16)
    made.add_argument("--model", default="vit_small_patch16_224")
    made.add_argument("--keeps", type=float, nargs="+", default=[1.0, 0.7, 0.5])
    engines = ["torch", "compile", "onnx", "mindspore", "tome"]
    made.add_argument("--without", nargs="*", default=[], choices=engines)
    options = made.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when the frameworks are imported, below
    import torch

    torch.set_num_threads(options.threads)
    engines = [engine for engine in engines if engine not in options.without]
    config = ModelConfig.preset(options.model, num_classes=1000)
    with tempfile.TemporaryDirectory() as folder:
        made_of = Contenders(config, options, Path(folder))
        calls = {f"{engine} {keep:g}": getattr(made_of, engine)(keep) for keep in options.keeps for engine in engines}
        times = interleaved(calls, options, PAUSE)
    show(config, times, engines, options)


if __name__ == "__main__":
    main()
