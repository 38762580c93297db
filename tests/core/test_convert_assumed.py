"""What tensors do not tell of other people's models: what their folders say of it, what flags say, what is assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversions import SMALL, convert, refused, same, weights
from safetensors.torch import save_file
from transformers import TimmWrapperConfig, ViTConfig, ViTForImageClassification, ViTImageProcessorPil, ViTModel

from pcae.cli import main as cli
from pcae_core import ModelConfig, pretrained

HEADS = ("--num-heads", 2)
IMAGENET = "mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
SHAPE = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


def file(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def hub(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """A folder as timm's `save_for_hf` writes it."""
    (folder / "hub").mkdir()
    file(folder / "hub", tensors)
    whole = {"architecture": "test_vit", "num_classes": 3, "num_features": 16, "global_pool": "token"}
    pixels = {"input_size": [3, 16, 16], "mean": [0.5, 0.5, 0.5], "std": [0.4, 0.5, 0.6], "crop_pct": 0.9}
    (folder / "hub" / "config.json").write_text(json.dumps(whole | {"pretrained_cfg": pixels} | config))
    return folder / "hub"


def hugging_face(folder: Path, model: type = ViTModel, **config: Any) -> Path:
    torch.manual_seed(0)
    model(ViTConfig(**SHAPE, **config)).save_pretrained(folder / "hf")
    return folder / "hf"


def pixels_of(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return pretrained.load(folder).config.loader.normalization(3)


# Normalisation, and the line that says what was assumed


@pytest.mark.parametrize("model_class", [ViTModel, ViTForImageClassification])
def test_hugging_face_without_a_preprocessor(tmp_path, capsys, model_class):
    source = hugging_face(tmp_path, model_class)
    convert(source, tmp_path / "1")
    said = "the source says: heads 2, eps 1e-12, activation gelu, pooling cls"
    assert f"\n{said}; assumed: {IMAGENET}\n" in capsys.readouterr().out
    convert(source, tmp_path / "2", "--mean", 0.5, "--std", 0.4)
    assert f"\n{said}; flags say: mean 0.5, std 0.4\n" in capsys.readouterr().out
    assert pixels_of(tmp_path / "2") == ((0.5,) * 3, (0.4,) * 3)


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, 0.5, 0.4),
        ({"do_rescale": True, "rescale_factor": 1 / 127.5}, 0.25, 0.2),  # to pixels from 0 to 2
        ({"do_rescale": None}, 0.5, 0.4),
        ({"do_rescale": False}, 0.5, 0.4),  # who rescales already, such as torchvision's ToTensor
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, 0.5, 0.2),
        ({"do_normalize": False}, 0.0, 1.0),
    ],
)
def test_what_a_preprocessor_says_is_of_pixels_that_it_rescaled(tmp_path, settings, mean, std):
    source = hugging_face(tmp_path)
    processor = ViTImageProcessorPil(**({"image_mean": [0.5] * 3, "image_std": [0.4] * 3} | settings))
    processor.save_pretrained(source)
    convert(source, tmp_path / "ours")
    np.testing.assert_allclose(pixels_of(tmp_path / "ours"), [[mean] * 3, [std] * 3], rtol=1e-12)


def test_a_preprocessor_of_three_channels_for_a_model_of_one(tmp_path, capsys):
    source = hugging_face(tmp_path, num_channels=1)
    ViTImageProcessorPil().save_pretrained(source)
    assert "pixels need 1 number each, not 3 and 3\n" in refused(capsys, source, tmp_path / "ours")
    convert(source, tmp_path / "ours", "--mean", 0.5, "--std", 0.5)


def test_a_preprocessor_that_does_nothing_says_nothing(tmp_path, capsys):
    source = hugging_face(tmp_path)
    ViTImageProcessorPil(do_rescale=False, do_normalize=False).save_pretrained(source)
    convert(source, tmp_path / "ours")
    assert f"assumed: {IMAGENET}\n" in capsys.readouterr().out


