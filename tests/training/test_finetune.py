"""Fine-tuning runs: learning, resuming, the table over keep ratios, and every wrong request in one line."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pages
import patience
import pytest
import runs
import torch
import yaml
from PIL import Image
from refusals import refused
from rich.console import Console

from pcae.cli import main as cli
from pcae_core import ConfigError, DataError, FinetuneConfig, ModelConfig, checkpoint, parameters
from pcae_core.storage.run import Run
from pcae_core.training.finetune import finetune, with_model

LEARNING = {
    "base_learning_rate": 0.3,
    "batch_size": 8,
    "drop_path": 0.0,
    "warmup_share": 0.1,
    "layer_decay": 0.9,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "random_erasing": 0.0,
    "rand_augment": None,
    "checkpoint_every": 10,
    "log_every": 1,
    "steps": 64,
    "device": "cpu",
    "tensorboard": False,
    "loader": {"workers": 0, "crop_scale": [0.9, 1.0]},
}
EVERYTHING = {
    "steps": 20,
    "keep": 0.7,
    "mixup": 0.8,
    "cutmix": 1.0,
    "random_erasing": 0.5,
    "drop_path": 0.2,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "label_smoothing": 0.1,
    "ema_momentum": 0.9,
    "epochs": 2,
}


TITLES = ("before training", "step 1")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return runs.write_data(tmp_path_factory.mktemp("finetune") / "shapes")


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "pretrained"
    arguments = ["pretrain", "--data", data, "--out", out, *runs.SETTINGS, "--steps", 10, "--loader.workers", 0]
    assert cli.run(list(map(str, arguments))) == 0
    return out


def tune(data: Path, pretrained: Path, out: Path, **settings) -> Path:
    values = LEARNING | {"data": str(data), "pretrained": str(pretrained), "out": str(out)} | settings
    return finetune(FinetuneConfig.from_dict(values), Console(quiet=True))


def test_scoring_that_fails_loses_no_step(data, pretrained, tmp_path, monkeypatch):
    def damaged(*arguments):
        raise DataError("cannot read the image 7")

    monkeypatch.setattr("pcae_core.training.finetune.score", damaged)
    with pytest.raises(DataError, match="image 7"):
        tune(data, pretrained, tmp_path / "run", steps=20, checkpoint_every=100)
    assert checkpoint.read_manifest(checkpoint.find(tmp_path / "run")).step == 8  # an epoch of 64 images
    monkeypatch.undo()
    tune(data, pretrained, tmp_path / "run", steps=20, checkpoint_every=100)
    assert checkpoint.read_manifest(checkpoint.find(tmp_path / "run")).step == 20


def test_a_run_learns_and_keeps_its_best_checkpoint(pretrained, tmp_path):
    runs.write_shapes(tmp_path / "train.npz", 512, seed=0)
    runs.write_shapes(tmp_path / "test.npz", 128, seed=1)
    settings = {"batch_size": 32, "steps": 320, "base_learning_rate": 0.2, "layer_decay": 1.0, "keep": 0.8}
    run = tune(tmp_path, pretrained, tmp_path / "run", **settings)
    rows = runs.metrics(run)
    scores = {row["step"]: row["top1"] for row in rows if "top1" in row}
    assert list(scores) == list(range(16, 321, 16))  # after each epoch
    assert max(scores.values()) >= 70
    best = Run.open(run).best
    manifest = checkpoint.read_manifest(best)
    assert manifest.kind == "finetune"
    assert scores[manifest.step] == manifest.metrics["top1"] == max(scores.values())
    assert {"head.weight", "fc_norm.bias"} <= checkpoint.load(best).state.student.keys()


def test_a_stopped_run_goes_on_bit_for_bit(data, pretrained, tmp_path):
    """With everything on that draws random numbers."""
    whole = tune(data, pretrained, tmp_path / "whole", **EVERYTHING)
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for path in checkpoint.list_checkpoints(run / "checkpoints"):
        if checkpoint.read_manifest(path).step > 10:
            shutil.rmtree(path)
    assert cli.run(["finetune", "--resume", str(run)]) == 0
    ends = [path / "checkpoints" / "step_00000020" for path in (run, whole)]
    runs.assert_same_tensors(*ends)
    losses = [[row["loss"] for row in runs.metrics(path) if "loss" in row] for path in (run, whole)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 20


def test_accumulation_and_the_reference_give_the_same_run(data, pretrained, tmp_path):
    settings = EVERYTHING | {"steps": 6}
    losses = []
    for name, more in (("one", {}), ("parts", {"accumulation": 2}), ("numpy", {"backend": "numpy"})):
        run = tune(data, pretrained, tmp_path / name, **settings, **more)
        losses.append([row["loss"] for row in runs.metrics(run) if "loss" in row])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)


def test_two_processes_equal_one(data, pretrained, tmp_path):
    """Pairs are mixed within a process's share, and are the same pairs."""
    settings = EVERYTHING | {"steps": 4, "log_every": 1}
    values = LEARNING | {"data": str(data)} | settings
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m"]
    command = ["pcae.cli", "finetune", pretrained, "--config", tmp_path / "c.yaml", "--out", tmp_path / "two"]
    done = subprocess.run(
        [*launcher, *map(str, command)],
        capture_output=True,
        text=True,
        env=runs.environment(),
        timeout=patience.SECONDS,
    )
    assert done.returncode == 0, done.stderr
    one = tune(data, pretrained, tmp_path / "one", **settings)
    losses = [[row["loss"] for row in runs.metrics(path) if "loss" in row] for path in (one, tmp_path / "two")]
    assert len(losses[1]) == 4
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_where_a_run_starts(data, pretrained, tmp_path):
    student = checkpoint.load(pretrained).state.student
    started = {}
    for name in ("pretrained", "scratch"):
        settings = {"steps": 1, "base_learning_rate": 0.0, "from_scratch": name == "scratch", "pooling": "cls"}
        state = checkpoint.load(tune(data, pretrained, tmp_path / name, **settings)).state
        assert state.teacher == {}
        started[name] = state.student
    np.testing.assert_array_equal(started["pretrained"]["blocks.1.mlp.fc1.weight"], student["blocks.1.mlp.fc1.weight"])
    assert not np.array_equal(started["scratch"]["cls_token"], student["cls_token"])
    assert "fc_norm.weight" not in started["scratch"]
    assert np.abs(started["scratch"]["head.weight"]).max() < 1e-3


