"""The command line: tables, help, and every wrong request in one line with exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from refusals import refused
from rich.console import Console
from safetensors.numpy import load_file

from pcae.cli import main as cli
from pcae.cli.evaluate import show
from pcae_core import registry
from pcae_core.convert.coverage import Coverage
from pcae_core.evaluation import tables
from pcae_core.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return runs.write_data(tmp_path_factory.mktemp("cli") / "shapes")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    done = runs.pcae("pretrain", "--data", data, "--out", out, *runs.SETTINGS, "--steps", 30)
    assert done.returncode == 0, done.stderr
    return out


def test_unknown_command_and_backend(capsys, data, tmp_path):
    assert "known: data, pretrain" in refused(capsys, "train")
    line = refused(capsys, "pretrain", "--data", data, "--out", tmp_path / "x", *runs.SETTINGS, "--backend", "jacks")
    assert "unknown backend 'jacks'; known: " in line
    assert not (tmp_path / "x").exists()


def test_missing_extra(data, tmp_path):
    code = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "from pcae.cli.main import main; main()"
    )
    arguments = ["pretrain", "--data", data, "--out", tmp_path / "x", *runs.SETTINGS]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'install it with: pip install "pcae[torch]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_bad_data(capsys, tmp_path):
    arguments = ("--out", tmp_path / "x", *runs.SETTINGS)
    assert "name a folder of images" in refused(capsys, "pretrain", *arguments)
    assert str(tmp_path / "no") in refused(capsys, "pretrain", "--data", tmp_path / "no", *arguments)
    (tmp_path / "empty").mkdir()
    assert "no images" in refused(capsys, "pretrain", "--data", tmp_path / "empty", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.image-size", "30"], "image_size 30 is not divisible by patch_size 16"),
        (["--model.reduction.keep", "0"], "reduction.keep: Input should be greater than 0"),
        (["--model.reduction.keep", "1.1"], "reduction.keep: Input should be less than or equal to 1"),
        (["--model.reduction.num-stages", "13"], "num_stages 13 exceeds the 12 blocks"),
        (["--preset", "vit_giant"], "unknown model preset 'vit_giant'; known: "),
        (["--config", "nowhere.yaml"], "cannot read the configuration nowhere.yaml"),
        (["--resume", "nowhere"], "nowhere does not exist"),
    ],
)
def test_bad_configuration(capsys, arguments, message):
    assert message in refused(capsys, "pretrain", *arguments)


def test_yaml_with_unknown_key(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("modle: {depth: 3}\n")
    assert "modle: Extra inputs are not permitted" in refused(capsys, "pretrain", "--config", tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("a: [1")
    assert "not valid YAML" in refused(capsys, "pretrain", "--config", tmp_path / "d.yaml")


def test_unknown_flag_is_exit_2():
    assert runs.pcae("profile", "--colour", "red").returncode == 2


def test_checkpoint_of_another_architecture(capsys, run, data):
    settings = [*runs.SETTINGS, "--model.depth", 4]
    line = refused(capsys, "pretrain", "--data", data, "--out", run, *settings)
    assert "another architecture: depth is 3, not 4" in line


def test_truncated_and_damaged_checkpoint(capsys, run, data, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    file = copy / "checkpoints" / "step_00000030" / "student.safetensors"
    whole = file.read_bytes()
    for content, message in ((whole[:-100], "truncated"), (whole[:-1] + b"\xff", "SHA-256")):
        file.write_bytes(content)
        assert message in refused(capsys, "evaluate", copy, "--data", data)
        assert message in refused(capsys, "pretrain", "--resume", copy)
    file.unlink()
    assert "lacks student.safetensors" in refused(capsys, "evaluate", copy, "--data", data)
    (file.parent / "manifest.json").write_text("{")
    assert "manifest" in refused(capsys, "evaluate", copy, "--data", data)


def test_evaluate_without_labels(capsys, run, tmp_path):
    import numpy as np

    np.savez(tmp_path / "train.npz", images=np.zeros((4, 16, 16), np.uint8))
    np.savez(tmp_path / "test.npz", images=np.zeros((4, 16, 16), np.uint8))
    assert "no labels" in refused(capsys, "evaluate", run, "--data", tmp_path)
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((4, 16, 16), np.uint8), labels=np.ones(4, np.int64))
    assert "has images of one class only" in refused(capsys, "evaluate", run, "--data", tmp_path)


def test_labels_may_be_any_numbers(run, data, tmp_path):
    for name in ("train", "test"):
        with np.load(data / f"{name}.npz") as known:
            np.savez(tmp_path / f"{name}.npz", images=known["images"], labels=known["labels"] * 10**12)
    backend = registry.create("torch")
    assert evaluate(backend, run, tmp_path) == evaluate(backend, run, data)


def test_paths_that_cannot_be_written_down_are_refused(capsys, tmp_path):
    out = os.fsdecode(bytes(tmp_path) + b"/r\xe9n")
    line = refused(capsys, "pretrain", "--data", tmp_path, "--out", out, *runs.SETTINGS)
    assert "the path of out" in line
    assert "is not UTF-8" in line


def test_options_that_would_do_nothing_are_refused(capsys, run, data, tmp_path):
    assert cli.run(["convert", str(run), str(tmp_path / "alone")]) == 0
    capsys.readouterr()
    alone = tmp_path / "alone"
    line = refused(capsys, "evaluate", alone, "--data", data, "--encoder", "teacher")
    assert "--encoder is for pre-training runs" in line
    for command, option in (("convert", "--encoder"), ("export", "--encoder")):
        assert "holds one encoder" in refused(capsys, command, alone, tmp_path / "x", option, "teacher")
    assert cli.run(["export", str(run), str(tmp_path / "onnx")]) == 0
    capsys.readouterr()
    drawn = ("visualize", tmp_path / "onnx", data, "--out", tmp_path / "pictures")
    for option in (("--seed", 5), ("--device", "cuda"), ("--backend", "torch"), ("--encoder", "student")):
        assert "are for runs and checkpoints" in refused(capsys, *drawn, *option)


def test_requests_for_nothing(capsys, run, data):
    assert "name the encoders" in refused(capsys, "evaluate", run, "--data", data, "--encoder")
    assert "name at least one picture" in refused(capsys, "predict", run)


def test_evaluate_prints_every_encoder(run, data):
    done = runs.pcae("evaluate", run, "--data", data)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("student", "teacher", "random"))
    assert runs.pcae("evaluate", run, "--data", data, "--encoder", "teacher", "--pooling", "cls").returncode == 0


def test_profile_prints_the_paper_s_counts(capsys):
    assert cli.run(["profile", "--preset", "vit_base_patch16_224"]) == 0
    out = capsys.readouterr().out
    assert "17.56" in out
    assert "147 73 73 73 73 36 36 36 36 18 18 18" in out


def test_backends_lists_ours(capsys):
    assert cli.run(["backends"]) == 0
    out = capsys.readouterr().out
    assert "numpy" in out
    assert "torch" in out


def test_brackets_in_what_is_printed_are_no_styles(capsys, monkeypatch):
    info = registry.BackendInfo(False, None, None, "", "[/broken]")
    monkeypatch.setattr(registry, "available", lambda: {"mine": info})
    assert cli.run(["backends"]) == 0
    show(tables.evaluation_table({}), "runs/[a] [/b]")
    show(tables.keep_ratio_table([]), "runs/[c][/d]")
    coverage = Coverage("model.pth")
    coverage.add_surplus("[e].[/f]")
    Console().print(coverage.table())
    out = capsys.readouterr().out
    assert [text for text in ("[/broken]", "runs/[a] [/b]", "runs/[c][/d]", "[e].[/f]") if text not in out] == []


def test_help_of_every_command():
    assert "pretrain" in runs.pcae("--help").stdout
    for command in cli.COMMANDS:
        done = runs.pcae(command, "--help")
        assert done.returncode == 0
        assert f"\n  pcae {command}" in done.stdout.partition("Example")[2]


def test_resume_may_change_what_does_not_matter(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    done = runs.pcae("pretrain", "--resume", copy, "--log-every", 7, "--loader.workers", 0)
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "checkpoints/step_00000030/manifest.json").read_text())["step"] == 30


def test_weights_are_written_for_a_framework(run, tmp_path):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    stored = load_file(newest / "student.safetensors")
    for suffix in (".pth", ".npz"):
        done = runs.pcae("convert", run, tmp_path / f"weights{suffix}")
        assert done.returncode == 0, done.stderr
        assert f"{len(stored)} tensors of the student, step 30" in done.stdout
    written = [torch.load(tmp_path / "weights.pth", weights_only=True), np.load(tmp_path / "weights.npz")]
    for weights in written:
        assert set(weights.keys()) == set(stored)
        for name, value in stored.items():
            np.testing.assert_array_equal(np.asarray(weights[name]), value, err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.npz", "weights.pth"]


def test_what_cannot_be_converted(capsys, run, tmp_path):
    (tmp_path / "there.pth").touch()
    assert "must end in .ckpt or .npz or .pth" in refused(capsys, "convert", run, tmp_path / "weights.bin")
    assert "there.pth exists already" in refused(capsys, "convert", run, tmp_path / "there.pth")
    assert "cannot write" in refused(capsys, "convert", run, tmp_path / "no" / "weights.npz")
    assert "does not exist" in refused(capsys, "convert", tmp_path / "nothing", tmp_path / "weights.npz")
