"""One pre-training step of PCAE against Hugging Face's ViTMAE: time ratio, interleaved in one process.

    python benchmarks/pretraining_step.py [--model vit_base_patch16_224] [--batch 8] [--threads 2] [--rounds 7]

Both: float32, the same encoder and decoder (512 wide, 8 deep), fused AdamW with the same settings, forward, backward
and update of one batch that is in memory. PCAE's step includes the teacher and the EMA.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import transformers

import pcae_core.registry
from pcae_core import randomness


def pcae_step(config: pcae_core.PretrainConfig, device: str) -> Callable[[], None]:
    pretrainer = pcae_core.registry.create("torch", device=device).create_pretrainer(config)
    images = _images(config)
    noise = randomness.mask_noise(0, 0, 0, len(images), config.model.num_patches)

    def step() -> None:
        pretrainer.step(images, noise, learning_rate=1e-4, momentum=0.999).loss.item()

    return step


def vitmae_step(config: pcae_core.PretrainConfig, device: str) -> Callable[[], None]:
    model_config = config.model
    hf_config = transformers.ViTMAEConfig(
        image_size=model_config.image_size,
        patch_size=model_config.patch_size,
        hidden_size=model_config.embed_dim,
        num_hidden_layers=model_config.depth,
        num_attention_heads=model_config.num_heads,
        intermediate_size=4 * model_config.embed_dim,
        decoder_hidden_size=model_config.decoder_embed_dim,
        decoder_num_hidden_layers=model_config.decoder_depth,
        decoder_num_attention_heads=model_config.decoder_num_heads,
        decoder_intermediate_size=4 * model_config.decoder_embed_dim,
        mask_ratio=model_config.mask_ratio,
        norm_pix_loss=True,
    )
    model = transformers.ViTMAEForPreTraining(hf_config).train().to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    pixels = torch.from_numpy(_images(config)).to(device).float() / 255

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = model(pixel_values=pixels).loss
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def _images(config: pcae_core.PretrainConfig) -> np.ndarray:
    size = config.model.image_size
    return np.random.default_rng(0).integers(0, 256, (config.batch_size, 3, size, size), dtype=np.uint8)


def seconds(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = pcae_core.ModelConfig.preset(options.model)
    config = pcae_core.PretrainConfig(model=model, batch_size=options.batch, drop_path=0.0)
    steps = {"pcae": pcae_step(config, options.device), "vitmae": vitmae_step(config, options.device)}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    ratios = [theirs / ours for ours, theirs in zip(times["pcae"], times["vitmae"], strict=True)]
    print(f"{options.model}, batch {options.batch}, {options.threads} threads, {options.device}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for name, values in times.items():
        print(f"  {name:7} {statistics.median(values):.3f} s a step (median of {options.rounds})")
    print(f"  vitmae / pcae: {statistics.median(ratios):.3f} (median), {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
