"""Files as people publish them: endings, shards, half precision, what stands before the names and beside the model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conversions import convert, refused, same, weights
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from pcae_core import pretrained, registry
from pcae_core.errors import CheckpointError
from pcae_core.storage import manifest
from pcae_core.storage.tensors import load_safetensors

HEADS = ("--num-heads", 2)
INDEX = "model.safetensors.index.json"
Tensors = dict[str, torch.Tensor]


def saved(folder: Path, content: object, name: str = "model.pth", **options: object) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def renamed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


# Endings


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "checkpoint.pth.tar", "model.pth"])
def test_endings(tmp_path, name):
    convert(saved(tmp_path, {"state_dict": weights()}, name), tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())


@pytest.mark.parametrize("zipped", [True, False])
def test_lightning(tmp_path, capsys, zipped):
    """A zip, or in old versions a pickle, that ends as MindSpore's checkpoints do."""
    content = {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": renamed(weights(), "model.") | {"criterion.weight": torch.ones(3)}, "callbacks": {},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}], "lr_schedulers": [],
    }  # fmt: skip
    source = saved(tmp_path, content, "epoch=3.ckpt", _use_new_zipfile_serialization=zipped)
    convert(source, tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())
    printed = capsys.readouterr().out
    assert "takes state_dict.model. (44 tensors)" in printed
    assert re.search(r"left out\W+1\W+state_dict.criterion: no part of this model", printed)


def test_an_unknown_ending_is_told_the_known_ones(tmp_path, capsys):
    (tmp_path / "model.onnx").write_bytes(b"")
    line = refused(capsys, tmp_path / "model.onnx", tmp_path / "ours")
    for ending in (".safetensors", ".pt", ".bin", ".pth.tar", ".pth", ".ckpt", ".npz", ".index.json"):
        assert ending in line


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        "state_dict.model.", "backbone.", "teacher.backbone.", "student.module.backbone.", "state_dict.module.",
        "state_dict.module.base_encoder.", "encoder.module.", "target_encoder.module.", "_orig_mod.", "vit.",
        "model._orig_mod.module.", "state_dict.model.vit.backbone.",
    ],
)  # fmt: skip
def test_prefixes(tmp_path, capsys, prefix):
    tree = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, prefix[:-1]: weights()}
    convert(saved(tmp_path, tree), tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())
    assert f"takes {prefix} (44 tensors)\n" in capsys.readouterr().out


def test_words_of_wrappers_inside_names(tmp_path):
    inside = {name.replace("blocks.1.", "blocks.1._orig_mod."): value for name, value in weights().items()}
    convert(saved(tmp_path, inside), tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())


def test_blocks_in_chunks(tmp_path):
    """DINOv2's: the chunk's number, then the block's own."""
    chunked = {re.sub(r"^blocks\.", "blocks.0.", name): value for name, value in weights().items()}
    chunked["blocks.1.2.norm1.weight"] = chunked.pop("blocks.0.2.norm1.weight")
    convert(saved(tmp_path, {"teacher": renamed(chunked, "backbone.")}), tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())


def test_of_several_models_one_is_chosen(tmp_path, capsys):
    tree = {
        "student": renamed(weights(1), "module.backbone.") | {"module.head.mlp.0.weight": torch.ones(2, 2)},
        "teacher": renamed(weights(2), "backbone.") | {"head.mlp.0.weight": torch.ones(2, 2)},
        "epoch": 3,
    }
    source = saved(tmp_path, tree)
    line = refused(capsys, source, tmp_path / "ours", *HEADS)
    assert "several models: student.module.backbone. (44 tensors), teacher.backbone. (44 tensors)" in line
    assert line.endswith("choose one, such as --prefix student.module.backbone.\n")
    for number, prefix in ((1, "student.module.backbone."), (2, "teacher.backbone"), (2, "teacher"), (1, "module")):
        out = tmp_path / prefix
        convert(source, out, *HEADS, "--to", "pcae", "--prefix", prefix)
        same(out, weights(number))
    assert "no part of this model" in capsys.readouterr().out
    for prefix, number in (("backbone", "several models"), ("teach", "no model"), ("", "no model")):
        line = refused(capsys, source, tmp_path / "ours", *HEADS, "--prefix", prefix)
        assert f"{number} behind --prefix {prefix or repr('')}; it has student.module.backbone. (44 tensors)" in line


