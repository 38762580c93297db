"""Other people's Vision Transformers: the same images through their library and ours; what is refused, and how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conversions import convert, refused
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

from pcae_core import ModelConfig, ReductionConfig, parameters, pretrained, registry
from pcae_core.config import DataConfig
from pcae_core.storage.pretrained import EncoderInfo

SHAPE = {"image_size": 20, "patch_size": 4, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
OURS = ModelConfig(
    image_size=20, patch_size=4, embed_dim=48, depth=3, num_heads=4, num_classes=5, layer_norm_eps=1e-4,
    reduction=ReductionConfig(num_stages=3), mlp_ratio=2.0,
)  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 20, 20)).astype(np.float32)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """With every parameter random: fresh biases are 0 and would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def encode(folder: Path, images: np.ndarray = IMAGES, backend: str = "torch"):
    found = pretrained.load(folder)
    own = registry.create(backend)
    out = own.encode(found.config.model, found.encoder, images)
    return own.to_numpy(out.last_hidden_state), None if out.logits is None else own.to_numpy(out.logits)


def equal(ours: np.ndarray, theirs: torch.Tensor) -> None:
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-5)


# Hugging Face


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_hf_vit_to_ours(tmp_path, capsys, qkv_bias):
    theirs = shaken(ViTModel(ViTConfig(**SHAPE, intermediate_size=96, qkv_bias=qkv_bias)))
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "100.0% covered" in printed
    assert "pooler.dense.weight: the pooler reads" in printed
    expected = theirs(torch.from_numpy(IMAGES)).last_hidden_state
    for backend in ("torch", "numpy"):
        equal(encode(tmp_path / "ours", backend=backend)[0], expected)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("gelu", "gelu"), ("gelu_pytorch_tanh", "gelu_tanh"), ("quick_gelu", "quick_gelu")]
)
def test_the_activation_is_kept_both_ways(tmp_path, capsys, theirs, ours):
    model = shaken(ViTModel(ViTConfig(**SHAPE, hidden_act=theirs), add_pooling_layer=False))
    with torch.no_grad():  # so large that the activations differ
        for layer in (module for name, module in model.named_modules() if name.endswith("mlp.fc1")):
            layer.weight *= 10
    model.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    assert f"activation {ours}, pooling cls" in capsys.readouterr().out
    found, expected = pretrained.load(tmp_path / "ours"), model(torch.from_numpy(IMAGES)).last_hidden_state
    assert found.config.model.activation == ours
    equal(encode(tmp_path / "ours")[0], expected)
    other = found.config.model.model_copy(update={"activation": "gelu_tanh" if ours == "gelu" else "gelu"})
    with_other = registry.create("torch").encode(other, found.encoder, IMAGES).last_hidden_state
    assert (with_other - expected).abs().max() > 1e-4
    convert(tmp_path / "ours", tmp_path / "again", "--to", "hf")
    again = ViTModel.from_pretrained(tmp_path / "again", add_pooling_layer=False).eval()
    equal(encode(tmp_path / "ours")[0], again(torch.from_numpy(IMAGES)).last_hidden_state)


def test_the_eps_matters_and_is_kept(tmp_path):
    theirs = ViTModel(ViTConfig(**SHAPE), add_pooling_layer=False).eval()  # fresh: the class token is short
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    found, expected = pretrained.load(tmp_path / "ours"), theirs(torch.from_numpy(IMAGES)).last_hidden_state
    equal(encode(tmp_path / "ours")[0], expected)
    other = found.config.model.model_copy(update={"layer_norm_eps": 1e-6})
    with_other = registry.create("torch").encode(other, found.encoder, IMAGES).last_hidden_state
    assert (with_other - expected).abs().max() > 1e-4


def test_hf_classifier_to_ours(tmp_path):
    theirs = shaken(ViTForImageClassification(ViTConfig(**SHAPE, num_labels=7)))
    theirs.save_pretrained(tmp_path / "hf")
    pixels = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "size": {"height": 20}}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(pixels))
    convert(tmp_path / "hf", tmp_path / "ours")
    equal(encode(tmp_path / "ours")[1], theirs(torch.from_numpy(IMAGES)).logits)
    assert pretrained.load(tmp_path / "ours").config.loader == DataConfig(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))