def test_moving_average_follows_and_is_what_is_scored(data, pretrained, tmp_path):
    state = checkpoint.load(tune(data, pretrained, tmp_path / "run", steps=8, ema_momentum=0.5)).state
    assert state.teacher.keys() == state.student.keys()
    distance = np.abs(state.teacher["head.weight"] - state.student["head.weight"]).max()
    assert 0 < distance < np.abs(state.student["head.weight"]).max()
    np.testing.assert_array_equal(state.teacher["pos_embed"], state.student["pos_embed"])


def test_a_fine_tuned_run_is_exported_and_converted_with_its_classes(data, pretrained, tmp_path):
    """Of the best checkpoint and the weights that were scored, also by `Encoder.from_pretrained`."""
    session = pytest.importorskip("pcae_onnx.session")
    import pcae_torch

    names = ("square", "disc")
    for part in ("train", "test"):
        with np.load(data / f"{part}.npz") as file:
            np.savez(tmp_path / f"{part}.npz", **file, class_names=np.array(names))
    run = tune(tmp_path, pretrained, tmp_path / "run", steps=16, ema_momentum=0.9, keep=0.8)
    shutil.rmtree(next(p for p in checkpoint.list_checkpoints(run / "checkpoints") if p != Run.open(run).best))
    assert cli.run(["export", str(run), str(tmp_path / "model"), "--keep", "0.8"]) == 0
    model = session.InferenceSession(tmp_path / "model" / "model.onnx")
    assert model.class_names == names
    images = np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32)
    logits = model.run(images).logits
    encoder = pcae_torch.Encoder.from_pretrained(run)
    encoder.reduction.keep = 0.8
    np.testing.assert_allclose(encoder(torch.from_numpy(images)).logits.detach().numpy(), logits, rtol=0, atol=1e-5)
    averaged = checkpoint.load(Run.open(run).best).state.teacher
    np.testing.assert_array_equal(encoder.fc_norm.weight.detach().numpy(), averaged["fc_norm.weight"])
    assert cli.run(["convert", str(run), str(tmp_path / "encoder")]) == 0
    again = tune(tmp_path, tmp_path / "encoder", tmp_path / "again", steps=1, base_learning_rate=0.0, pooling="cls")
    state = checkpoint.load(again).state
    np.testing.assert_array_equal(state.student["norm.weight"], averaged["norm.weight"])
    assert np.abs(state.student["head.weight"]).max() < 1e-3


