"""Classes meet a classifier by name: the same images give the same answer from folders, archives and Hugging Face's."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import labelled_sets
import numpy as np
import pytest
import runs
from labelled_sets import KINDS
from refusals import refused

from pcae.cli import main as cli
from pcae_core import DataError, FinetuneConfig, checkpoint, registry
from pcae_core.data import open_source
from pcae_core.data.classes import Labelled, match
from pcae_core.evaluation.evaluate import evaluate
from pcae_core.evaluation.keep_table import keep_table
from pcae_core.training.finetune import finetune

TRAINED = ("cat", "dog", "fox")
PLAIN = dict.fromkeys(("drop_path", "label_smoothing", "mixup", "cutmix", "random_erasing"), 0.0)
RECIPE = PLAIN | {"base_learning_rate": 0.3, "batch_size": 8, "rand_augment": None, "layer_decay": 1.0, "steps": 30}
RECIPE |= {"device": "cpu", "tensorboard": False, "loader": {"workers": 0, "crop_scale": [0.9, 1.0]}, "log_every": 99}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    data, out = labelled_sets.write("npz", root / "data", {"train": TRAINED * 8}), root / "pretrained"
    arguments = ["pretrain", "--data", data, "--out", out, *runs.SETTINGS, "--steps", 1, "--loader.workers", 0]
    assert cli.run(list(map(str, arguments))) == 0
    return out


def tune(data: Path, pretrained: Path, out: Path, **settings) -> tuple[Path, str]:
    """The run and what it said."""
    values = RECIPE | {"data": str(data), "pretrained": str(pretrained), "out": str(out)} | settings
    return runs.told(finetune, FinetuneConfig.from_dict(values))


@pytest.fixture(scope="module")
def tuned(pretrained, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tuned")
    data = labelled_sets.write("folder", root / "data", {"train": TRAINED * 8, "test": TRAINED * 4})
    run, _ = tune(data, pretrained, root / "run")
    assert top1(run) == 100.0
    return run


def top1(run: Path) -> float:
    return checkpoint.read_manifest(checkpoint.find(run)).metrics["top1"]


def scored(run: Path, data: Path, **options) -> float:
    return keep_table(registry.create("torch", device="cpu"), run, data, (1.0,), **options)[1][0].accuracy.top1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("pcae_core.evaluation.keep_table.SPEED_ROUNDS", 2)


# Scoring a fine-tuned run


@pytest.mark.parametrize("kind", KINDS)
def test_a_subset_of_the_classes_is_scored_by_name(kind, tuned, tmp_path, caplog):
    data = labelled_sets.write(kind, tmp_path, {"train": ("dog", "fox"), "test": ("dog", "fox", "fox")})
    assert scored(tuned, data) == 100.0
    assert "has no images of cat" in caplog.text


@pytest.mark.parametrize("kind", ["npz", "hf"])
def test_the_order_of_the_classes_does_not_matter(kind, tuned, tmp_path, caplog):
    data = labelled_sets.write(kind, tmp_path, {"train": TRAINED, "test": TRAINED * 2}, ("fox", "cat", "dog"))
    assert scored(tuned, data) == 100.0
    assert not caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_classes_are_named_and_refused_or_left_out(kind, tuned, tmp_path, capsys, caplog):
    data = labelled_sets.write(kind, tmp_path, {"train": TRAINED, "test": ("cat", "wolf", "dog", "wolf")})
    line = refused(capsys, "evaluate", tuned, "--data", data, "--device", "cpu")
    assert re.search(r"classes that the run .* does not have: wolf \(and no images of fox\);", line)
    assert "--ignore-unknown-classes" in line
    assert "--split" in line
    assert scored(tuned, data, ignore_unknown=True) == 100.0
    assert re.search(r"2 of 4 images in .* have classes that the run .* \(wolf\) and are left out: ", caplog.text)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_left_to_score_is_refused(kind, tuned, tmp_path):
    data = labelled_sets.write(kind, tmp_path, {"train": TRAINED, "test": ("wolf", "wolf")})
    with pytest.raises(DataError, match=r"all 2 images in .*wolf"):
        scored(tuned, data, ignore_unknown=True)


def test_without_names_numbers_are_believed_and_said_so(tuned, tmp_path, caplog):
    images = np.stack([labelled_sets.picture(name, 0) for name in TRAINED])
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(3))
    assert scored(tuned, tmp_path) == 100.0
    (note,) = caplog.messages
    assert re.search(r"test\.npz: classes are matched by number, because .*test\.npz has no class names", note)
    np.savez(tmp_path / "test.npz", images=images, labels=np.array([0, 1, 7]))
    with pytest.raises(DataError, match="does not have: class 7;"):
        scored(tuned, tmp_path)
    assert scored(tuned, tmp_path, ignore_unknown=True) == 100.0


def test_a_model_with_two_classes_of_one_name_is_refused_where_they_matter(tmp_path):
    """Published ImageNet models have them: two classes are called "crane"."""
    folder = labelled_sets.write("folder", tmp_path, {"all": ("cat", "dog")}) / "all"
    source = open_source(folder, 1)
    found = Labelled(source, source.labels, source.class_names)
    with pytest.raises(DataError, match="two classes of one name, which cannot be told apart: dog"):
        match(found, ("dog", "cat", "dog"), 3, "the model")
    assert match(found, ("fox", "cat", "dog", "fox"), 4, "the model").labels.tolist() == [1, 2]


def test_archives_that_name_a_class_twice_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2), class_names=np.array(["cat", "cat"]))
    with pytest.raises(DataError, match=r"x\.npz names classes twice: cat"):
        _ = open_source(path, 1).class_names
    assert len(open_source(path, 1)) == 2  # enough for pre-training


def test_hugging_face_sets_that_name_a_class_twice_are_refused(tmp_path):
    data = labelled_sets.write("hf", tmp_path, {"train": ("cat", "dog")})
    info = data / "train" / "dataset_info.json"
    text = info.read_text()
    assert '"dog"' in text
    info.write_text(json.dumps(json.loads(text.replace('"dog"', '"cat"'))))
    with pytest.raises(DataError, match=r"duplicated|twice"):
        _ = open_source(data, 1, "train").class_names


# Fine-tuning


@pytest.mark.parametrize("kind", KINDS)
def test_a_validation_split_may_lack_a_class(kind, pretrained, tmp_path):
    splits = {"train": TRAINED * 8, "val": ("fox", "dog", "fox", "dog", "fox")}
    run, said = tune(labelled_sets.write(kind, tmp_path / "data", splits), pretrained, tmp_path / "run")
    assert top1(run) == 100.0
    assert checkpoint.read_manifest(checkpoint.find(run)).config.class_names == TRAINED
    assert "has no images of cat" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_only_validation_has_is_named(kind, pretrained, tmp_path):
    data = labelled_sets.write(kind, tmp_path / "data", {"train": TRAINED * 8, "val": ("cat", "dog", "wolf")})
    with pytest.raises(DataError, match=r"that the train split of .* does not have: wolf \(and no images of fox\)"):
        tune(data, pretrained, tmp_path / "run", steps=1)
    run, said = tune(data, pretrained, tmp_path / "run", ignore_unknown_classes=True)
    assert top1(run) == 100.0
    assert "1 of 3 images" in said


def test_a_run_goes_on_with_the_classes_that_it_began_with(pretrained, tmp_path):
    """The scored split may be written anew, with its classes in another order."""
    data = labelled_sets.write("npz", tmp_path / "data", {"train": TRAINED * 8, "test": TRAINED * 4})
    run, _ = tune(data, pretrained, tmp_path / "run", checkpoint_every=10)
    shutil.rmtree(checkpoint.find(run))
    labelled_sets.write("npz", data, {"test": TRAINED * 4}, ("dog", "fox", "cat"))
    assert cli.run(["finetune", "--resume", str(run)]) == 0
    assert checkpoint.read_manifest(checkpoint.find(run)).step == 30
    assert top1(run) == 100.0


def test_what_continued_training_cannot_know_is_refused(pretrained, tmp_path, capsys):
    data = labelled_sets.write("npz", tmp_path / "data", {"train": TRAINED * 8, "test": TRAINED})
    run, _ = tune(data, pretrained, tmp_path / "run", steps=1)
    other = labelled_sets.write("npz", tmp_path / "other", {"train": ("cat", "wolf") * 8, "test": ("cat",)})
    line = refused(capsys, "finetune", "--resume", run, "--data", other)
    assert "does not have: wolf (and no images of dog, fox); start a new run with another --out" in line


# Frozen features


@pytest.mark.parametrize("kind", ["npz", "hf"])
def test_probes_match_the_splits_by_name(kind, pretrained, tmp_path):
    backend, results = registry.create("torch", device="cpu"), []
    for name, order in (("same", TRAINED), ("other", ("fox", "cat", "dog"))):
        data = labelled_sets.write(kind, tmp_path / name, {"train": TRAINED * 8})
        other = labelled_sets.write(kind, tmp_path / f"{name}-test", {"test": TRAINED * 4}, order)
        (test,) = other.glob("test*")
        test.rename(data / test.name)
        results.append(evaluate(backend, pretrained, data, ("student",))[0]["student"])
    assert results[0] == results[1]
    assert results[0].linear.top1 == 100.0


@pytest.mark.parametrize("kind", KINDS)
def test_probes_name_classes_of_one_split(kind, pretrained, tmp_path, capsys, caplog):
    data = labelled_sets.write(kind, tmp_path, {"train": TRAINED * 8, "test": ("cat", "wolf")})
    line = refused(capsys, "evaluate", pretrained, "--data", data, "--device", "cpu")
    assert "does not have: wolf (and no images of dog, fox)" in line
    backend = registry.create("torch", device="cpu")
    found, _ = evaluate(backend, pretrained, data, ("student",), ignore_unknown=True)
    assert found["student"].linear.top1 == 100.0
    assert "1 of 2 images" in caplog.text


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.WARNING, "pcae")