@pytest.mark.parametrize("waived", ["head.*", "classifier.*"])
def test_hf_classifier_without_its_head(tmp_path, capsys, waived):
    """Waived by our name or by theirs."""
    theirs = shaken(ViTForImageClassification(ViTConfig(**SHAPE, num_labels=7)))
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours", "--waive", waived)
    assert "classifier.weight: waived: left out" in capsys.readouterr().out
    hidden, logits = encode(tmp_path / "ours")
    assert logits is None
    equal(hidden, theirs.vit(torch.from_numpy(IMAGES)).last_hidden_state)


def mae(**more) -> ViTMAEConfig:
    return ViTMAEConfig(**SHAPE, intermediate_size=96, mask_ratio=0.0, **more)


def test_hf_mae_encoder_to_ours(tmp_path):
    theirs = shaken(ViTMAEModel(mae()))
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours")
    in_order = torch.arange(25.0).expand(2, -1)  # MAE shuffles by this noise
    equal(encode(tmp_path / "ours")[0], theirs(torch.from_numpy(IMAGES), noise=in_order).last_hidden_state)


def test_hf_mae_with_its_decoder(tmp_path, capsys):
    shape = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2}
    theirs = shaken(ViTMAEForPreTraining(mae(**shape, decoder_intermediate_size=48)))
    theirs.save_pretrained(tmp_path / "hf")
    line = refused(capsys, tmp_path / "hf", tmp_path / "ours")
    assert "--waive decoder_pred.weight decoder_pred.bias decoder.decoder_pred" in line
    convert(tmp_path / "hf", tmp_path / "ours", "--waive", "*decoder_pred.*")
    found = pretrained.load(tmp_path / "ours")
    assert (found.config.model.decoder_num_heads, found.config.model.decoder_depth) == (2, 2)
    qkv = theirs.decoder.decoder_layers[1].attention
    for part, layer in zip(
        np.split(found.decoder["decoder_blocks.1.attn.qkv.weight"], 3),
        (qkv.q_proj, qkv.k_proj, qkv.v_proj),
        strict=True,
    ):
        np.testing.assert_array_equal(part, layer.weight.detach().numpy())
    np.testing.assert_array_equal(found.decoder["mask_token"], theirs.decoder.mask_token.detach().numpy())
    assert found.decoder["decoder_pred.weight"].shape == (48, 24)


@pytest.mark.parametrize("classes", [0, 5])
def test_ours_to_hf_and_back(tmp_path, classes):
    model = OURS.model_copy(update={"num_classes": classes})
    ours = {
        name: 0.1 * np.random.default_rng(i).normal(size=shape).astype(np.float32)
        for i, (name, shape) in enumerate(parameters.encoder_shapes(model).items())
    }
    pretrained.save(tmp_path / "ours", EncoderInfo(model=model), ours, {}, "a test")
    convert(tmp_path / "ours", tmp_path / "hf", "--to", "hf")
    hidden, logits = encode(tmp_path / "ours")
    if classes:
        theirs, loading = ViTForImageClassification.from_pretrained(tmp_path / "hf", output_loading_info=True)
        equal(logits, theirs.eval()(torch.from_numpy(IMAGES)).logits)
    else:
        theirs, loading = ViTModel.from_pretrained(tmp_path / "hf", add_pooling_layer=False, output_loading_info=True)
        equal(hidden, theirs.eval()(torch.from_numpy(IMAGES)).last_hidden_state)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    convert(tmp_path / "hf", tmp_path / "again")
    for name, value in pretrained.load(tmp_path / "again").encoder.items():
        np.testing.assert_array_equal(value, ours[name], err_msg=name)
    assert pretrained.load(tmp_path / "again").config.model == model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deit"}, "always has a distillation token"),
        ({"model_type": "dinov2"}, "known are vit, vit_mae, clip and clip_vision_model"),
        ({"hidden_act": "gelu_new"}, "its activation is 'gelu_new'"),
        ({"num_attention_heads": "many"}, "num_attention_heads"),
    ],
)
def test_hf_models_that_differ_are_refused(tmp_path, capsys, change, message):
    ViTModel(ViTConfig(**SHAPE)).save_pretrained(tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | change))
    assert message in refused(capsys, tmp_path / "hf", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
