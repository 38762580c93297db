"""CLIP's vision tower: Hugging Face's, both ways, and OpenCLIP's, against a statement of it with PyTorch's layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conversions import convert, refused
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from pcae.cli import main as cli
from pcae_core import pretrained, registry

VISION = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "image_size": 20, "patch_size": 4, "projection_dim": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9,
}  # fmt: skip
IMAGES = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
HEADS = ("--num-heads", 4)


def shaken(model: nn.Module) -> nn.Module:
    """With every parameter random, and so large that activations differ."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def features(folder: Path) -> Tensor:
    found = pretrained.load(folder)
    return registry.create("torch").encode(found.config.model, found.encoder, IMAGES.numpy()).last_hidden_state


def assert_equal(folder: Path, tower: nn.Module, act: str) -> None:
    """Ours comes after the last norm, their last_hidden_state before it."""
    found = pretrained.load(folder).config.model
    assert (found.activation, found.pre_norm, found.patch_bias, found.layer_norm_eps) == (act, True, False, 1e-5)
    with torch.no_grad():
        theirs = tower(IMAGES)
    own = features(folder)
    normed = getattr(tower, "vision_model", tower).post_layernorm(theirs.last_hidden_state)
    torch.testing.assert_close(own, normed, rtol=0, atol=1e-5)
    torch.testing.assert_close(own[:, 0], theirs.pooler_output, rtol=0, atol=1e-5)


# Hugging Face


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("whole", [False, True], ids=["vision", "whole"])
def test_hf_to_ours(tmp_path, capsys, act, whole):
    vision = VISION | {"hidden_act": act}
    theirs = shaken(
        CLIPModel(CLIPConfig(vision_config=vision, text_config=TEXT))
        if whole
        else CLIPVisionModel(CLIPVisionConfig(**vision))
    )
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "100.0% covered" in printed
    assert f"the source says: heads 4, eps 1e-05, activation {act}, pooling cls" in printed
    assert ("text_model: no part of this model" in printed) == whole
    assert_equal(tmp_path / "ours", theirs.vision_model if whole else theirs, act)


def test_hf_with_a_projection_and_old_names(tmp_path, capsys):
    """transformers 4 put vision_model before every name, and saved the numbers of the places."""
    theirs = shaken(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)))
    theirs.save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    stored = load_file(file)
    assert "vision_model.pre_layrnorm.weight" in stored
    save_file(stored | {"vision_model.embeddings.position_ids": torch.arange(26)[None]}, file)
    convert(tmp_path / "hf", tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "visual_projection: no part of this model" in printed
    assert "embeddings.position_ids: the numbers of the places" in printed
    assert_equal(tmp_path / "ours", theirs.vision_model, "quick_gelu")


def test_settings_of_old_folders(tmp_path):
    """They say the vision tower twice, the first time with the library's defaults left out."""
    theirs = shaken(CLIPModel(CLIPConfig(vision_config=VISION | {"hidden_act": "gelu"}, text_config=TEXT)))
    theirs.save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "config.json"
    said = json.loads(file.read_text())
    said |= {"vision_config_dict": said.pop("vision_config"), "vision_config": None}
    file.write_text(json.dumps(said))
    convert(tmp_path / "hf", tmp_path / "ours")
    assert_equal(tmp_path / "ours", theirs.vision_model, "gelu")


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_ours_to_hf_and_back(tmp_path, act):
    theirs = shaken(CLIPVisionModel(CLIPVisionConfig(**VISION, hidden_act=act)))
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "again", "--to", "hf")
    again, loading = CLIPVisionModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert again.config.hidden_act == act
    torch.testing.assert_close(again.eval()(IMAGES).pooler_output, theirs(IMAGES).pooler_output, rtol=0, atol=0)
    convert(tmp_path / "again", tmp_path / "ours_again")
    one, other = (pretrained.load(tmp_path / name) for name in ("ours", "ours_again"))
    assert one.config.model == other.config.model
    for name, value in one.encoder.items():
        np.testing.assert_array_equal(value, other.encoder[name], err_msg=name)


def test_ours_to_timm_and_back(tmp_path):
    theirs = shaken(CLIPVisionModel(CLIPVisionConfig(**VISION)))
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    waived = ("--waive", "activation", "layer_norm_eps")
    convert(tmp_path / "ours", tmp_path / "timm.safetensors", *waived)
    flags = ("--activation", "quick_gelu", "--layer-norm-eps", 1e-5)
    convert(tmp_path / "timm.safetensors", tmp_path / "again", *HEADS, *flags)
    assert_equal(tmp_path / "again", theirs, "quick_gelu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "its activation is 'relu', and ours is one of gelu, gelu_pytorch_tanh, quick_gelu"),
        ({"num_attention_heads": "many"}, "num_attention_heads"),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["vision", "whole"])
def test_hf_models_that_differ_are_refused(tmp_path, capsys, change, message, whole):
    CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT)).save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "config.json"
    vision = json.loads(file.read_text())["vision_config"] | change
    file.write_text(json.dumps({"model_type": "clip", "vision_config": vision} if whole else vision))
    assert message in refused(capsys, tmp_path / "hf", tmp_path / "ours")


