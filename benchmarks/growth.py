"""How a step's time grows with image size and width, against how its counted operations do.

    python benchmarks/growth.py [--sizes 112 224 448] [--widths 192 384 768] [--batch 16]

The exponent is the slope of log(time) over log(size); the ratio of the measured one to that of the operations is 1 when
time follows operations. Models: ViT-S by size; by width, heads of 64 and the decoder as wide as the encoder.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from interleave import Spread, apart, parser, report
from pretraining_step import pcae_step

from pcae_core import ModelConfig, PretrainConfig, cost


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(what: str, models: dict[int, ModelConfig], options: argparse.Namespace) -> None:
    configs = {
        size: PretrainConfig(model=model, batch_size=options.batch, drop_path=0.0) for size, model in models.items()
    }
    times = apart({str(size): partial(pcae_step, config, options.device) for size, config in configs.items()}, options)
    sizes = list(models)
    predicted = exponent(sizes, [float(cost.pretraining_macs(model)) for model in models.values()])
    found = [exponent(sizes, list(seconds)) for seconds in zip(*times.values(), strict=True)]
    setting = f"{' '.join(map(str, sizes))}, batch {options.batch}; {predicted:.3f}"
    report(
        f"growth by {what}: exponent / operations'",
        setting,
        Spread.of([value / predicted for value in found]),
        options,
        at_least=0.9,
        at_most=1.1,
    )


def main() -> None:
    made = parser(__doc__, rounds=3, batch=16)
    made.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 448])
    made.add_argument("--widths", type=int, nargs="+", default=[192, 384, 768])
    options = made.parse_args()
    small = {size: ModelConfig.preset("vit_small_patch16_224", image_size=size) for size in options.sizes}
    measure("image size", small, options)
    heads = {width: width // 64 for width in options.widths}
    wide = {
        width: ModelConfig(
            embed_dim=width, num_heads=count, decoder_embed_dim=width, decoder_num_heads=count, decoder_depth=4
        )
        for width, count in heads.items()
    }
    measure("width", wide, options)


if __name__ == "__main__":
    main()
