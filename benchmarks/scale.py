"""What an epoch of ImageNet costs on many GPUs, and what limits it: computed by the cost model, not measured.

    python benchmarks/scale.py [--peak 989 --utilisation 0.3] [--cores 16 --core-rate 223] [--batch 4096] ...

Compute: counted operations by peak and utilisation. Data: JPEG files that `cores` cores a GPU decode, cut and resize;
`benchmarks/data_path.py` measures a core's rate. Exchange: a ring's share of the gradients in float32, which the
backward pass hides as far as it is long enough.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from pcae_core import ModelConfig, cost, parameters

IMAGES = 1_281_167
BYTES = 4  # of a gradient
STATE_BYTES = 20  # a parameter: itself, gradient, two moments, the teacher's


@dataclass(frozen=True)
class Step:
    """Seconds of one step on each GPU, the data of the step, and the exchange that the backward pass does not hide."""

    compute: float
    data: float
    exposed: float

    @property
    def seconds(self) -> float:
        return max(self.compute + self.exposed, self.data)

    @property
    def limit(self) -> str:
        return "data" if self.data > self.compute + self.exposed else "exchange" if self.exposed else "compute"


def num_parameters(model: ModelConfig) -> int:
    """That are trained, so exchanged."""
    shapes = parameters.encoder_shapes(model) | parameters.decoder_shapes(model)
    return sum(math.prod(shape) for name, shape in shapes.items() if parameters.is_trainable(name))


def step(model: ModelConfig, gpus: int, options: argparse.Namespace) -> Step:
    """One step of the whole batch."""
    images = options.batch / gpus
    forward = cost.pretraining_forward_macs(model)
    total = cost.pretraining_macs(model)
    backward = 2 * (forward["student"] + forward["decoder"]) / total
    compute = 2 * images * total / (options.peak * 1e12 * options.utilisation)
    link = options.link if gpus <= options.node else options.network
    exchange = 2 * (gpus - 1) / gpus * BYTES * num_parameters(model) / (link * 1e9)
    data = images / (options.cores * options.core_rate)
    return Step(compute, data, max(0.0, exchange - backward * compute))


def row(name: str, gpus: int, options: argparse.Namespace) -> str:
    model = ModelConfig.preset(name)
    found = step(model, gpus, options)
    steps = IMAGES / options.batch
    per_gpu = options.batch / gpus / found.compute
    memory = STATE_BYTES * num_parameters(model) / 2**30
    values = (
        name.removesuffix("_224"),
        f"{cost.pretraining_macs(model) / 1e9:.1f}",
        f"{memory:.1f}",
        gpus,
        f"{per_gpu:.0f}",
        f"{math.ceil(per_gpu / options.core_rate)}",
        f"{steps * found.compute:.0f}",
        f"{steps * found.seconds:.0f}",
        found.limit,
    )
    return "| " + " | ".join(map(str, values)) + " |"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peak", type=float, default=989, help="TFLOP/s of a GPU, bfloat16 (H100 SXM)")
    made.add_argument("--utilisation", type=float, default=0.3)
    made.add_argument("--cores", type=int, default=16, help="that load data, a GPU")
    made.add_argument("--core-rate", type=float, default=223, help="images/s that a core decodes, cuts and resizes")
    made.add_argument("--node", type=int, default=8, help="GPUs of one machine")
    made.add_argument("--link", type=float, default=450, help="GB/s of a GPU to the others of its machine, each way")
    made.add_argument("--network", type=float, default=50, help="GB/s of a GPU to other machines, each way")
    made.add_argument("--batch", type=int, default=4096, help="of all GPUs together")
    options = made.parse_args()
    head = (
        "model",
        "GMACs",
        "state GiB",
        "GPUs",
        "images/s a GPU",
        "cores a GPU",
        "s by compute",
        "s an epoch",
        "limit",
    )
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for name in ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224", "vit_huge_patch14_224"):
        for gpus in (1, 8, 64):
            print(row(name, gpus, options))


if __name__ == "__main__":
    main()
