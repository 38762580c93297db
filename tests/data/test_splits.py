"""Which split is scored, which images have labels, and what is said where they have none; alike for all data sets."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import labelled_sets
import numpy as np
import pytest
import runs
from data_files import fix_walk, save_image
from labelled_sets import KINDS

from pcae.cli import main as cli
from pcae_core import DataError, FinetuneConfig, PretrainConfig, checkpoint
from pcae_core.data import open_scored, open_source
from pcae_core.data.sources.image_folder import ImageFolder
from pcae_core.evaluation.accuracy import Accuracy, one_class_warning
from pcae_core.training.finetune import finetune
from pcae_core.training.pretrain import pretrain

NAMED = ("cat", "dog")
HIDDEN = (None, None, None)
CAUSES = {
    "folder": "most of its images lie in no sub-folder",
    "npz": "all its labels are -1",
    "hf": "in its column label all labels are -1 or empty",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("validation", ["val", "validation", "valid"])
def test_labelled_validation_is_scored_beside_an_unlabelled_test(kind, validation, tmp_path):
    data = labelled_sets.write(kind, tmp_path, {"train": NAMED, "test": HIDDEN, validation: (*NAMED, "dog")})
    found = open_scored(data, 1)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.notes == (f"the split {validation} of {data} is scored; test has no labels: {CAUSES[kind]}",)
    assert len(open_source(data, 1, "test")) == 3  # for pictures, which need no labels
    assert open_scored(data, 1, "val").labels.tolist() == [0, 1, 1]
    with pytest.raises(DataError, match=rf"/test(\.npz)? has no labels: {CAUSES[kind]}"):
        open_scored(data, 1, "test")


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_is_chosen_by_its_name(kind, tmp_path):
    data = labelled_sets.write(kind, tmp_path, {"train": NAMED * 2, "test": NAMED, "val": ("dog", "cat", "dog")})
    assert [len(open_scored(data, 1, name).labels) for name in (None, "test", "val", "train")] == [2, 2, 3, 4]
    with pytest.raises(DataError, match=r"has no dev split.*; it has test, train, val$"):
        open_scored(data, 1, "dev")


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_split_has_is_said(kind, tmp_path):
    data = labelled_sets.write(kind, tmp_path, {"train": NAMED, "test": HIDDEN, "val": HIDDEN})
    cause = CAUSES[kind]
    with pytest.raises(DataError, match=rf"has labels; test has no labels: {cause}; val has no labels: {cause}$"):
        open_scored(data, 1)
    with pytest.raises(DataError, match="has no test split"):
        open_scored(labelled_sets.write(kind, tmp_path / "alone", {"train": NAMED}), 1)


def test_archives_without_labels(tmp_path):
    for name in ("train", "test", "valid"):
        labelled_sets.write("npz", tmp_path, {name: NAMED})
    np.savez(tmp_path / "test.npz", images=np.zeros((2, 16, 16), np.uint8))
    found = open_scored(tmp_path, 1)
    assert found.source.path.name == "valid.npz"
    assert found.notes[0].endswith("test has no labels: it holds no array named labels")


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_called_valid_is_not_trained_on(kind, tmp_path):
    data = labelled_sets.write(kind, tmp_path, {"train": NAMED * 2, "valid": NAMED})
    assert len(open_source(data, 1)) == 4
    assert len(open_source(data, 1, "test")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_single_images_without_a_class_are_named_and_left_out(kind, tmp_path):
    data = labelled_sets.write(kind, tmp_path, {"train": NAMED, "test": ("dog", None, "cat")})
    whole, found = open_source(data, 1, "test"), open_scored(data, 1)
    assert len(whole) == 3
    assert sorted(found.labels) == [0, 1]
    (left_out,) = np.flatnonzero(whole.labels == -1)
    (note,) = found.notes
    assert re.search(r"1 of 3 images in .*/test(\.npz)? have no class and are left out: ", note)
    assert note.endswith(whole.name(left_out))
    for index, label in enumerate(found.labels):
        expected = labelled_sets.picture(("cat", "dog")[label], {"cat": 2, "dog": 0}[("cat", "dog")[label]])
        assert np.array_equal(np.asarray(found.source.load(index)), expected)


def test_pretraining_uses_a_stray_picture_too(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/3.png", "cover.png"):
        save_image(tmp_path / name)
    source = open_source(tmp_path, 1)
    assert [source.name(i) for i in range(4)] == ["a/1.png", "b/2.png", "b/3.png", "cover.png"]
    assert source.labels.tolist() == [0, 1, 1, -1]
    assert source.class_names == ["a", "b"]


# Links


def test_links_of_two_classes_to_one_folder_are_two_classes(tmp_path):
    save_image(tmp_path / "elsewhere" / "x.png")
    save_image(tmp_path / "data" / "real" / "y.png")
    for link in ("one", "two"):
        (tmp_path / "data" / link).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "two-again").mkdir()
    for link in ("a", "b"):
        (tmp_path / "data" / "two-again" / link).symlink_to(tmp_path / "elsewhere")
    source = ImageFolder(tmp_path / "data", 1)
    names = [source.name(i) for i in range(len(source))]
    assert names == ["one/x.png", "real/y.png", "two-again/a/x.png", "two/x.png"]
    assert source.class_names == ["one", "real", "two", "two-again"]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_link_in_a_class_does_not_take_another_class_away(tmp_path, monkeypatch, reverse):
    save_image(tmp_path / "a" / "x.png")
    save_image(tmp_path / "b" / "y.png")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path)
    fix_walk(monkeypatch, reverse)
    source = ImageFolder(tmp_path, 1)
    assert [source.name(i) for i in range(len(source))] == ["a/x.png", "b/y.png"]


def test_links_to_hidden_folders_and_loops_outside(tmp_path):
    save_image(tmp_path / "data" / ".store" / "x.png")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "data" / ".store")
    save_image(tmp_path / "out" / "y.png")
    (tmp_path / "out" / "self").symlink_to(tmp_path / "out")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "out")
    source = ImageFolder(tmp_path / "data", 1)
    assert [source.name(i) for i in range(len(source))] == ["cat/x.png", "dog/y.png"]


# Through the commands


RECIPE = {"device": "cpu", "tensorboard": False, "loader": {"workers": 0}, "log_every": 100, "base_learning_rate": 0.0}


def pretrained_on(data: Path, out: Path, **settings) -> tuple[Path, list[str]]:
    """A run, and the warnings that it printed."""
    model = {"image_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 3, "num_heads": 2}
    model |= {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2, "mask_ratio": 0.6}
    values = RECIPE | {"data": str(data), "out": str(out), "model": model} | settings
    return warned(pretrain, PretrainConfig.from_dict(values))


def tuned_on(data: Path, pretrained: Path, out: Path, **settings) -> tuple[Path, list[str]]:
    plain = {"mixup": 0.0, "cutmix": 0.0, "rand_augment": None, "random_erasing": 0.0}
    values = RECIPE | plain | {"data": str(data), "pretrained": str(pretrained), "out": str(out)} | settings
    return warned(finetune, FinetuneConfig.from_dict(values))


def warned(train, config) -> tuple[Path, list[str]]:
    run, text = runs.told(train, config)
    return run, [line for line in text.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize("kind", KINDS)
def test_commands_score_the_split_that_they_are_told(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pcae_core.evaluation.keep_table.SPEED_ROUNDS", 2)
    splits = {"train": NAMED * 8, "test": HIDDEN, "val": NAMED * 2}
    data = labelled_sets.write(kind, tmp_path / "data", splits)
    start, said = pretrained_on(data, tmp_path / "start", steps=1, batch_size=4)
    assert said == []
    run, said = tuned_on(data, start, tmp_path / "run", steps=1, batch_size=4)
    assert [line for line in said if "is scored" in line]
    assert checkpoint.read_manifest(checkpoint.find(run)).metrics["top1"] == 50.0
    for target in (start, run):
        capsys.readouterr()
        arguments = ["evaluate", str(target), "--data", str(data), "--device", "cpu", "--split"]
        assert cli.run([*arguments, "val"]) == 0
        assert cli.run([*arguments, "test"]) == 2
        assert f"has no labels: {CAUSES[kind]}" in capsys.readouterr().err


def test_few_optimizer_steps_are_warned_of(tmp_path):
    data = labelled_sets.write("npz", tmp_path / "data", {"train": NAMED * 3, "test": NAMED})
    start, said = pretrained_on(data, tmp_path / "start", epochs=100, batch_size=1024)
    many = "a batch of 1024 is no smaller than the data set of 6 images"
    assert [line for line in said if many in line and "the run has 1 in all;" in line and "--batch-size" in line]
    _, said = tuned_on(data, start, tmp_path / "run", epochs=100, batch_size=1024)
    assert [line for line in said if many in line]
    for size, expected in ((6, 1), (4, 0)):
        run, said = pretrained_on(data, tmp_path / f"run{size}", steps=2, batch_size=size, checkpoint_every=1)
        assert len(said) == expected
        shutil.rmtree(run / "checkpoints" / "step_00000002")
        assert pretrained_on(data, run, steps=2, batch_size=size, checkpoint_every=1)[1] == []  # what it cannot change


def test_a_model_that_always_gives_one_class_is_warned_of(tmp_path):
    """At a learning rate of zero, a head that starts near zero gives one class for everything; one cannot be read."""
    data = labelled_sets.write("folder", tmp_path / "data", {"train": NAMED * 3, "test": ("dog", "cat", "dog")})
    (data / "test" / "cat" / "unreadable.png").write_bytes(b"no picture")
    start, _ = pretrained_on(data, tmp_path / "start", steps=1, batch_size=2)
    texts = []
    for seed in range(8):
        settings = {"steps": 1, "batch_size": 2, "seed": seed}
        run, said = tuned_on(data, start, tmp_path / f"run{seed}", **settings)
        top1 = checkpoint.read_manifest(checkpoint.find(run)).metrics["top1"]
        assert len(said) == (abs(top1 - 200 / 3) < 1e-9), said
        texts += said
    assert "is the share of the most frequent class (dog): the model may give one answer" in texts[0]


def test_equally_frequent_classes_are_all_named():
    labels = np.array([0, 1, 1, 2, 2])
    assert "class (dog, fox): " in one_class_warning(Accuracy(40.0, 100.0, 5), labels, ("cat", "dog", "fox"))
    assert "class (class 1, class 2): " in one_class_warning(Accuracy(40.0, 100.0, 5), labels, None)
    assert one_class_warning(Accuracy(60.0, 100.0, 5), labels, None) is None


def test_messages_about_a_run_s_length_say_what_is_possible(tmp_path, capsys):
    data = runs.write_data(tmp_path / "data")
    run, _ = pretrained_on(data, tmp_path / "run", steps=1, batch_size=8)
    assert cli.run(["pretrain", "--resume", str(run), "--steps", "3"]) == 2
    line = capsys.readouterr().err
    assert "steps 1 instead of 3, and must keep its settings; its schedules depend on its length" in line
    assert line.endswith("start a new run with another --out\n")
    assert cli.run(["pretrain", "--resume", str(run), "--steps", "3", "--out", str(tmp_path / "new")]) == 0