def test_the_shortest_of_nested_prefixes_is_its_own(tmp_path):
    source = saved(tmp_path, {"state_dict": renamed(weights(1), "model.") | renamed(weights(2), "model.target.")})
    for number, prefix in ((1, "state_dict.model"), (2, "target")):
        convert(source, tmp_path / str(number), *HEADS, "--prefix", prefix)
        same(tmp_path / str(number), weights(number))


@pytest.mark.parametrize(("name", "average"), [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_a_moving_average_beside_the_weights(tmp_path, capsys, name, average):
    source = saved(tmp_path, {name: weights(1), average: weights(2), "optimizer": {}})
    convert(source, tmp_path / "1", *HEADS)
    assert f"takes {name}. (44 tensors), not {average}. (44 tensors): --prefix chooses\n" in capsys.readouterr().out
    same(tmp_path / "1", weights(1))
    convert(source, tmp_path / "2", *HEADS, "--prefix", average)
    assert f"takes {average}. (44 tensors), not {name}. (44 tensors): --prefix chooses\n" in capsys.readouterr().out
    same(tmp_path / "2", weights(2))


def test_a_run_s_flag_is_not_ignored_for_a_file(tmp_path, capsys):
    source = saved(tmp_path, {"model": weights(1), "model_ema": weights(2)})
    line = refused(capsys, source, tmp_path / "ours", *HEADS, "--encoder", "teacher")
    assert "there is no teacher; --prefix chooses among models" in line


def clash(tensors: Tensors) -> Tensors:
    return tensors | {"blocks.0._orig_mod.norm1.weight": torch.ones(16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {f"{i}.patch_embed.proj.weight": torch.ones(1) for i in range(300)}, "holds 300 models"),
        (lambda t: {f"{i}.patch_embed.proj.weight": torch.ones(1) for i in range(99)}, "and 89 more; choose one"),
        (lambda t: {"patch_embed.proj.weight": torch.ones(1), "\n.patch_embed.proj.weight": torch.ones(1)}, "several"),
        (lambda t: {"x.patch_embed.proj.weight": torch.ones(1)}, "has no class token"),
        (lambda t: {"x_patch_embed.proj.weight": torch.ones(1)}, "holds no patch_embed.proj.weight"),
        (lambda t: renamed({"embeddings.patch_embeddings.projection.weight": torch.ones(1)}, "vit."), "Hugging Face's"),
        (clash, "two tensors would be called blocks.0.norm1.weight"),
    ],
)
def test_odd_prefixes_get_one_line(tmp_path, capsys, change: Callable[[Tensors], Tensors], message):
    assert message in refused(capsys, saved(tmp_path, change(weights())), tmp_path / "ours", *HEADS)


# What is left over


def test_what_changes_nothing_needs_no_waiver(tmp_path, capsys):
    more = {
        "mask_token": torch.ones(1, 16), "pooler.dense.weight": torch.ones(16, 16),
        "head.0.weight": torch.ones(8, 16), "head.1.running_mean": torch.ones(8),
    }  # fmt: skip
    encoder = {name: value for name, value in weights().items() if not name.startswith("head.")}
    convert(saved(tmp_path, encoder | more), tmp_path / "ours", *HEADS)
    printed = capsys.readouterr().out
    same(tmp_path / "ours", encoder)
    assert "100.0% covered" in printed
    for name in more:
        shown = re.escape(re.sub(r"\.\d\.", ".*.", name))
        assert re.search(rf"left out\W+1\W+{shown}: ", printed), name


@pytest.mark.parametrize(
    "more",
    [{"reg_token": torch.ones(1, 4, 16)}, {"register_tokens": torch.ones(1, 4, 16)}, {"blocks.0.x": torch.ones(1)}],
)
def test_waivers_that_would_change_features_are_not_suggested(tmp_path, capsys, more):
    line = refused(capsys, saved(tmp_path, weights() | more), tmp_path / "ours", *HEADS)
    assert f"surplus {next(iter(more)).replace('.0.', '.*.')} (" in line
    assert "no waiver is suggested" in line
    assert "--waive" not in line


def test_a_known_difference_is_named_before_what_follows_from_it(tmp_path, capsys):
    gated = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for name, v in weights().items()}
    line = refused(capsys, saved(tmp_path, gated), tmp_path / "ours", *HEADS)
    assert "blocks.*.mlp.w12.weight (a gated MLP: features would differ)" in line


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_safetensors_of_other_precision(tmp_path, dtype):
    stored = {name: value.to(dtype) for name, value in weights().items()}
    stored |= {"norm.bias": weights()["norm.bias"], "mask_token": torch.ones(1, dtype=torch.int64)}
    save_file(stored, tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "ours", *HEADS)
    del stored["mask_token"]
    same(tmp_path / "ours", stored)


