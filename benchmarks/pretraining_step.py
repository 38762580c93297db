"""One pre-training step of PCAE against Hugging Face's ViTMAE and a MAE of our own make, and its arithmetic efficiency.

    python benchmarks/pretraining_step.py [--models vit_base_patch16_224] [--batches 8 32] [--precision float32]

All: the same encoder and decoder (512 wide, 8 deep), fused AdamW with the same settings; forward, backward and update
of one batch that is in memory. PCAE's step includes the teacher and the EMA. Efficiency is the operations that
`pcae profile` counts, by time, by the rate of one large matrix product that takes its turn in the same rounds.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from functools import partial

import mae
import numpy as np
import torch
import transformers
from interleave import Times, apart, parser, rate, ratio, report, short

import pcae_core.registry
from pcae_core import ModelConfig, PretrainConfig, cost, randomness
from pcae_torch import ops

SIDE = 3072  # of the matrices whose product gives the machine's rate
EFFICIENCY_AIMS = {8: 0.70, 32: 0.75}


def batch_of(config: PretrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (B, C, H, W) and noise (B, N)."""
    size = config.model.image_size
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, 3, size, size), dtype=np.uint8)
    return images, randomness.mask_noise(0, 0, 0, len(images), config.model.num_patches)


def pcae_step(config: PretrainConfig, device: str) -> Callable[[], float]:
    pretrainer = pcae_core.registry.create("torch", device=device).create_pretrainer(config)
    images, noise = batch_of(config)
    return lambda: pretrainer.step(images, noise, learning_rate=1e-4, momentum=0.999).loss.item()


def training_step(
    config: PretrainConfig, module: torch.nn.Module, loss_of: Callable[[], torch.Tensor], device: str
) -> Callable[[], float]:
    """Forward, backward and update of `module`."""
    optimizer = mae.optimizer(module, config.betas, config.weight_decay)
    half = config.precision != "float32"

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext():
            loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def mae_step(config: PretrainConfig, device: str) -> Callable[[], float]:
    module = mae.create(config.model, device)
    images, noise = batch_of(config)
    split = ops.split_by_noise(torch.from_numpy(noise).to(device), config.model.num_visible)
    pixels = torch.from_numpy(images).to(device)
    call = torch.compile(mae.loss) if config.compile else mae.loss
    patches = lambda: ops.patchify(pixels.float() / 255, config.model.patch_size)  # noqa: E731
    return training_step(config, module, lambda: call(module, patches(), *split), device)


def vitmae_step(config: PretrainConfig, device: str) -> Callable[[], float]:
    model = config.model
    hf_config = transformers.ViTMAEConfig(
        image_size=model.image_size,
        patch_size=model.patch_size,
        hidden_size=model.embed_dim,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        intermediate_size=4 * model.embed_dim,
        decoder_hidden_size=model.decoder_embed_dim,
        decoder_num_hidden_layers=model.decoder_depth,
        decoder_num_attention_heads=model.decoder_num_heads,
        decoder_intermediate_size=4 * model.decoder_embed_dim,
        mask_ratio=model.mask_ratio,
        norm_pix_loss=True,
    )
    module = transformers.ViTMAEForPreTraining(hf_config).train().to(device)
    pixels = torch.from_numpy(batch_of(config)[0]).to(device).float() / 255
    call = torch.compile(module) if config.compile else module
    return training_step(config, module, lambda: call(pixel_values=pixels).loss, device)


def product(precision: str, device: str) -> Callable[[], object]:
    """One large matrix product, the machine's own rate."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)

    def call() -> float:
        return torch.mm(left, right, out=out)[0, 0].item()  # reading it waits for a GPU

    return call


def measure(config: PretrainConfig, options: argparse.Namespace) -> Times:
    makers = {"pcae": pcae_step, "vitmae": vitmae_step, "mae": mae_step}
    steps = {name: partial(maker, config, options.device) for name, maker in makers.items()}
    return apart(steps | {"product": partial(product, config.precision, options.device)}, options)


def show(config: PretrainConfig, name: str, times: Times, options: argparse.Namespace) -> None:
    batch = config.batch_size
    setting = f"{short(name)}, batch {batch}, {config.precision}"
    aim = 1.3 if config.model.embed_dim >= 768 else None
    report("step: ViTMAE / PCAE", setting, ratio(times, "vitmae", "pcae"), options, at_least=aim)
    report("step: our MAE / PCAE", setting, ratio(times, "mae", "pcae"), options)
    print(f"    operations, our MAE / PCAE: {mae.macs(config.model) / cost.pretraining_macs(config.model):.2f}")
    share = batch * cost.pretraining_macs(config.model) / SIDE**3
    efficiency = ratio(times, "product", "pcae", share)
    report("step: arithmetic efficiency", setting, efficiency, options, at_least=EFFICIENCY_AIMS.get(batch))
    report("    PCAE, images/s", setting, rate(times, "pcae", batch), options)
    report("    matrix product, GFLOP/s", setting, rate(times, "product", 2 * SIDE**3 / 1e9), options)
    if options.device.startswith("cuda"):
        print(f"    PCAE, peak memory: {peak_memory(config, options.device) / 2**30:.1f} GiB")


def peak_memory(config: PretrainConfig, device: str) -> int:
    """Bytes that two steps alone need on a GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = pcae_step(config, device)
    step()
    step()
    return torch.cuda.max_memory_allocated()


def main() -> None:
    made = parser(__doc__, rounds=7)
    made.add_argument("--models", nargs="+", default=["vit_small_patch16_224", "vit_base_patch16_224"])
    made.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    made.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    made.add_argument("--compile", action="store_true")
    options = made.parse_args()
    for name in options.models:
        for batch in options.batches:
            config = PretrainConfig(
                model=ModelConfig.preset(name),
                batch_size=batch,
                drop_path=0.0,
                precision=options.precision,
                compile=options.compile,
            )
            show(config, name, measure(config, options), options)


if __name__ == "__main__":
    main()
