"""PCAE's own encoders: out of a run, into files and back, into everything that takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import runs
from conversions import convert, refused
from optional import needs_mindspore
from PIL import Image

from pcae.cli import main as cli
from pcae_core import ModelConfig, parameters, pretrained
from pcae_core.config import DataConfig, PretrainConfig
from pcae_core.data import normalize
from pcae_core.data.transforms import resize_center_crop
from pcae_core.storage.checkpoint import DataPosition, save
from pcae_core.storage.pretrained import EncoderInfo

CKPT = pytest.param(".ckpt", marks=needs_mindspore)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A checkpoint of a fresh model."""
    model = ModelConfig(
        image_size=16, patch_size=4, in_chans=1, embed_dim=16, depth=3, num_heads=2,
        decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2,
    )  # fmt: skip
    config = PretrainConfig(model=model, loader=DataConfig(mean=(0.4,)))
    state = parameters.pretraining_state(model, seed=1)
    data = DataPosition(fingerprint="", num_samples=1, samples_seen=0)
    return save(tmp_path_factory.mktemp("run") / "checkpoints", state, config, data, {}, {}).parents[1]


def test_a_run_becomes_an_encoder_and_is_evaluated(run, tmp_path, capsys, monkeypatch):
    convert(run, tmp_path / "ours")
    found, state = pretrained.load(tmp_path / "ours"), pretrained.load(run)
    assert found.config == state.config.model_copy(update={"seed": found.config.seed})
    assert found.config.loader.mean == (0.4,)
    for group, expected in ((found.encoder, state.encoder), (found.decoder, state.decoder)):
        assert group.keys() == expected.keys()
        assert all(np.array_equal(group[name], expected[name]) for name in group)
    data = runs.write_data(tmp_path / "data")
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    assert cli.run(["evaluate", str(tmp_path / "ours"), "--data", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "│ encoder" in printed
    assert "student" not in printed


@pytest.mark.parametrize("suffix", [".pth", ".npz", CKPT])
def test_weights_files_are_read_back(run, tmp_path, suffix):
    convert(run, tmp_path / f"teacher{suffix}", "--encoder", "teacher")
    convert(tmp_path / f"teacher{suffix}", tmp_path / "ours", "--num-heads", 2)
    for name, value in pretrained.load(run, "teacher").encoder.items():
        np.testing.assert_array_equal(pretrained.load(tmp_path / "ours").encoder[name], value, err_msg=name)


@pytest.mark.parametrize("suffix", [".pth", ".npz", CKPT, ".safetensors"])
def test_a_file_that_is_something_else(tmp_path, capsys, suffix):
    (tmp_path / f"file{suffix}").write_text("something else")
    assert f"file{suffix} is not a" in refused(capsys, tmp_path / f"file{suffix}", tmp_path / "ours")


def test_a_damaged_encoder(run, tmp_path, capsys):
    convert(run, tmp_path / "ours")
    assert "exists already" in refused(capsys, run, tmp_path / "ours")
    file = tmp_path / "ours" / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert "truncated" in refused(capsys, tmp_path / "ours", tmp_path / "x.npz")
    (tmp_path / "ours" / "encoder.json").write_text("{}")
    assert "encoder.json cannot be read: format: Field required" in refused(
        capsys, tmp_path / "ours", tmp_path / "x.npz"
    )


def test_a_converted_encoder_is_exported(tmp_path):
    model = ModelConfig(image_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2, layer_norm_eps=1e-2)
    encoder = {
        n: v for n, v in parameters.initial_parameters(model, 0).items() if n in parameters.encoder_shapes(model)
    }
    pretrained.save(tmp_path / "ours", EncoderInfo(model=model), encoder, {}, "a test")
    assert cli.run(["export", str(tmp_path / "ours"), str(tmp_path / "onnx"), "--dynamic-keep"]) == 0  # it verifies


def test_an_encoder_is_not_a_run(run, tmp_path, capsys):
    convert(run, tmp_path / "ours")
    assert cli.run(["pretrain", "--resume", str(tmp_path / "ours")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_hugging_face_prepares_pictures_as_evaluation_does(tmp_path):
    from transformers import AutoImageProcessor

    model = ModelConfig(image_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2)
    encoder = {n: np.ones(s, np.float32) for n, s in parameters.encoder_shapes(model).items()}
    pretrained.save(tmp_path / "ours", EncoderInfo(model=model), encoder, {}, "a test")
    convert(tmp_path / "ours", tmp_path / "hf", "--to", "hf")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "hf")
    normalization = DataConfig().normalization(3)
    for size in ((40, 60), (60, 40), (30, 30)):
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        found = processor(picture, return_tensors="np")["pixel_values"]
        expected = normalize(resize_center_crop(picture, 16)[None], *normalization)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_head_is_kept(tmp_path):
    model = ModelConfig(image_size=8, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=3)
    encoder = {n: np.ones(s, np.float32) for n, s in parameters.encoder_shapes(model).items()}
    pretrained.save(tmp_path / "ours", EncoderInfo(model=model), encoder, {}, "a test")
    convert(tmp_path / "ours", tmp_path / "model.npz")
    assert np.load(tmp_path / "model.npz")["head.weight"].shape == (3, 16)


def test_a_file_of_tensors_does_not_hold_the_activation(tmp_path, capsys):
    model = ModelConfig(
        image_size=8, patch_size=4, embed_dim=16, depth=3, num_heads=2, activation="quick_gelu", layer_norm_eps=1e-6
    )
    encoder = {n: np.ones(s, np.float32) for n, s in parameters.encoder_shapes(model).items()}
    pretrained.save(tmp_path / "ours", EncoderInfo(model=model), encoder, {}, "a test")
    for name in ("model.npz", "model.safetensors"):
        line = refused(capsys, tmp_path / "ours", tmp_path / name)
        assert "this model has the activation quick_gelu" in line
        assert "--waive activation" in line
        convert(tmp_path / "ours", tmp_path / name, "--waive", "activation")
    file = tmp_path / "model.safetensors"
    convert(file, tmp_path / "assumed", "--num-heads", "2")
    assert pretrained.load(tmp_path / "assumed").config.model.activation == "gelu"
    convert(file, tmp_path / "said", "--num-heads", "2", "--activation", "quick_gelu")
    assert pretrained.load(tmp_path / "said").config.model == model
    assert "flags say: heads 2, activation quick_gelu; assumed: " in capsys.readouterr().out
    assert "which holds these settings" in refused(capsys, tmp_path / "ours", tmp_path / "x", "--activation", "gelu")