def test_flags_win_over_a_folder_and_that_is_said(tmp_path, capsys):
    source = hugging_face(tmp_path)
    (source / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    convert(source, tmp_path / "1")
    assert "the source says: mean 0.5, std 0.5, heads 2" in capsys.readouterr().out
    convert(source, tmp_path / "2", "--mean", 0.1, 0.2, 0.3, "--num-heads", 4)
    printed = capsys.readouterr().out
    assert "the source says: std 0.5, eps 1e-12" in printed
    assert "flags say: mean 0.1 0.2 0.3 (the source: 0.5), heads 4 (the source: 2)\n" in printed
    assert pixels_of(tmp_path / "2") == ((0.1, 0.2, 0.3), (0.5,) * 3)
    assert pretrained.load(tmp_path / "2").config.model.num_heads == 4


def test_a_file_says_nothing(tmp_path, capsys):
    convert(file(tmp_path, weights()), tmp_path / "1", *HEADS, "--std", 0.5)
    said = "flags say: std 0.5, heads 2; assumed: mean 0.485 0.456 0.406, eps 1e-06, activation gelu, pooling cls"
    assert f"\n{said}\n" in capsys.readouterr().out


@pytest.mark.parametrize("nested", [True, False])
def test_a_timm_folder(tmp_path, capsys, nested):
    """Its configuration of pixels stands in `pretrained_cfg`, and in older files beside the architecture."""
    flat = {"mean": [0.5, 0.5, 0.5], "std": [0.4, 0.5, 0.6], "label_names": ["cat", "dog", "fox"]}
    source = hub(tmp_path, weights(), **({"label_names": flat["label_names"]} if nested else flat))
    if not nested:
        config = json.loads((source / "config.json").read_text())
        del config["pretrained_cfg"]
        (source / "config.json").write_text(json.dumps(config))
    convert(source, tmp_path / "ours", *HEADS)
    printed = capsys.readouterr().out
    assert "the source says: mean 0.5, std 0.4 0.5 0.6, eps 1e-06, activation gelu, pooling cls" in printed
    same(tmp_path / "ours", weights())
    assert pixels_of(tmp_path / "ours") == ((0.5,) * 3, (0.4, 0.5, 0.6))
    assert pretrained.load(tmp_path / "ours").config.class_names == ("cat", "dog", "fox")


def test_models_that_were_not_converted_get_the_command_that_does(tmp_path, capsys):
    for source in (hugging_face(tmp_path), file(tmp_path, weights())):
        assert cli.run(["export", str(source), str(tmp_path / "onnx")]) == 2
        assert "pcae convert makes an encoder of somebody else's model" in capsys.readouterr().err
    assert "owner/vit does not exist; give a file or a folder on this machine" in refused(capsys, "owner/vit", "ours")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pcae"}))
    assert "it is an ONNX model of pcae export" in refused(capsys, tmp_path, tmp_path / "ours")


def test_a_folder_of_transformers_wrapper_of_timm(tmp_path, capsys):
    """It names an architecture, writes null where it has nothing, and makes class names up."""
    written = json.loads(TimmWrapperConfig(architecture="test_vit", num_labels=3).to_json_string())
    assert written["model_args"] is None
    source = hub(tmp_path, {f"timm_model.{name}": value for name, value in weights().items()})
    (source / "config.json").write_text(json.dumps(written | {"pretrained_cfg": {"mean": [0.5] * 3, "std": None}}))
    convert(source, tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())
    assert "the source says: mean 0.5, eps 1e-06" in capsys.readouterr().out
    assert pretrained.load(tmp_path / "ours").config.class_names is None


def test_a_timm_folder_with_pytorch_s_file(tmp_path):
    source = hub(tmp_path, weights())
    (source / "model.safetensors").unlink()
    torch.save(weights(), source / "pytorch_model.bin")
    convert(source, tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"a": 1}, "names no model_type (Hugging Face) and no architecture (timm)"),
        ({"architecture": 3}, "architecture: Input should be a valid string"),
        ({"architecture": "vit", "mean": "x"}, "pretrained_cfg.mean"),
        ({"architecture": "vit", "mean": [0.5, 0.5], "std": [1]}, "need 1 or 3 numbers"),
        ({"architecture": "vit", "model_args": {"num_heads": [3]}}, "does not tell how many attention heads"),
        ({"model_type": "beit"}, "most have relative position biases"),
    ],
)
def test_settings_that_say_nothing_useful(tmp_path, capsys, config, message):
    file(tmp_path, weights())
    (tmp_path / "config.json").write_text(json.dumps(config))
    more = HEADS if "mean" in config else ()
    assert message in refused(capsys, tmp_path, tmp_path / "ours", *more)


def test_a_folder_without_weights(tmp_path, capsys):
    source = hub(tmp_path, weights())
    (source / "model.safetensors").unlink()
    assert "holds none of model.safetensors, model.safetensors.index.json" in refused(capsys, source, tmp_path / "ours")


# Heads that published shapes do not tell


def narrow(width: int) -> dict[str, torch.Tensor]:
    """A published width and depth, narrow where nobody looks."""
    return {
        name: value.half()
        for name, value in weights(
            model=ModelConfig(
                image_size=8, patch_size=4, embed_dim=width, depth=12, num_heads=3, mlp_ratio=1 / 24, num_classes=3
            )
        ).items()
    }


@pytest.mark.parametrize(
    ("width", "published"), [(192, "3 in timm and DeiT, 12"), (384, "6 in timm, DeiT and DINO, 12")]
)
def test_heads_of_ambiguous_sizes(tmp_path, capsys, width, published):
    source = file(tmp_path, narrow(width))
    line = refused(capsys, source, tmp_path / "ours")
    assert f"(published: {published} in " in line
    assert line.endswith("; say --num-heads\n")
    convert(source, tmp_path / "ours", "--num-heads", 12)
    assert pretrained.load(tmp_path / "ours").config.model.num_heads == 12


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"architecture": "vit_tiny_patch16_224"}, 3),
        ({"architecture": "deit_tiny_patch16_224", "model_args": {"num_heads": 12, "img_size": 8}}, 12),
        ({"architecture": "vit_tiny_of_mine"}, None),
    ],
)
def test_heads_by_timm_s_architecture(tmp_path, capsys, config, heads):
    source = hub(tmp_path, narrow(192), **config)
    if heads is None:
        assert "say --num-heads" in refused(capsys, source, tmp_path / "ours")
    else:
        convert(source, tmp_path / "ours")
        assert pretrained.load(tmp_path / "ours").config.model.num_heads == heads
        assert f"std 0.4 0.5 0.6, heads {heads}, eps 1e-06" in capsys.readouterr().out