@pytest.mark.parametrize("beside", [torch.float32, torch.bfloat16])
def test_eight_bits_get_one_line(tmp_path, capsys, beside):
    stored = weights() | {"norm.bias": torch.ones(16).to(torch.float8_e4m3fn), "norm.weight": torch.ones(16).to(beside)}
    save_file(stored, tmp_path / "model.safetensors")
    assert "norm.bias is F8_E4M3" in refused(capsys, tmp_path / "model.safetensors", tmp_path / "ours", *HEADS)
    with pytest.raises(CheckpointError, match="is not a safetensors file that NumPy can hold"):
        load_safetensors(tmp_path / "model.safetensors")


def test_values_of_numpy_are_named_and_what_to_do(tmp_path, capsys):
    line = refused(capsys, saved(tmp_path, {"model": weights(), "best": np.float64(0.3)}), tmp_path / "ours", *HEADS)
    assert "NumPy's values need" in line
    assert "save its tensors alone" in line
    assert "damaged" not in line


# Shards

HF = ViTConfig(image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)


@pytest.fixture
def hf() -> ViTModel:
    torch.manual_seed(0)
    return ViTModel(HF).eval()


def features(folder: Path, images: torch.Tensor) -> torch.Tensor:
    found = pretrained.load(folder)
    return registry.create("torch").encode(found.config.model, found.encoder, images.numpy()).last_hidden_state


def check(folder: Path, theirs: ViTModel, atol: float = 1e-5) -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32))
    torch.testing.assert_close(features(folder, images), theirs(images).last_hidden_state, rtol=0, atol=atol)


def test_hugging_face_s_shards(tmp_path, hf):
    hf.save_pretrained(tmp_path / "hf", max_shard_size="20KB")
    assert (tmp_path / "hf" / INDEX).is_file()
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 3
    convert(tmp_path / "hf", tmp_path / "ours")
    check(tmp_path / "ours", hf)


def test_hugging_face_s_half_precision(tmp_path, hf):
    hf.bfloat16().save_pretrained(tmp_path / "hf", max_shard_size="20KB")
    convert(tmp_path / "hf", tmp_path / "ours")
    check(tmp_path / "ours", hf.float())