def test_report_and_pictures(data, pretrained, tmp_path):
    run = tune(data, pretrained, tmp_path / "run", steps=16, keep=0.8, pooling="cls")
    assert cli.run(["report", str(run), "--data", str(data), "--images", "1"]) == 0
    text = pages.assert_self_contained((run / "report.html").read_text(encoding="utf-8")).text
    for words in ("top-1", "by MACs", "at keep 0.8", "class_names"):
        assert words in text
    assert "MAE step" not in text
    assert cli.run(["visualize", str(run), str(data), "--limit", "1", "--out", str(tmp_path / "pictures")]) == 0
    best = checkpoint.read_manifest(Run.open(run).best).step
    assert f"step {best}, student, keep 0.8" in (tmp_path / "pictures" / "index.html").read_text(encoding="utf-8")


def test_report_draws_the_encoder_that_training_started_from(data, pretrained, tmp_path, capsys):
    pictures = {}
    idle = {"seed": 5, "steps": 1, "base_learning_rate": 1e-9, "warmup_share": 0.0}
    shutil.copytree(pretrained, tmp_path / "source")
    for name, scratch in (("tuned", False), ("scratch", True)):
        run = tune(data, tmp_path / "source", tmp_path / name, from_scratch=scratch, **idle)
        pictures[name] = report_pictures(run)
        kept = [pages.bright_tokens(pictures[name][title], pictures[name]["input"], 4) for title in TITLES]
        assert kept[0] == kept[1]
    assert (pictures["tuned"]["before training"] != pictures["scratch"]["before training"]).any()
    shutil.rmtree(tmp_path / "source")
    capsys.readouterr()
    assert list(report_pictures(tmp_path / "tuned")) == ["input", "step 1"]
    assert "the encoder before training is not drawn: " in capsys.readouterr().err
    assert list(report_pictures(tmp_path / "scratch")) == ["input", *TITLES]


def report_pictures(run: Path) -> dict[str, np.ndarray]:
    assert cli.run(["report", str(run), "--images", "1", "--keep", "0.5"]) == 0
    return pages.pictures(pages.assert_self_contained((run / "report.html").read_text(encoding="utf-8")))


