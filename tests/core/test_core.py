"""Configuration, schedules, randomness, cost and parameters."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pcae
import pcae_core
import pcae_torch
from pcae_core import (
    BackendError,
    ConfigError,
    ModelConfig,
    PretrainConfig,
    ReductionConfig,
    cost,
    parameters,
    randomness,
    schedule,
)
from pcae_torch import model as torch_model

VIT_B = ModelConfig.preset("vit_base_patch16_224")


@pytest.mark.parametrize("package", ["pcae", "pcae_core"])
def test_import_is_light(package):
    """No framework, no pydantic, and few modules beside NumPy's: how long that takes is the machine's affair."""
    code = (
        f"import sys, numpy; before = set(sys.modules); import {package}\n"
        "heavy = {'torch', 'mindspore', 'onnxruntime', 'pydantic', 'scipy', 'sklearn', 'grain', 'PIL'}\n"
        "print(len(set(sys.modules) - before), *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, *loaded = done.stdout.split()
    assert loaded == []
    assert int(count) < 120


def test_every_public_name_exists():
    for name in pcae_core.__all__:
        assert getattr(pcae_core, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        pcae_core.nonsense  # noqa: B018


def test_pcae_has_the_names_of_the_core_and_of_the_backend_in_use():
    for name in pcae_core.__all__:
        assert getattr(pcae, name) is getattr(pcae_core, name)
    assert callable(pcae.pretrain)
    assert pcae.InferenceSession.__module__ == "pcae_onnx.session"
    with pytest.raises(AttributeError, match="nonsense"):
        pcae.nonsense  # noqa: B018
    with pytest.raises(BackendError, match="no backend is in use"):
        pcae.Encoder  # noqa: B018
    with pcae.use("torch"):
        assert pcae.Encoder is pcae_torch.Encoder
    with pcae.use("numpy"), pytest.raises(BackendError, match="'numpy' has no Encoder"):
        pcae.Encoder  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "image_size 30 is not divisible by patch_size 16"),
        ({"depth": "12"}, "depth: Input should be a valid integer"),
        ({"colour": 1}, "colour: Extra inputs are not permitted"),
        ({"reduction": {"keep": 0.0}}, r"reduction\.keep: Input should be greater than 0"),
        ({"reduction": {"keep": 1.5}}, r"reduction\.keep: Input should be less than or equal to 1"),
        ({"reduction": {"num_stages": 13}}, "num_stages 13 exceeds the 12 blocks"),
        ({"num_heads": 5}, "embed_dim 768 is not divisible by num_heads 5"),
        ({"mask_ratio": 0.999}, "at least one patch must be visible"),
    ],
)
def test_model_config_refuses(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.from_dict(settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(pydantic.ValidationError):
        ModelConfig(**settings)


def test_config_survives_yaml(tmp_path):
    config = PretrainConfig(model=ModelConfig.preset("vit_micro_patch4_28", in_chans=1), steps=7, betas=(0.8, 0.9))
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert PretrainConfig.from_yaml(path) == config


def test_a_string_names_a_path():
    assert PretrainConfig(data="images", out="run") == PretrainConfig(data=Path("images"), out=Path("run"))
    with pytest.raises(ValueError, match="data"):
        PretrainConfig(data=3)


@pytest.mark.parametrize("name", sorted(pcae_core.config.PRESETS))
def test_presets_are_valid(name):
    config = ModelConfig.preset(name)
    assert config.image_size == int(name.rsplit("_", 1)[1])
    assert 0.1 * config.num_masked < config.num_targets < config.num_masked


def test_parameter_counts_of_presets():
    """The encoders' sizes that everyone knows, in millions, position embeddings included."""
    for name, millions in {"tiny": 5.5, "small": 21.7, "base": 85.8, "large": 303.3}.items():
        shapes = parameters.encoder_shapes(ModelConfig.preset(f"vit_{name}_patch16_224"))
        assert sum(map(math.prod, shapes.values())) / 1e6 == pytest.approx(millions, abs=0.1)


def test_token_counts_of_the_paper():
    assert VIT_B.tokens_per_block(147) == [147, 73, 73, 73, 73, 36, 36, 36, 36, 18, 18, 18]
    assert (VIT_B.num_visible, VIT_B.num_masked, VIT_B.num_targets) == (49, 147, 18)
    assert schedule.reduction_blocks(12, 3) == (0, 4, 8)
    assert schedule.num_kept(1, 0.01) == 1


