"""AdamW and EMA against the time that moving their memory takes.

    python benchmarks/updates.py [--model vit_base_patch16_224]

The machine's rate is that of `a += s * b` on one array of the same number of parameters. EMA reads two numbers a
parameter and writes one; AdamW reads four (parameter, gradient, two moments) and writes three.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from interleave import interleaved, parser, ratio, report, short

import pcae_core.registry
from pcae_core import ModelConfig, PretrainConfig
from pcae_torch import ops

MOVED_BY_AXPY, MOVED_BY_EMA, MOVED_BY_ADAMW = 3, 3, 7  # numbers a parameter
REPEATS = 5


def repeated(call: Callable[[], object]) -> Callable[[], None]:
    """Several times."""

    def calls() -> None:
        for _ in range(REPEATS):
            call()

    return calls


def main() -> None:
    made = parser(__doc__, rounds=9)
    made.add_argument("--model", default="vit_base_patch16_224")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    config = PretrainConfig(model=ModelConfig.preset(options.model), batch_size=1, drop_path=0.0)
    pretrainer = pcae_core.registry.create("torch", device=options.device).create_pretrainer(config)
    optimizer, pairs = pretrainer.optimizer, pretrainer.ema_pairs
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 1e-3)
    size, averaged = sum(p.numel() for p in trained), sum(p.numel() for p in pairs[0])
    a, b = (torch.zeros(size, device=options.device) for _ in range(2))
    calls = {
        "axpy": lambda: a.add_(b, alpha=0.5),
        "ema": lambda: ops.ema_update_(*pairs, 0.999),
        "adamw": optimizer.step,
    }
    times = interleaved({name: repeated(call) for name, call in calls.items()}, options)
    setting = f"{short(options.model)}, {size / 1e6:.0f} M parameters"
    for what, name, moved in (("EMA", "ema", MOVED_BY_EMA * averaged), ("AdamW", "adamw", MOVED_BY_ADAMW * size)):
        above_floor = ratio(times, name, "axpy", MOVED_BY_AXPY * size / moved)
        report(f"{what} / its memory traffic", setting, above_floor, options, at_most=2.0)


if __name__ == "__main__":
    main()