@pytest.mark.parametrize("sharded", [True, False])
def test_hugging_face_s_older_files(tmp_path, hf, sharded):
    folder = tmp_path / "hf"
    hf.save_pretrained(folder)
    tensors = {f"vit.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    if sharded:
        names = list(tensors)
        for number, part in enumerate((names[:20], names[20:])):
            torch.save({name: tensors[name] for name in part}, folder / f"pytorch_model-{number}.bin")
        index = {"weight_map": {name: f"pytorch_model-{int(name in names[20:])}.bin" for name in names}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    convert(folder, tmp_path / "ours")
    check(tmp_path / "ours", hf)


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict._orig_mod."])
def test_hugging_face_s_state_dict(tmp_path, hf, prefix):
    """The names of `state_dict()`, which are not those that transformers 5 writes, in what wraps a model."""
    folder = tmp_path / "hf"
    HF.save_pretrained(folder)
    saved(folder, renamed(hf.state_dict(), prefix) | {"loss.weight": torch.ones(3)}, "pytorch_model.bin")
    convert(folder, tmp_path / "ours", *(() if prefix else ("--waive", "loss.weight")))
    check(tmp_path / "ours", hf)


def test_hugging_face_s_models_with_heads_in_one_file(tmp_path, capsys):
    """The head stands beside `vit.`, and belongs to the model."""
    torch.manual_seed(0)
    models = {name: ViTForImageClassification(HF).eval() for name in ("student", "teacher")}
    folder = tmp_path / "hf"
    models["student"].config.save_pretrained(folder)
    saved(folder, {name: model.state_dict() for name, model in models.items()}, "pytorch_model.bin")
    assert "several models: student. (56 tensors), teacher. (56" in refused(capsys, folder, tmp_path / "ours")
    convert(folder, tmp_path / "ours", "--prefix", "teacher")
    check(tmp_path / "ours", models["teacher"].vit)
    head = pretrained.load(tmp_path / "ours").encoder["head.weight"]
    np.testing.assert_array_equal(head, models["teacher"].classifier.weight.detach().numpy())


def test_shards_in_timm_s_names(tmp_path):
    names = list(weights())
    for number, part in enumerate((names[:20], names[20:])):
        save_file({name: weights()[name] for name in part}, tmp_path / f"model-{number}.safetensors")
    index = {"weight_map": {name: f"model-{int(name in names[20:])}.safetensors" for name in names}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    convert(tmp_path / INDEX, tmp_path / "ours", *HEADS)
    same(tmp_path / "ours", weights())


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"x": "../model.safetensors"}, "no .safetensors file of its folder"),
        ({"x": "sub/model.safetensors"}, "no .safetensors file of its folder"),
        ({"x": "/model.safetensors"}, "no .safetensors file of its folder"),
        ({"x": "a\\model.safetensors"}, "no .safetensors file of its folder"),
        ({"x": "\0.safetensors"}, "no .safetensors file of its folder"),
        ({"x": "x" * 5000 + ".safetensors"}, "no .safetensors file of its folder"),
        ({"x": ""}, "no .safetensors file of its folder"),
        ({"x": ".."}, "no .safetensors file of its folder"),
        ({"x": INDEX}, "no .safetensors file of its folder"),
        ({"x": "model.pth"}, "no .safetensors file of its folder"),
        ({"x": "other.safetensors"}, "which is missing"),
        ({"x": "sub.safetensors"}, "which is missing"),
        ({"x": "model.safetensors"}, "lacks x, which"),
        ({"x": "text.safetensors"}, "is not a safetensors file"),
        ({str(i): f"{i}.safetensors" for i in range(1001)}, "names 1001 shards"),
        ({"x": 3}, "weight_map.x"),
        ([], "weight_map"),
        ({}, "holds no patch_embed.proj.weight"),
    ],
)
def test_hostile_indexes_get_one_line(tmp_path, capsys, places, message):
    folder = tmp_path / "folder"
    (folder / "sub.safetensors").mkdir(parents=True)
    for place in (tmp_path, folder):
        save_file(weights(), place / "model.safetensors")
    (folder / "text.safetensors").write_text("text")
    saved(folder, weights())
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    assert message in refused(capsys, folder / INDEX, tmp_path / "ours", *HEADS)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("text", ["", "{", "[" * 3000, "\xff", "null"])
def test_indexes_that_are_no_json_get_one_line(tmp_path, capsys, text):
    (tmp_path / INDEX).write_text(text, encoding="latin-1")
    assert f"{INDEX} cannot be read" in refused(capsys, tmp_path / INDEX, tmp_path / "ours", *HEADS)


def test_settings_are_bounded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGEST_JSON", 100)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": "y" * 200}}))
    assert "so no file of settings" in refused(capsys, tmp_path / INDEX, tmp_path / "ours", *HEADS)
