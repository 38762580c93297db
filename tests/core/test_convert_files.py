"""Files in timm's names (timm, MAE, DeiT), and PCAE's own: coverage, exact rewriting, positions for another size."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conversions import SMALL, convert, refused, same, weights
from safetensors.torch import load_file, save_file

from pcae_core import ModelConfig, pretrained, registry
from pcae_core.config import DataConfig
from pcae_core.convert.positions import resize

BLOCK = {
    "norm1.weight": (192,), "norm1.bias": (192,), "attn.qkv.weight": (576, 192), "attn.qkv.bias": (576,),
    "attn.proj.weight": (192, 192), "attn.proj.bias": (192,), "norm2.weight": (192,), "norm2.bias": (192,),
    "mlp.fc1.weight": (768, 192), "mlp.fc1.bias": (768,), "mlp.fc2.weight": (192, 768), "mlp.fc2.bias": (192,),
}  # fmt: skip
TIMM = {
    "cls_token": (1, 1, 192), "pos_embed": (1, 17, 192), "patch_embed.proj.weight": (192, 3, 4, 4),
    "patch_embed.proj.bias": (192,), **{f"blocks.{i}.{n}": shape for i in range(12) for n, shape in BLOCK.items()},
    "norm.weight": (192,), "norm.bias": (192,), "head.weight": (10, 192), "head.bias": (10,),
}  # fmt: skip
"""`vit_tiny_patch4_16` with ten classes, as timm documents its names and shapes."""
DECODER = {
    "mask_token": (1, 1, 32), "decoder_pos_embed": (1, 17, 32), "decoder_embed.weight": (32, 192),
    "decoder_embed.bias": (32,), "decoder_norm.weight": (32,), "decoder_norm.bias": (32,),
    "decoder_pred.weight": (48, 32), "decoder_pred.bias": (48,),
    **{f"decoder_blocks.0.{n}": tuple(s * 32 // 192 for s in shape) for n, shape in BLOCK.items()},
}  # fmt: skip
"""MAE's, of one block."""
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
HEADS = ("--num-heads", 3)
Tensors = dict[str, torch.Tensor]