# Differences that leave no tensor


def test_rotary_models_by_their_only_trace(tmp_path, capsys):
    """timm's call LayerScale gamma_1 and have one bias for query, key and value; so has Meta's DeiT III."""
    scaled = weights()
    for block in range(SMALL.depth):
        scaled |= {f"blocks.{block}.gamma_{i}": torch.ones(16) for i in (1, 2)}
    source = file(tmp_path, scaled)
    line = refused(capsys, source, tmp_path / "ours", *HEADS)
    assert "(RoPE): that leaves no tensor, and features would differ; Meta's DeiT III looks the same" in line
    convert(source, tmp_path / "ours", *HEADS, "--waive", "rope")
    same(tmp_path / "ours", weights())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "vit_small_patch16_rope_ape_224"}, "(RoPE), which leaves no tensor: features would differ"),
        ({"architecture": "vit_small_patch16_dinov3"}, "(RoPE), which leaves no tensor"),
        ({"architecture": "vit_base_patch32_siglip_256"}, "another GELU"),
        ({"model_args": {"act_layer": "gelu_tanh"}}, "with its own act_layer, which may change its features"),
        ({"model_args": {"pool_include_prefix": True}}, "with its own pool_include_prefix"),
        ({"global_pool": "avg"}, "its head pools by 'mean', and with these tensors ours would by 'cls'"),
        ({"global_pool": "map"}, "its head pools by 'map', and"),
        ({"model_args": {"global_pool": "avg"}}, "--waive 'head.*' converts it without the head"),
    ],
)
def test_what_timm_s_settings_say_and_tensors_do_not(tmp_path, capsys, config, message):
    assert message in refused(capsys, hub(tmp_path, weights(), **config), tmp_path / "ours", *HEADS)


@pytest.mark.parametrize(
    ("architecture", "activation"),
    [
        ("vit_base_patch32_clip_224", "gelu"),
        ("vit_large_patch14_clip_quickgelu_336", "quick_gelu"),
        ("vit_base_patch16_plus_clip_240", "gelu"),
    ],
)
def test_timm_s_clip(tmp_path, capsys, architecture, activation):
    model = SMALL.model_copy(update={"pre_norm": True, "patch_bias": False})
    convert(hub(tmp_path, weights(model=model), architecture=architecture), tmp_path / "ours", *HEADS)
    found = pretrained.load(tmp_path / "ours").config.model
    assert (found.activation, found.layer_norm_eps, found.pre_norm) == (activation, 1e-5, True)
    assert f"eps 1e-05, activation {activation}, pooling cls" in capsys.readouterr().out


def test_a_head_that_pools_otherwise_is_left_out(tmp_path):
    source = hub(tmp_path, weights(), global_pool="avg")
    convert(source, tmp_path / "ours", *HEADS, "--waive", "head.*")
    same(tmp_path / "ours", {name: value for name, value in weights().items() if not name.startswith("head.")})


# Names of classes


def test_two_classes_of_one_name(tmp_path, capsys):
    source = hugging_face(tmp_path, ViTForImageClassification, id2label={0: "crane", 1: "cat", 2: "crane"})
    line = refused(capsys, source, tmp_path / "ours")
    assert "config.json calls several classes 'crane'; name them apart there, or say --waive class_names" in line
    convert(source, tmp_path / "ours", "--waive", "class_names")
    assert pretrained.load(tmp_path / "ours").config.class_names is None


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({2: "c", 0: "a", 1: "b"}, ("a", "b", "c")),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, None),  # the library's own, where nobody gave any
        ({0: "a", 1: "b", 5: "c"}, None),
    ],
)
def test_names_that_are_none(tmp_path, labels, names):
    source = hugging_face(tmp_path, ViTForImageClassification, num_labels=3)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"id2label": labels}))
    convert(source, tmp_path / "ours")
    assert pretrained.load(tmp_path / "ours").config.class_names == names


def test_what_is_ours_says_everything_itself(tmp_path, capsys):
    convert(file(tmp_path, weights()), tmp_path / "ours", *HEADS)
    capsys.readouterr()
    convert(tmp_path / "ours", tmp_path / "again")
    assert "assumed" not in capsys.readouterr().out
    for flags in (("--mean", 0.5), ("--prefix", "model")):
        line = refused(capsys, tmp_path / "ours", tmp_path / "x", *flags)
        assert "is an encoder or a run of PCAE, which holds these settings; leave out --num-heads" in line
    np.testing.assert_array_equal(pixels_of(tmp_path / "again"), pixels_of(tmp_path / "ours"))