def test_learning_rate_and_momentum():
    rate = [schedule.cosine_with_warmup(s, base=2.0, warmup_steps=4, total_steps=12) for s in range(13)]
    assert rate[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rate[4:] == sorted(rate[4:], reverse=True)
    assert rate[8] == pytest.approx(1.0)
    assert rate[12] == pytest.approx(0.0)
    momentum = [schedule.ema_momentum(s, base=0.9, total_steps=11) for s in range(11)]
    assert (momentum[0], momentum[5], momentum[10]) == (pytest.approx(0.9), pytest.approx(0.95), 1.0)
    assert momentum == sorted(momentum)
    assert schedule.drop_path_rates(0.2, 5) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_masks_do_not_depend_on_how_a_batch_is_cut():
    whole = randomness.mask_noise(5, 9, 0, 16, 49)
    parts = [randomness.mask_noise(5, 9, first, 4, 49) for first in (0, 4, 8, 12)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len({row.tobytes() for row in whole}) == 16
    assert not np.array_equal(whole, randomness.mask_noise(5, 10, 0, 16, 49))
    assert not np.array_equal(whole, randomness.mask_noise(6, 9, 0, 16, 49))


def test_masks_are_uniform():
    """Each patch is visible equally often: chi-square over 20,000 images, 48 degrees of freedom, p = 1e-6 at 116."""
    noise = np.concatenate([randomness.mask_noise(0, step, 0, 1000, 49) for step in range(20)])
    visible = np.argsort(noise, axis=1)[:, :12]
    counts = np.bincount(visible.ravel(), minlength=49)
    expected = 20_000 * 12 / 49
    variance = expected * (1 - 12 / 49)
    assert ((counts - expected) ** 2 / variance).sum() < 116


def test_drop_path_scales_keep_the_mean():
    rates = [0.0, 0.2, 0.5]
    scales = np.concatenate([randomness.drop_path_scales(0, s, 0, 500, rates) for s in range(40)], axis=2)
    assert scales.shape == (3, 2, 20_000)
    assert set(np.unique(scales[0])) == {1.0}
    np.testing.assert_allclose(scales.mean(axis=2), 1.0, atol=0.03)
    parts = [randomness.drop_path_scales(0, 3, first, 5, rates) for first in (0, 5)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), randomness.drop_path_scales(0, 3, 0, 10, rates))
    assert randomness.drop_path_scales(0, 0, 0, 4, [0.0, 0.0]) is None


def test_initial_parameters():
    config = ModelConfig.preset("vit_micro_patch4_28")
    first, again, other = (parameters.initial_parameters(config, seed) for seed in (0, 0, 1))
    assert {k: v.shape for k, v in first.items()} == parameters.student_shapes(config)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert not np.array_equal(first["cls_token"], other["cls_token"])
    plain = parameters.initial_parameters(config.model_copy(update={"init_residual_scale": 1.0}), 0)
    np.testing.assert_allclose(first["blocks.3.mlp.fc2.weight"], 0.1 * plain["blocks.3.mlp.fc2.weight"], rtol=1e-6)
    np.testing.assert_array_equal(first["blocks.3.mlp.fc1.weight"], plain["blocks.3.mlp.fc1.weight"])
    bound = math.sqrt(6 / (64 + 192))
    assert np.abs(first["blocks.0.attn.qkv.weight"]).max() == pytest.approx(bound, rel=1e-2)


def test_weight_decay_is_on_matrices_only():
    shapes = parameters.student_shapes(VIT_B)
    decayed = {name for name, shape in shapes.items() if parameters.is_decayed(name, shape)}
    assert "blocks.0.attn.qkv.weight" in decayed
    assert "patch_embed.proj.weight" in decayed
    assert not decayed & {"cls_token", "mask_token", "pos_embed", "norm.weight", "blocks.0.attn.qkv.bias"}


def test_cost_of_vit_b():
    assert cost.encoder_macs(VIT_B) / 1e9 == pytest.approx(17.56, abs=0.005)
    totals = {ratio: cost.pretraining_macs(ModelConfig(mask_ratio=ratio)) for ratio in (0.75, 0.85, 0.9)}
    assert totals[0.75] / totals[0.85] == pytest.approx(1.344, rel=0.03)
    assert totals[0.75] / totals[0.9] == pytest.approx(1.591, rel=0.03)


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_encoder_cost_equals_flop_counter(keep):
    encoder = torch_model.build(torch_model.Encoder, VIT_B)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.zeros(2, 3, 224, 224, device="meta"), keep)
    assert counter.get_total_flops() / 2 / 2 == pytest.approx(cost.encoder_macs(VIT_B, keep), rel=0.005)


@pytest.mark.parametrize("config", [VIT_B, ModelConfig.preset("vit_small_patch16_224", mask_ratio=0.9)])
def test_pretraining_cost_equals_flop_counter(config):
    teacher, student = (torch_model.build(kind, config) for kind in (torch_model.Teacher, torch_model.Student))
    batch = 2
    patches = torch.zeros(batch, config.num_patches, config.in_chans * config.patch_size**2, device="meta")
    visible, masked = (
        torch.zeros(batch, n, dtype=torch.long, device="meta") for n in (config.num_visible, config.num_masked)
    )
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            target, ids = teacher(patches, masked)
        student(patches, visible, target, ids, None)[0].backward()
    assert counter.get_total_flops() / 2 / batch == pytest.approx(cost.pretraining_macs(config), rel=0.005)


def test_keep_one_drops_nothing():
    config = ModelConfig(reduction=ReductionConfig(keep=1.0))
    assert config.tokens_per_block(10) == [10] * 12
    assert cost.encoder_macs(VIT_B, 1.0) == cost.encoder_macs(config)


def test_settings_of_former_versions_are_read():
    newer = {"activation", "pre_norm", "patch_bias"}
    former = {name: value for name, value in VIT_B.to_dict().items() if name not in newer}
    assert ModelConfig.from_dict(former) == VIT_B
    with pytest.raises(ConfigError, match="activation"):
        ModelConfig.from_dict(former | {"activation": "relu"})