def tensors(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def pth(folder: Path, content: object) -> Path:
    torch.save(content, folder / "model.pth")
    return folder / "model.pth"


def features(folder: Path, images: np.ndarray = IMAGES) -> torch.Tensor:
    found = pretrained.load(folder)
    return registry.create("torch").encode(found.config.model, found.encoder, images).last_hidden_state


def convert_file(source: Path, out: Path, *more: object) -> None:
    convert(source, out, *HEADS, *more)


def refused_file(capsys, source: Path, out: Path, *more: object) -> str:
    return refused(capsys, source, out, *HEADS, *more)


def test_timm_to_ours_and_back(tmp_path, capsys):
    save_file(tensors(TIMM), tmp_path / "tiny.safetensors")
    convert_file(tmp_path / "tiny.safetensors", tmp_path / "ours", "--mean", 0.5, "--std", 0.5)
    assert "100.0% covered" in capsys.readouterr().out
    found = pretrained.load(tmp_path / "ours")
    assert found.config.model == ModelConfig(
        image_size=16, patch_size=4, embed_dim=192, depth=12, num_heads=3, num_classes=10
    )
    assert found.config.loader == DataConfig(mean=(0.5,), std=(0.5,))
    convert(tmp_path / "ours", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert {name: tuple(value.shape) for name, value in back.items()} == TIMM
    for name, value in tensors(TIMM).items():
        assert torch.equal(back[name], value), name


def test_a_pooled_model_of_timm_and_back(tmp_path, capsys):
    """timm's global_pool="avg": a norm of the mean token, and none of the tokens."""
    pooled = {name: shape for name, shape in TIMM.items() if not name.startswith("norm.")}
    pooled |= {"fc_norm.weight": (192,), "fc_norm.bias": (192,)}
    source = pth(tmp_path, tensors(pooled))
    assert "missing norm.weight" in refused_file(capsys, source, tmp_path / "ours")
    convert_file(source, tmp_path / "ours", "--waive", "norm.*")
    assert "the source says: pooling mean; flags say: heads 3; assumed: mean 0.485" in capsys.readouterr().out
    found = pretrained.load(tmp_path / "ours")
    assert found.config.model.pooling == "mean"
    convert(tmp_path / "ours", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == pooled.keys()
    for name, value in tensors(pooled).items():
        assert torch.equal(back[name], value), name
    assert "--pooling cls" in refused(capsys, tmp_path / "ours", tmp_path / "hf", "--to", "hf")


@pytest.mark.parametrize("wrapped", [lambda t: t, lambda t: {"model": t, "epoch": 3, "optimizer": {"state": {}}}])
def test_mae_encoder(tmp_path, wrapped: Callable[[Tensors], object]):
    encoder = {name: value for name, value in tensors(TIMM).items() if not name.startswith("head.")}
    convert_file(pth(tmp_path, wrapped(encoder)), tmp_path / "ours")
    found = pretrained.load(tmp_path / "ours")
    assert not found.decoder
    assert found.config.model.num_classes == 0
    for name, value in found.encoder.items():
        np.testing.assert_array_equal(value, encoder[name].numpy(), err_msg=name)


def test_mae_with_its_decoder(tmp_path, capsys):
    shapes = {name: shape for name, shape in TIMM.items() if not name.startswith("head.")} | DECODER
    source = pth(tmp_path, {"model": tensors(shapes)})
    assert "say --decoder-num-heads" in refused_file(capsys, source, tmp_path / "ours")
    heads = ("--decoder-num-heads", 4)
    line = refused_file(capsys, source, tmp_path / "ours", *heads)
    assert "MAE predicts pixels" in line
    assert line.endswith("--waive decoder_pred.weight decoder_pred.bias\n")
    capsys.readouterr()
    convert_file(source, tmp_path / "ours", *heads, "--waive", "decoder_pred.*")
    assert "flags say: heads 3, decoder heads 4; assumed: mean" in capsys.readouterr().out
    found = pretrained.load(tmp_path / "ours")
    assert found.decoder["decoder_pred.weight"].shape == (192, 32)
    for name in DECODER:
        if not name.startswith("decoder_pred"):
            np.testing.assert_array_equal(found.decoder[name], tensors(shapes)[name].numpy(), err_msg=name)
    convert_file(source, tmp_path / "encoder", "--waive", "decoder_*", "mask_token")
    assert not pretrained.load(tmp_path / "encoder").decoder


def without(name: str) -> Callable[[Tensors], object]:
    return lambda t: {key: value for key, value in t.items() if name not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("cls_token"), "has no class token"),
        (without("norm2.weight"), "missing blocks.*.norm2.weight (drawn anew)"),
        (
            lambda t: without("head")(t) | {"fc_norm.weight": torch.ones(192)},
            "a norm of the pooled tokens, which ours has under a head only",
        ),
        (lambda t: t | {"reg_token": torch.ones(1, 4, 192)}, "register tokens take part in attention"),
        (lambda t: t | {"blocks.0.attn.q_norm.weight": torch.ones(64)}, "queries and keys are normalised"),
        (lambda t: t | {"norm.bias": torch.ones(7)}, "its shape is (7,), the model's (192,)"),
        (lambda t: t | {"pos_embed": torch.ones(1, 19, 192)}, "not those of a square grid"),
        (lambda t: {"weight": torch.ones(2)}, "no Vision Transformer in timm's names; it begins with weight"),
        (lambda t: {"embeddings.patch_embeddings.projection.weight": t["norm.bias"]}, "has Hugging Face's names"),
        (lambda t: {"model": t, "args": argparse.Namespace(x=1)}, "could run code that is in it, which is refused"),
    ],
)
def test_what_is_refused_and_why(tmp_path, capsys, change, message):
    assert message in refused_file(capsys, pth(tmp_path, change(tensors(TIMM))), tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth"]


def test_distilled_deit_needs_waivers(tmp_path, capsys):
    shapes = TIMM | {
        "pos_embed": (1, 18, 192), "dist_token": (1, 1, 192), "head_dist.weight": (10, 192), "head_dist.bias": (10,)
    }  # fmt: skip
    source = pth(tmp_path, {"model": tensors(shapes)})
    assert "a distilled DeiT, whose distillation token takes part" in refused_file(capsys, source, tmp_path / "ours")
    convert_file(source, tmp_path / "ours", "--waive", "dist_token", "head_dist.*")
    positions = tensors(shapes)["pos_embed"].numpy()
    np.testing.assert_array_equal(
        pretrained.load(tmp_path / "ours").encoder["pos_embed"], positions[:, [0, *range(2, 18)]]
    )


def test_layer_scale_is_folded_exactly(tmp_path):
    scaled = tensors(TIMM)
    expected = dict(scaled)
    for i in range(12):
        for scale, layer in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
            gamma = scaled[f"blocks.{i}.{scale}"] = torch.rand(192)
            weight, bias = f"blocks.{i}.{layer}.weight", f"blocks.{i}.{layer}.bias"
            expected |= {weight: gamma[:, None] * scaled[weight], bias: gamma * scaled[bias]}
    save_file(scaled, tmp_path / "scaled.safetensors")
    convert_file(tmp_path / "scaled.safetensors", tmp_path / "ours")
    for name, value in pretrained.load(tmp_path / "ours").encoder.items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-6, err_msg=name)


def test_positions_without_a_row_for_the_class_token(tmp_path):
    source = tensors(TIMM)
    source["pos_embed"] = source["pos_embed"][:, 1:].clone()
    save_file(source, tmp_path / "file.safetensors")
    convert_file(tmp_path / "file.safetensors", tmp_path / "ours")
    positions = pretrained.load(tmp_path / "ours").encoder["pos_embed"]
    assert not positions[:, 0].any()
    np.testing.assert_array_equal(positions[:, 1:], source["pos_embed"].numpy())


@pytest.mark.parametrize(("own", "new"), [(4, 6), (14, 24), (14, 7), (5, 3), (3, 3)])
def test_bicubic_positions_equal_torch_s(own, new):
    embeddings = np.random.default_rng(0).normal(size=(1, 1 + own * own, 8))
    grid = torch.from_numpy(embeddings[:, 1:].reshape(1, own, own, 8)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    resized = resize(embeddings, new, 1)
    np.testing.assert_array_equal(resized[:, :1], embeddings[:, :1])
    np.testing.assert_allclose(resized[0, 1:], expected[0].flatten(1).T.numpy(), rtol=0, atol=1e-12)


def test_another_image_size_on_request(tmp_path, capsys):
    save_file(tensors(TIMM), tmp_path / "tiny.safetensors")
    convert_file(tmp_path / "tiny.safetensors", tmp_path / "ours", "--image-size", 24)
    assert "grid 4 x 4 to 6 x 6, bicubic" in capsys.readouterr().out
    assert features(tmp_path / "ours", np.zeros((1, 3, 24, 24), np.float32)).shape == (1, 37, 192)
    assert "not divisible by patch_size" in refused_file(
        capsys, tmp_path / "tiny.safetensors", tmp_path / "other", "--image-size", 30
    )


def test_pixels_that_do_not_fit_are_refused(tmp_path, capsys):
    save_file(tensors(TIMM), tmp_path / "tiny.safetensors")
    for name in ("--mean", "--std"):
        line = refused_file(capsys, tmp_path / "tiny.safetensors", tmp_path / "ours", name, 0.5, 0.4)
        assert "mean and std of the pixels need 1 or 3 numbers each" in line
    assert not (tmp_path / "ours").exists()


def test_the_waivers_that_are_advised_lose_nothing(tmp_path, capsys):
    partial = {name: value for name, value in tensors(TIMM).items() if name != "blocks.2.attn.proj.bias"}
    whole = {name: value for name, value in tensors(TIMM).items() if not name.endswith("attn.proj.bias")}
    for number, (found, advised) in enumerate(
        ((partial, "--waive blocks.2.attn.proj.bias"), (whole, "--waive 'blocks.*.attn.proj.bias'"))
    ):
        save_file(found, tmp_path / "tiny.safetensors")
        out = tmp_path / str(number)
        assert refused_file(capsys, tmp_path / "tiny.safetensors", out).rstrip().endswith(advised)
        convert_file(tmp_path / "tiny.safetensors", out, "--waive", advised.split()[1].strip("'"))
        encoder = pretrained.load(out).encoder
        for name in found:
            np.testing.assert_array_equal(encoder[name], found[name].numpy(), name)


@pytest.mark.parametrize(
    "odd",
    [
        {"dist_token": (1, 1, 192), "pos_embed": (1, 1, 192)},
        {"blocks.0.ls1.gamma": (7,)},
        {"blocks.0.ls1.gamma": ()},
        {"blocks.0.attn.qkv.weight": (), "blocks.0.attn.qkv.bias": None},
        {"head.weight": ()},
        {"blocks.0.mlp.fc1.weight": ()},
    ],
)
def test_odd_shapes_get_one_line(tmp_path, capsys, odd):
    shapes = {name: shape for name, shape in (TIMM | odd).items() if shape is not None}
    save_file(tensors(shapes), tmp_path / "tiny.safetensors")
    refused_file(capsys, tmp_path / "tiny.safetensors", tmp_path / "ours")


def test_heads_that_nobody_knows_must_be_said(tmp_path, capsys):
    shallow = {name: value for name, value in tensors(TIMM).items() if "blocks.11" not in name}
    source = pth(tmp_path, shallow)
    assert "say --num-heads" in refused(capsys, source, tmp_path / "ours")
    convert(source, tmp_path / "ours", "--num-heads", 6, "--layer-norm-eps", 1e-5)
    found = pretrained.load(tmp_path / "ours").config.model
    assert (found.num_heads, found.depth, found.layer_norm_eps) == (6, 11, 1e-5)
    for ending in ("safetensors", "pth", "npz"):
        line = refused(capsys, tmp_path / "ours", tmp_path / f"back.{ending}")
        assert "LayerNorm eps 1e-05, which a file of tensors does not hold" in line
    convert(tmp_path / "ours", tmp_path / "back.safetensors", "--waive", "layer_norm_eps")
    assert "which holds these settings" in refused(capsys, tmp_path / "ours", tmp_path / "x", "--num-heads", 3)


def test_half_precision_is_widened(tmp_path):
    halves = {name: value.bfloat16() for name, value in tensors(TIMM).items()}
    convert_file(pth(tmp_path, halves), tmp_path / "ours")
    for name, value in pretrained.load(tmp_path / "ours").encoder.items():
        np.testing.assert_array_equal(value, halves[name].float().numpy(), err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out.safetensors", "--to", "hf"), "must be a folder with --to hf"),
        (("out", "--to", "timm"), "must end in .safetensors with --to timm"),
        (("out.bin",), "or be a folder without an ending"),
    ],
)
def test_an_ending_and_a_form_that_disagree(tmp_path, capsys, arguments, message):
    out, *rest = arguments
    assert message in refused(capsys, tmp_path, tmp_path / out, *rest)


def test_a_norm_before_the_blocks_and_no_bias_of_patches(tmp_path, capsys):
    model = SMALL.model_copy(update={"pre_norm": True, "patch_bias": False})
    theirs = weights(model=model)
    save_file(theirs, tmp_path / "timm.safetensors")
    convert(tmp_path / "timm.safetensors", tmp_path / "ours", "--num-heads", "2")
    same(tmp_path / "ours", theirs)
    found = pretrained.load(tmp_path / "ours").config.model
    assert (found.pre_norm, found.patch_bias) == (True, False)
    convert(tmp_path / "ours", tmp_path / "again.safetensors")
    assert load_file(tmp_path / "again.safetensors").keys() == theirs.keys()
    assert "a norm before its blocks" in refused(capsys, tmp_path / "ours", tmp_path / "hf", "--to", "hf")


def test_no_bias_of_patches_is_zeros_for_hugging_face(tmp_path):
    from transformers import ViTForImageClassification

    model = SMALL.model_copy(update={"patch_bias": False})
    save_file(weights(model=model), tmp_path / "timm.safetensors")
    convert(tmp_path / "timm.safetensors", tmp_path / "ours", "--num-heads", "2")
    convert(tmp_path / "ours", tmp_path / "hf", "--to", "hf")
    theirs = ViTForImageClassification.from_pretrained(tmp_path / "hf").eval()
    expected = theirs(torch.from_numpy(IMAGES), output_hidden_states=True).hidden_states[-1]
    got = theirs.vit.layernorm(expected)
    torch.testing.assert_close(features(tmp_path / "ours"), got, rtol=0, atol=1e-5)
