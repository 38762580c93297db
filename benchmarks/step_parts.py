"""What a pre-training step spends its time on: each part alone, its turn beside the whole step.

    python benchmarks/step_parts.py [--model vit_base_patch16_224] [--batch 8] [--profile]

Parts: data (to floats, into patches, the split), teacher (forward), encoder and decoder of the student (forward and
backward), AdamW, EMA. "operations" is a part's share of the multiply-accumulates. `--profile` lists, instead, the
operators of the whole step with the most time of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from interleave import interleaved, parser, ratio, report, short
from pretraining_step import batch_of
from torch import Tensor

import pcae_core.registry
from pcae_core import ModelConfig, PretrainConfig, cost
from pcae_torch import ops
from pcae_torch.pretraining import TorchPretrainer

MOMENTUM = 0.999


class Parts:
    """The parts of one step of `pretrainer`, each on what the part before it gives."""

    def __init__(self, pretrainer: TorchPretrainer, config: PretrainConfig) -> None:
        self.pretrainer, self.model = pretrainer, config.model
        self.images, self.noise = batch_of(config)
        self.student = pretrainer.student
        self.whole()
        self.patches, self.visible, self.masked = self.data()
        self.target, self.target_ids = self.teacher()
        self.latent = self.encode().detach().requires_grad_()
        self.upstream = torch.randn_like(self.latent)

    def whole(self) -> float:
        out = self.pretrainer.step(self.images, self.noise, learning_rate=1e-4, momentum=MOMENTUM)
        return out.loss.item()

    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        patches = ops.patchify(self.pretrainer.normalize(self.images), self.model.patch_size)
        noise = torch.as_tensor(self.noise).to(patches.device)
        return patches, *ops.split_by_noise(noise, self.model.num_visible)

    @torch.no_grad()
    def teacher(self) -> tuple[Tensor, Tensor]:
        return self.pretrainer.teacher(self.patches, self.masked)

    def encode(self) -> Tensor:
        return self.student.encoder.encode_visible(self.patches, self.visible, None)

    def encoder(self) -> None:
        self.clear(self.student.encoder)
        self.encode().backward(self.upstream)

    def decoder(self) -> None:
        self.clear(self.student.decoder)
        self.latent.grad = None
        prediction = self.student.decoder(self.latent, self.visible, self.target_ids)
        ops.cosine_loss(prediction, self.target).backward()

    def clear(self, module: torch.nn.Module) -> None:
        for parameter in module.parameters():
            parameter.grad = None

    def adamw(self) -> None:
        self.pretrainer.optimizer.step()

    def ema(self) -> None:
        ops.ema_update_(*self.pretrainer.ema_pairs, MOMENTUM)

    def calls(self) -> dict[str, Callable[[], object]]:
        names = ("whole", "data", "teacher", "encoder", "decoder", "adamw", "ema")
        return {name: getattr(self, name) for name in names}


def shares(model: ModelConfig) -> dict[str, float]:
    """Shares of the multiply-accumulates."""
    forward, total = cost.pretraining_forward_macs(model), cost.pretraining_macs(model)
    return {
        "teacher": forward["teacher"] / total,
        "encoder": 3 * forward["student"] / total,
        "decoder": 3 * forward["decoder"] / total,
    }


def profile(call: Callable[[], object], steps: int) -> None:
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            call()
    print(found.key_averages(group_by_input_shape=False).table(sort_by="self_cpu_time_total", row_limit=25))


def measure(parts: Parts, options: argparse.Namespace) -> None:
    times = interleaved(parts.calls(), options)
    expected = shares(parts.model)
    setting = f"{short(options.model)}, batch {options.batch}"
    for name in list(times)[1:]:
        note = f", operations {expected[name]:.3f}" if name in expected else ""
        report(f"share of a step: {name}{note}", setting, ratio(times, name, "whole"), options)


def main() -> None:
    made = parser(__doc__, rounds=7, batch=8)
    made.add_argument("--model", default="vit_base_patch16_224")
    made.add_argument("--profile", action="store_true")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    config = PretrainConfig(model=ModelConfig.preset(options.model), batch_size=options.batch, drop_path=0.0)
    pretrainer = pcae_core.registry.create("torch", device=options.device).create_pretrainer(config)
    parts = Parts(pretrainer, config)
    if options.profile:
        profile(parts.whole, options.rounds)
    else:
        measure(parts, options)


if __name__ == "__main__":
    main()
