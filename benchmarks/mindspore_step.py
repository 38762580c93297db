"""One pre-training step in MindSpore against PyTorch: time ratio, interleaved in one process, on CPU.

    python benchmarks/mindspore_step.py [--batch 32] [--depth 12] [--dim 192] [--cpu-time]

Both: float32, one initial state, the same images and noise; forward, backward, AdamW and EMA. MindSpore's first step
compiles and is timed apart. Before a turn idle threads get time to stop spinning. CPU time is that of the whole
process, all threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from interleave import PAUSE, Spread, interleaved, parser, ratio, report


def step_of(name: str, config) -> Callable[[], None]:
    from pcae_core import randomness, registry

    pretrainer = registry.create(name, device="cpu").create_pretrainer(config)
    size = config.model.image_size
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, 3, size, size), dtype=np.uint8)
    noise = randomness.mask_noise(0, 0, 0, len(images), config.model.num_patches)

    def step() -> None:
        pretrainer.step(images, noise, learning_rate=1e-4, momentum=0.999)
        if name == "mindspore":
            # The teacher's update comes last, and nothing else waits for it.
            pretrainer._cell.teacher_parameters[0].asnumpy()

    return step


def seconds(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def main() -> None:
    made = parser(__doc__, rounds=5, batch=32)
    made.add_argument("--depth", type=int, default=12)
    made.add_argument("--dim", type=int, default=192)
    options = made.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when the frameworks are imported, below
    from pcae_core import ModelConfig, PretrainConfig

    model = ModelConfig(embed_dim=options.dim, depth=options.depth, num_heads=3)
    config = PretrainConfig(model=model, batch_size=options.batch, drop_path=0.0)
    steps = {name: step_of(name, config) for name in ("torch", "mindspore")}
    first = seconds(steps["mindspore"])
    times = interleaved(steps, options, PAUSE)
    setting = f"dim {options.dim}, depth {options.depth}, batch {options.batch}"
    report("step: MindSpore / PyTorch", setting, ratio(times, "mindspore", "torch"), options)
    report("    MindSpore's first step, seconds", setting, Spread.of([first]), options)


if __name__ == "__main__":
    main()