def test_what_hugging_face_s_clip_cannot_hold(tmp_path, capsys):
    theirs = shaken(CLIPVisionModel(CLIPVisionConfig(**VISION)))
    theirs.save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    line = refused(capsys, file, tmp_path / "ours")
    assert "has Hugging Face's names, which do not tell the heads; give its folder" in line
    convert(tmp_path / "hf", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "timm.safetensors", "--waive", "activation", "layer_norm_eps")
    timm = load_file(tmp_path / "timm.safetensors")
    for more, message in (
        ({"head.weight": torch.ones(2, 48), "head.bias": torch.ones(2)}, "CLIPVisionModel has no head"),
        ({"patch_embed.proj.bias": torch.ones(48)}, "has a bias, and that of Hugging Face's CLIPVisionModel has none"),
    ):
        save_file(timm | more, tmp_path / "more.safetensors")
        line = refused(capsys, tmp_path / "more.safetensors", tmp_path / "out", *HEADS, "--to", "hf")
        assert message in line


# OpenCLIP


class Block(nn.Module):
    """OpenCLIP's residual attention block, by its names."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(dim, hidden), "c_proj": nn.Linear(hidden, dim)})

    def forward(self, x: Tensor, quick: bool) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y) if quick else nn.functional.gelu(y))


class Tower(nn.Module):
    """OpenCLIP's vision tower, by its names; eps is PyTorch's 1e-5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 48, 4, 4, bias=False)
        self.class_embedding, self.positional_embedding = (
            nn.Parameter(torch.zeros(48)),
            nn.Parameter(torch.zeros(26, 48)),
        )
        self.ln_pre, self.ln_post = nn.LayerNorm(48), nn.LayerNorm(48)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(48, 4, 96) for _ in range(3))})
        self.proj = nn.Parameter(torch.zeros(48, 8))

    def forward(self, images: Tensor, quick: bool) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:
            x = block(x, quick)
        return self.ln_post(x)


def open_clip(folder: Path) -> tuple[Path, Tower]:
    """A whole model's file: the text tower has blocks and positions of the same names outside `visual.`."""
    tower = shaken(Tower())
    text = {f"transformer.resblocks.{i}.ln_1.weight": torch.ones(8) for i in range(2)}
    text |= {"positional_embedding": torch.ones(5, 8), "token_embedding.weight": torch.ones(9, 8)}
    text |= {"text_projection": torch.ones(8, 8), "logit_scale": torch.ones(())}
    torch.save(text | {f"visual.{name}": value for name, value in tower.state_dict().items()}, folder / "model.pt")
    return folder / "model.pt", tower


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_open_clip_to_ours(tmp_path, capsys, act):
    file, tower = open_clip(tmp_path)
    assert "does not tell the activation" in refused(capsys, file, tmp_path / "ours", *HEADS)
    convert(file, tmp_path / "ours", *HEADS, "--activation", act)
    printed = capsys.readouterr().out
    assert "100.0% covered" in printed
    assert f"the source says: eps 1e-05, pooling cls; flags say: heads 4, activation {act}; assumed: mean" in printed
    assert "proj: the projection to the space of texts" in printed
    expected = tower(IMAGES, act == "quick_gelu").detach()
    torch.testing.assert_close(features(tmp_path / "ours"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", None, "has no patch projection"),
        ("positional_embedding", None, "has no position embeddings"),
        ("positional_embedding", torch.ones(27, 48), "(1, 27, 48) are not those of a square grid"),
        ("class_embedding", torch.ones(2, 48), "its shape is (2, 48), the model's (1, 1, 48)"),
        ("ln_pre.weight", None, "no place for it"),
        ("ln_pre.bias", None, "missing norm_pre.bias (zeros)"),
        ("transformer.resblocks.1.attn.in_proj_weight", None, "missing blocks.*.attn.qkv.weight"),
    ],
)
def test_odd_files_of_open_clip_get_one_line(tmp_path, capsys, name, value, message):
    file, _ = open_clip(tmp_path)
    stored = torch.load(file)
    del stored[f"visual.{name}"]
    torch.save(stored | ({} if value is None else {f"visual.{name}": value}), file)
    assert message in refused(capsys, file, tmp_path / "ours", *HEADS, "--activation", "gelu")


@pytest.mark.parametrize("quick", [False, True])
def test_open_clip_with_its_settings(tmp_path, quick):
    file, tower = open_clip(tmp_path)
    settings = {
        "model_cfg": {"quick_gelu": True} if quick else {},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.4] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    convert(file, tmp_path / "ours", *HEADS)
    torch.testing.assert_close(features(tmp_path / "ours"), tower(IMAGES, quick).detach(), rtol=0, atol=1e-5)
    loader = pretrained.load(tmp_path / "ours").config.loader
    assert (loader.mean, loader.std) == ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))


@pytest.mark.parametrize("setting", [{"act_kwargs": {"approximate": "tanh"}}, {"pool_type": "avg"}])
def test_settings_of_open_clip_that_are_not_read_are_refused(tmp_path, capsys, setting):
    file, _ = open_clip(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": setting}}))
    assert f"sets {next(iter(setting))}, which PCAE does not read" in refused(capsys, file, tmp_path / "ours", *HEADS)


def test_the_number_of_heads_is_that_of_open_clips_settings(tmp_path):
    file, tower = open_clip(tmp_path)
    vision = {"width": 48, "head_width": 48 // int(HEADS[1])}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": vision}}))
    convert(file, tmp_path / "ours")
    torch.testing.assert_close(features(tmp_path / "ours"), tower(IMAGES, False).detach(), rtol=0, atol=1e-5)


def test_a_converted_clip_is_exported(tmp_path):
    """With a keep ratio as input; the export verifies it against the reference."""
    shaken(CLIPVisionModel(CLIPVisionConfig(**VISION))).save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    assert cli.run(["export", str(tmp_path / "ours"), str(tmp_path / "onnx"), "--dynamic-keep"]) == 0