def test_evaluate_prints_the_table(data, pretrained, tmp_path, capsys):
    run = tune(data, pretrained, tmp_path / "run")
    assert cli.run(["evaluate", str(run), "--data", str(data), "--keep", "1.0", "0.6"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if re.match(r"│\s+[01]\.\d\d", line)]
    assert [row.split()[1] for row in rows] == ["1.00", "0.60"]
    best = checkpoint.read_manifest(Run.open(run).best).metrics
    assert f"{best['top1']:.2f}" in rows[0]
    assert "GMACs" in out


def test_wrong_requests(capsys, data, pretrained, tmp_path):
    tuned = tune(data, pretrained, tmp_path / "tuned", steps=1)
    given = ("finetune", pretrained, "--data", data, "--out", tmp_path / "x")
    assert "name the pre-trained run" in refused(capsys, "finetune", "--data", data)
    assert "no data set" in refused(capsys, *given[:2])
    assert "nowhere does not exist" in refused(capsys, "finetune", "nowhere", "--data", data)
    assert "is a fine-tuned run already" in refused(capsys, "finetune", tuned, "--data", data)
    assert "keep: Input should be greater than or equal to 0.5" in refused(capsys, *given, "--keep", "0.4")
    assert "keep: Input should be greater than or equal to 0.5" in refused(capsys, *given, "--drop", "0.6")
    assert "--drop must be a number, not 'x'" in refused(capsys, *given, "--drop", "x")
    assert "give one of them" in refused(capsys, *given, "--drop", "0.2", "--keep", "0.8")
    assert "is not like rand-m9-mstd0.5-inc1" in refused(capsys, *given, "--rand-augment", "augmix-m3")
    assert "must be even, or mixup and cutmix 0" in refused(capsys, *given, "--batch-size", "7")
    assert "unknown fine-tuning preset" in refused(capsys, *given, "--preset", "vit_tiny_patch16_224")
    assert "not of pcae pretrain" in refused(capsys, "pretrain", "--resume", tuned)
    assert "not of pcae finetune" in refused(capsys, "finetune", "--resume", pretrained)
    assert "is for fine-tuned runs" in refused(capsys, "evaluate", pretrained, "--data", data, "--keep", "0.5")
    assert "--keep must be in (0, 1]" in refused(capsys, "evaluate", tuned, "--data", data, "--keep", "0")
    assert "has no teacher" in refused(capsys, "convert", tuned, tmp_path / "t.npz", "--encoder", "teacher")
    assert not (tmp_path / "x").exists()


def test_the_paper_s_drop_ratio_is_another_way_to_say_keep(capsys, data, pretrained, tmp_path):
    given = ("--drop", 0.25, "--steps", 1, "--batch-size", 8, "--device", "cpu", "--no-tensorboard")
    command = ["finetune", pretrained, "--data", data, "--out", tmp_path / "run", *given]
    assert cli.run([str(word) for word in command]) == 0
    assert "--drop 0.25 is taken as --keep 0.75" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["keep"] == 0.75


def test_settings_of_the_model_and_data_without_labels_are_refused(capsys, data, pretrained, tmp_path):
    (tmp_path / "c.yaml").write_text("model: {depth: 3}\n")
    line = refused(capsys, "finetune", pretrained, "--data", data, "--config", tmp_path / "c.yaml")
    assert "leave out model" in line
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((4, 16, 16), np.uint8))
    given = ("finetune", pretrained, "--data", tmp_path, "--out", tmp_path / "y")
    assert "has no labels" in refused(capsys, *given)
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((4, 16, 16), np.uint8), labels=np.ones(4, np.int64))
    assert "images of one class only" in refused(capsys, *given)
    for path in tmp_path.glob("*.npz"):
        path.unlink()
    for split, name in itertools.product(("train", "test"), (b"b", b"caf\xe9")):
        folder = tmp_path / split / os.fsdecode(name)
        folder.mkdir(parents=True)
        Image.new("L", (16, 16)).save(folder / "x.png")
    assert "is not UTF-8; rename it" in refused(capsys, *given)


def test_a_file_may_name_some_of_the_loader_s_settings(tmp_path):
    (tmp_path / "c.yaml").write_text("loader: {workers: 8}\n")
    for config in (FinetuneConfig.from_yaml(tmp_path / "c.yaml"), FinetuneConfig().overlaid(tmp_path / "c.yaml")):
        assert config.loader == FinetuneConfig().loader.model_copy(update={"workers": 8})


def test_pixels_are_the_encoder_s_where_they_are_not_set(data, tmp_path):
    out = tmp_path / "pretrained"
    own = ["--loader.workers", 0, "--loader.mean", 0.25, "--loader.std", 0.125]
    arguments = ["pretrain", "--data", data, "--out", out, *runs.SETTINGS, "--steps", 1, *own]
    assert cli.run(list(map(str, arguments))) == 0
    for given, expected in (({}, (0.25, 0.125)), ({"mean": [0.5]}, (0.5, 0.125)), ({"std": [0.5]}, (0.25, 0.5))):
        found = with_model(FinetuneConfig.from_dict({"pretrained": str(out), "loader": given})).loader
        assert (found.mean, found.std) == tuple((value,) for value in expected)


def test_layers_nearer_to_the_input_learn_more_slowly():
    names = ("cls_token", "patch_embed.proj.bias", "blocks.0.norm1.weight", "blocks.11.norm1.bias", "fc_norm.bias")
    scales = [parameters.layer_scale(name, 12, 0.5) for name in (*names, "head.weight")]
    assert scales == [0.5**13, 0.5**13, 0.5**12, 0.5, 1.0, 1.0]


def test_presets_are_maes_recipes():
    large = FinetuneConfig.preset("vit_large_patch16_224")
    assert (large.model, large.drop_path, large.layer_decay) == (ModelConfig.preset("vit_large_patch16_224"), 0.2, 0.75)
    assert large.warmup_share * large.epochs == 5
    with pytest.raises(ConfigError, match="known: vit_base_patch16_224"):
        FinetuneConfig.preset("vit_tiny_patch16_224")
