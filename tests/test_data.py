"""Sources, augmentation and batches, on small images made here."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pcae_core
from pcae_core.config import DataConfig, ModelConfig, PretrainConfig
from pcae_core.data import CorruptLog, TrainLoader, augment, eval_batches, images, normalize, open_source
from pcae_core.data.image_folder import ImageFolder
from pcae_core.errors import ConfigError, DataError, MissingExtraError, TrainingError

MODEL = ModelConfig(image_size=8, patch_size=4, in_chans=1)
COLOURS = np.random.default_rng(0).integers(0, 256, (10, 12, 9, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0]


def save_image(path: Path, values=GREYS[0]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def save_npz(path: Path, **arrays) -> Path:
    np.savez(path, **{"images": GREYS} | arrays)
    return path


def load_array(source, index: int) -> np.ndarray:
    return np.asarray(source.load(index))


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Folders of images


def test_subfolders_are_classes(tmp_path):
    for name in ("b/x.PNG", "a/deep/er/y.png", "a/z.bmp", "a/.hidden.png", ".cache/h.png"):
        save_image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "no images").mkdir()
    source = open_source(tmp_path, 1)
    assert [source.name(i) for i in range(len(source))] == ["a/deep/er/y.png", "a/z.bmp", "b/x.PNG"]
    assert source.class_names == ["a", "b"]
    assert source.labels.tolist() == [0, 0, 1]
    assert source.labels.dtype == np.int64
    assert np.array_equal(load_array(source, 2), GREYS[0])


def test_images_in_the_folder_itself_have_no_classes(tmp_path):
    save_image(tmp_path / "one.png")
    save_image(tmp_path / "more" / "two.png")
    source = open_source(tmp_path, 3)
    assert len(source) == 2
    assert source.labels is None
    assert source.class_names is None
    assert source.load(0).mode == "RGB"


def test_links_that_lead_back_are_followed_once(tmp_path):
    save_image(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(ImageFolder(tmp_path, 1)) == 1


def test_folder_fingerprint_follows_the_content_not_the_place(tmp_path):
    save_image(tmp_path / "one" / "a" / "x.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first = open_source(tmp_path / "one", 1).fingerprint
    assert open_source(tmp_path / "two", 3).fingerprint == first
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "b")
    assert open_source(tmp_path / "two", 1).fingerprint != first
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "a")
    save_image(tmp_path / "two" / "a" / "x.png", COLOURS[0])
    assert open_source(tmp_path / "two", 1).fingerprint != first


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_unreadable_images_are_named(tmp_path, damage):
    path = save_image(tmp_path / "x.png", np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not an image", "truncated": content[: len(content) // 2]}[damage])
    with pytest.raises(DataError, match="cannot read the image") as error:
        open_source(tmp_path, 1).load(0)
    assert str(path) in one_line(error)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    save_image(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 9 - 1)
    with pytest.raises(DataError, match=r"cannot read the image .*x\.png"):
        open_source(tmp_path, 1).load(0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 9)
    assert open_source(tmp_path, 1).load(0).size == (9, 12)


# Kinds of pixels


def decode(tmp_path: Path, image: Image.Image, in_chans: int, **options) -> np.ndarray:
    image.save(tmp_path / "image.png", **options)
    return np.asarray(images.read(tmp_path / "image.png", "image.png", in_chans))


def test_transparent_pixels_are_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 255, 51
    assert decode(tmp_path, Image.fromarray(rgba), 3)[0].tolist() == [[255] * 3, [0] * 3, [204] * 3]
    assert decode(tmp_path, Image.fromarray(rgba[..., [0, 3]]), 1)[0].tolist() == [255, 0, 204]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    assert decode(tmp_path, palette, 3, transparency=0)[0].tolist() == [[255] * 3, [200, 0, 0]]
    assert decode(tmp_path, palette, 3)[0].tolist() == [[9, 9, 9], [200, 0, 0]]


def test_16_bit_greys_are_scaled(tmp_path):
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert decode(tmp_path, Image.fromarray(grey), 1)[0].tolist() == [0, 1, 128, 255]
    assert decode(tmp_path, Image.fromarray(grey), 3)[0, :, 2].tolist() == [0, 1, 128, 255]


def test_wider_pixels_are_refused(tmp_path):
    for dtype in (np.float32, np.int32):
        Image.fromarray(np.full((2, 2), 100_000, dtype)).save(tmp_path / "x.tif")
        with pytest.raises(DataError, match="16-bit"):
            images.read(tmp_path / "x.tif", "x.tif", 1)


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    assert np.array_equal(decode(tmp_path, Image.fromarray(GREYS[0]), 1, exif=exif), np.rot90(GREYS[0], -1))


def test_only_image_formats_are_decoded(tmp_path):
    Image.fromarray(GREYS[0]).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(DataError, match="cannot identify"):
        images.read(tmp_path / "x.png", "x.png", 1)


# NumPy archives


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(
        tmp_path / "d.npz", images=GREYS, labels=np.arange(10, dtype=np.uint8) % 2, class_names=np.array(["no", "yes"])
    )
    source = open_source(tmp_path / "d.npz", 1)
    assert len(source) == 10
    assert source.name(3) == "d.npz[3]"
    assert source.class_names == ["no", "yes"]
    assert source.labels.tolist() == [0, 1] * 5
    assert source.labels.dtype == np.int64
    assert all(np.array_equal(load_array(source, i), GREYS[i]) for i in range(10))
    assert open_source(tmp_path / "d.npz", 3).load(0).mode == "RGB"


def test_uncompressed_npz_is_mapped_and_cheap_to_pickle(tmp_path):
    arrays = np.asfortranarray(np.random.default_rng(0).integers(0, 256, (100, 20, 20), dtype=np.uint8))
    source = open_source(save_npz(tmp_path / "d.npz", images=arrays, labels=np.arange(100)), 1)
    assert isinstance(source._images, np.memmap)
    assert np.array_equal(load_array(source, 7), arrays[7])
    assert len(source.labels) == 100
    pickled = pickle.dumps(source)
    assert len(pickled) < 1000
    assert np.array_equal(load_array(pickle.loads(pickled), 7), arrays[7])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_npz_channels(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 256, (3, 6, 5, channels), dtype=np.uint8)
    path = save_npz(tmp_path / "d.npz", images=values)
    assert np.array_equal(load_array(open_source(path, channels), 1).reshape(6, 5, channels), values[1])
    with pytest.raises(DataError, match=f"have {channels} channels, but the model takes 5"):
        open_source(path, 5)


def test_npz_fingerprint_follows_the_content(tmp_path):
    first = open_source(save_npz(tmp_path / "a.npz"), 1).fingerprint
    np.savez_compressed(tmp_path / "b.npz", images=GREYS)
    assert open_source(tmp_path / "b.npz", 1).fingerprint == first
    changed = GREYS.copy()
    changed[5, 5, 5] ^= 1
    assert open_source(save_npz(tmp_path / "c.npz", images=changed), 1).fingerprint != first
    assert open_source(save_npz(tmp_path / "d.npz", labels=np.zeros(10, int)), 1).fingerprint != first


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREYS.astype(np.float32)}, "must be uint8"),
        ({"images": GREYS[0]}, "must be uint8"),
        ({"images": GREYS[:0]}, "must be uint8"),
        ({"images": np.array([None, "x"], dtype=object)}, "holds pickled objects"),
        ({"labels": np.zeros(10)}, "must be integers"),
        ({"labels": np.zeros(9, int)}, "must be integers"),
        ({"class_names": np.arange(3)}, "must be an array of text"),
    ],
)
def test_npz_with_wrong_arrays_is_refused(tmp_path, arrays, message):
    path = save_npz(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        open_source(path, 1)
    assert str(path) in one_line(error)


def test_npz_without_images_or_damaged_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", pictures=GREYS)
    with pytest.raises(DataError, match="must hold an array named images; it holds pictures"):
        open_source(tmp_path / "x.npz", 1)
    (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-40])
    with pytest.raises(DataError, match=r"y\.npz is not a readable \.npz file"):
        open_source(tmp_path / "y.npz", 1)


@pytest.mark.parametrize("labels", [[-1] * 10, [2] * 10])
def test_npz_labels_without_a_class_are_refused(tmp_path, labels):
    path = save_npz(tmp_path / "d.npz", labels=np.array(labels), class_names=np.array(["a", "b"]))
    with pytest.raises(DataError, match="must be numbers of classes"):
        _ = open_source(path, 1).labels


# Hugging Face


@pytest.fixture
def datasets():
    """The package, imported late: it is large, and needed by few tests."""
    return importlib.import_module("datasets")


def hugging_face(datasets, with_names: bool = True):
    label = datasets.ClassLabel(names=["cat", "dog"]) if with_names else datasets.Value("int32")
    features = datasets.Features({"text": datasets.Value("string"), "picture": datasets.Image(), "label": label})
    rows = {"text": ["a", "b", "c"], "picture": [Image.fromarray(v) for v in GREYS[:3]], "label": [1, 0, 1]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_hugging_face_dataset(tmp_path, datasets):
    hugging_face(datasets).save_to_disk(tmp_path / "d")
    source = open_source(tmp_path / "d", 1)
    assert len(source) == 3
    assert source.class_names == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, 1]
    copy = pickle.loads(pickle.dumps(source))
    assert all(np.array_equal(load_array(copy, i), GREYS[i]) for i in range(3))
    (tmp_path / "d").rename(tmp_path / "moved")
    assert open_source(tmp_path / "moved", 1).fingerprint == source.fingerprint


def test_hugging_face_splits_and_plain_labels(tmp_path, datasets):
    whole = hugging_face(datasets, with_names=False)
    datasets.DatasetDict({"train": whole, "validation": whole.select([2])}).save_to_disk(tmp_path)
    source = open_source(tmp_path, 1, "test")
    assert source.labels.tolist() == [1]
    assert source.class_names is None
    assert np.array_equal(load_array(source, 0), GREYS[2])
    assert len(open_source(tmp_path, 1, "train")) == 3


def test_hugging_face_errors(tmp_path, datasets):
    features = datasets.Features({"image": datasets.Image(decode=False)})
    rows = [{"bytes": b"no image", "path": None}, None]
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(tmp_path / "damaged")
    for index in range(2):
        with pytest.raises(DataError, match=rf"damaged\[{index}\]"):
            open_source(tmp_path / "damaged", 1).load(index)
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(DataError, match="no column of images; its columns are text"):
        open_source(tmp_path / "text", 1)
    next((tmp_path / "text").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot read the data set"):
        open_source(tmp_path / "text", 1)


def test_missing_datasets_package_is_named(tmp_path, datasets, monkeypatch):
    hugging_face(datasets).save_to_disk(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "pcae\[hf\]"'):
        open_source(tmp_path, 1)


# Paths and splits


def test_splits_of_archives(tmp_path):
    save_npz(tmp_path / "train.npz")
    with pytest.raises(DataError, match="no test split"):
        open_source(tmp_path, 1, "test")
    save_npz(tmp_path / "val.npz", images=GREYS[:3])
    assert [len(open_source(tmp_path, 1, split)) for split in (None, "train", "test")] == [10, 10, 3]
    save_npz(tmp_path / "test.npz", images=GREYS[:4])
    assert len(open_source(tmp_path, 1, "test")) == 4
    (tmp_path / "train.npz").unlink()
    with pytest.raises(DataError, match="no train split"):
        open_source(tmp_path, 1)


def test_splits_of_folders(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png"):
        save_image(tmp_path / name)
    assert open_source(tmp_path, 1, "train").class_names == ["a", "b"]
    assert open_source(tmp_path, 1, "test").class_names == ["a"]
    with pytest.raises(DataError, match="no test split") as error:
        open_source(tmp_path / "train", 1, "test")
    one_line(error)


def test_paths_that_are_no_data_set(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, message in (("nothing", "no data set at"), ("x.zip", "neither a folder nor"), ("empty", "no images")):
        with pytest.raises(DataError, match=message) as error:
            open_source(tmp_path / name, 1)
        assert str(tmp_path / name) in one_line(error)
    save_image(tmp_path / "empty" / "x.png")
    with pytest.raises(DataError, match="1 or 3 channels, not 2"):
        open_source(tmp_path / "empty", 2)


# Augmentation


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


WHOLE = DataConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hflip=False)


def test_evaluation_takes_the_centred_square():
    assert np.array_equal(augment.resize_center_crop(Image.fromarray(GREYS[0][:9]), 9), GREYS[0][None, :9])
    bands = np.repeat(np.array([10, 200, 10], np.uint8), [20, 40, 20])
    wide = Image.fromarray(np.tile(bands, (40, 1)))
    inner = augment.resize_center_crop(wide, 20)
    assert inner.shape == (1, 20, 20)
    assert inner[0, :, 2:-2].min() >= 198
    tall = augment.resize_center_crop(wide.transpose(Image.Transpose.ROTATE_90), 20)
    assert np.array_equal(tall[0], np.rot90(inner[0]))


def test_colours_come_first():
    pixels = augment.resize_center_crop(Image.fromarray(COLOURS[0][:9]), 9)
    assert np.array_equal(pixels, COLOURS[0][:9].transpose(2, 0, 1))
    assert pixels.flags.c_contiguous


def test_crop_of_everything_is_a_plain_resize():
    square = Image.fromarray(COLOURS[0][:9])
    expected = np.asarray(square.resize((5, 5), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(augment.random_resized_crop_flip(square, 5, WHOLE, rng()), expected)


def test_channels_of_arrays_are_treated_alike():
    values = np.concatenate([COLOURS[0], COLOURS[1]], axis=2)
    config = DataConfig()
    result = augment.random_resized_crop_flip(values, 7, config, rng(3))
    for channel in range(6):
        single = Image.fromarray(np.ascontiguousarray(values[..., channel]))
        assert np.array_equal(result[channel], augment.random_resized_crop_flip(single, 7, config, rng(3))[0])


def test_half_of_the_images_are_flipped():
    image = Image.fromarray(GREYS[0][:9])
    straight = GREYS[0][None, :9]
    flips = 0
    for seed in range(400):
        result = augment.random_resized_crop_flip(image, 9, WHOLE.model_copy(update={"hflip": True}), rng(seed))
        flips += np.array_equal(result, straight[..., ::-1])
        assert np.array_equal(result, straight) or np.array_equal(result, straight[..., ::-1])
        assert np.array_equal(augment.random_resized_crop_flip(image, 9, WHOLE, rng(seed)), straight)
    assert 150 < flips < 250


def test_random_boxes_have_the_asked_area_and_shape():
    config = DataConfig(crop_scale=(0.2, 0.8), crop_ratio=(0.5, 2.0))
    boxes = np.array([augment._random_box(400, 300, config, rng(seed)) for seed in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 400).all()
    assert (boxes[:, 3] <= 300).all()
    share, ratio = width * height / (400 * 300), width / height
    assert 0.195 < share.min() < 0.21
    assert 0.75 < share.max() < 0.805
    assert 0.49 < ratio.min() < 0.53
    assert 1.9 < ratio.max() < 2.03
    assert abs(np.log(ratio).mean()) < 0.15  # symmetric in the logarithm; large wide boxes fit a bit more often


def test_boxes_that_never_fit_are_centred():
    config = DataConfig(crop_scale=(1.0, 1.0), crop_ratio=(0.75, 4 / 3))
    assert augment._random_box(1000, 9, config, rng()) == (494, 0, 506, 9)
    assert augment._random_box(9, 1000, config, rng()) == (0, 494, 9, 506)
    assert augment._random_box(1, 1, config, rng()) == (0, 0, 1, 1)
    assert augment._random_box(500, 1, config, rng()) == (249, 0, 250, 1)


def test_normalize():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(2, axis=1)
    result = normalize(values, (0.5, 0.25), (0.25, 0.5))
    assert result.dtype == np.float32
    exact = (values / 255 - np.array([0.5, 0.25])[:, None, None]) / np.array([0.25, 0.5])[:, None, None]
    assert np.abs(result - exact).max() < 1e-6


# Training batches


def settings(workers: int = 0, **values) -> PretrainConfig:
    values = {"model": MODEL, "loader": DataConfig(workers=workers), "batch_size": 4, "seed": 5} | values
    return PretrainConfig(**values)


def batches(source, config, start_step=0, total_steps=7, **options):
    with TrainLoader(source, config, start_step=start_step, total_steps=total_steps, **options) as loader:
        return list(loader)


def same(first, second) -> bool:
    names = ("images", "sample_ids", "corrupt_ids")
    return len(first) == len(second) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) and getattr(a, name).dtype == getattr(b, name).dtype
        for a, b in zip(first, second, strict=True)
        for name in names
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images, two of which cannot be read."""
    path = tmp_path_factory.mktemp("folder")
    for index, values in enumerate(GREYS):
        save_image(path / f"{index}.png", values)
    for index in (3, 9):
        (path / f"{index}.png").write_bytes(b"damaged")
    return open_source(path, 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return open_source(save_npz(tmp_path_factory.mktemp("archive") / "d.npz"), 1)


def test_every_epoch_is_another_permutation(archive):
    result = batches(archive, settings(), total_steps=10)
    assert [batch.images.shape for batch in result] == [(4, 1, 8, 8)] * 10
    assert all(batch.images.dtype == np.uint8 and batch.sample_ids.dtype == np.int64 for batch in result)
    epochs = np.concatenate([batch.sample_ids for batch in result]).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # A version of Grain that shuffles otherwise would continue old runs wrongly.
    assert epochs[:2].tolist() == [[7, 4, 9, 3, 1, 2, 5, 6, 0, 8], [5, 6, 7, 0, 8, 3, 9, 2, 4, 1]]
    other = batches(archive, settings(seed=6), total_steps=10)
    orders = np.concatenate([batch.sample_ids for batch in other]).reshape(4, 10)
    assert not {tuple(epoch) for epoch in epochs} & {tuple(epoch) for epoch in orders}


def test_augmentation_is_drawn_by_epoch_and_sample(archive):
    plain = settings(loader=WHOLE.model_copy(update={"workers": 0}))
    for batch in batches(archive, plain, total_steps=3):
        for image, index in zip(batch.images, batch.sample_ids, strict=True):
            assert np.array_equal(image, augment.random_resized_crop_flip(archive.load(index), 8, plain.loader, rng()))
    result = batches(archive, settings(), total_steps=5)
    crops = [[b.images[b.sample_ids == index] for b in result if index in b.sample_ids] for index in range(10)]
    assert all(not np.array_equal(np.concatenate(c)[0], np.concatenate(c)[1]) for c in crops)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_and_workers_change_nothing(folder, workers):
    whole = batches(folder, settings(), total_steps=7)
    assert len(whole) == 7
    assert same(batches(folder, settings(workers), start_step=3), whole[3:])
    assert batches(folder, settings(workers), start_step=7) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_the_same_global_batch(folder, workers):
    whole = batches(folder, settings(), total_steps=7)
    ranks = [batches(folder, settings(workers), start_step=2, rank=rank, world_size=2) for rank in range(2)]
    for batch, parts in zip(whole[2:], zip(*ranks, strict=True), strict=True):
        for name in ("images", "sample_ids", "corrupt_ids"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(batch, name))


def test_unreadable_images_are_replaced_by_the_next(folder):
    for batch in batches(folder, settings(batch_size=10, loader=WHOLE.model_copy(update={"workers": 0}))):
        assert sorted(batch.corrupt_ids) == [3, 9]
        assert sorted(batch.sample_ids) == [0, 0, 1, 2, 4, 4, 5, 6, 7, 8]
        for image, index in zip(batch.images, batch.sample_ids, strict=True):
            assert np.array_equal(image, augment.random_resized_crop_flip(folder.load(index), 8, WHOLE, rng()))


def test_fewer_images_than_a_batch(tmp_path):
    source = open_source(save_npz(tmp_path / "d.npz", images=GREYS[:3]), 1)
    ids = np.concatenate([batch.sample_ids for batch in batches(source, settings(batch_size=12), total_steps=2)])
    assert all(sorted(epoch) == [0, 1, 2] for epoch in ids.reshape(8, 3))
    single = open_source(save_npz(tmp_path / "e.npz", images=GREYS[:1]), 1)
    assert batches(single, settings(), total_steps=1)[0].sample_ids.tolist() == [0] * 4


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_images_in_a_row(tmp_path, workers):
    for index in range(30):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"21 images in a row .*\.png") as error:
        batches(open_source(tmp_path, 1), settings(workers))
    one_line(error)


def test_processes_that_do_not_fit(archive):
    with pytest.raises(ConfigError, match="batch_size 4 is not divisible by 3 processes"):
        TrainLoader(archive, settings(), start_step=0, total_steps=1, world_size=3)
    with pytest.raises(ConfigError, match="rank 2 must be from 0 to 1"):
        TrainLoader(archive, settings(), start_step=0, total_steps=1, rank=2, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_loader_is_at_its_end(archive, workers):
    loader = TrainLoader(archive, settings(workers), start_step=0, total_steps=9)
    with loader:
        next(loader)
        assert len(multiprocessing.active_children()) == workers
    assert list(loader) == []
    assert multiprocessing.active_children() == []
    loader.close()


def test_a_forgotten_loader_ends_its_processes(archive):
    loader = TrainLoader(archive, settings(1), start_step=0, total_steps=9)
    next(loader)
    assert len(multiprocessing.active_children()) == 1
    del loader
    assert multiprocessing.active_children() == []


def test_a_killed_loading_process_is_an_error(archive):
    with TrainLoader(archive, settings(2), start_step=0, total_steps=10**6) as loader:
        next(loader)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"a loading process died \(exit code -9\)"):
            for _ in loader:
                pass
    assert multiprocessing.active_children() == []


# The end of the program

SCRIPT = """
import sys
from pcae_core.config import DataConfig, ModelConfig, PretrainConfig
from pcae_core.data import TrainLoader, open_source
from pcae_core.training.signals import StopRequest

if __name__ == "__main__":
    path, end = sys.argv[1:]
    model = ModelConfig(image_size=64, patch_size=32, in_chans=1)
    config = PretrainConfig(model=model, loader=DataConfig(workers=2), batch_size=4)
    steps = 4 if end == "all" else 10**6
    loader = TrainLoader(open_source(path, 1), config, start_step=0, total_steps=steps)
    with StopRequest() as stop, loader:  # as the loop of a run does
        for step, batch in enumerate(loader):
            if end == "break" or stop.received:
                break
            if step == 1:
                print("ready", flush=True)
"""


@pytest.fixture
def start_script(tmp_path):
    """Starts the script, and leaves none of its processes behind."""
    started = []

    def start(end: str) -> subprocess.Popen:
        (tmp_path / "script.py").write_text(SCRIPT)
        save_npz(tmp_path / "d.npz")
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "d.npz"), end]
        environment = os.environ | {"PYTHONPATH": str(Path(pcae_core.__file__).parents[1])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ["all", "break"])
def test_nothing_is_printed_at_the_end(start_script, end):
    process = start_script(end)
    output, errors = process.communicate(timeout=60)
    assert (errors, process.returncode) == (b"", 0)
    assert (output == b"ready\n") == (end == "all")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_printed_when_a_signal_ends_all_processes(start_script, number):
    process = start_script("never")
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == (b"", b"", 0)


def test_loading_processes_do_not_outlive_a_killed_run(start_script):
    process = start_script("never")
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)  # returns when nobody holds the pipes any more
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and running_in_group(process.pid):
        time.sleep(0.1)
    assert running_in_group(process.pid) == []


def running_in_group(group: int) -> list[str]:
    """Processes of a process group that have not ended."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(path.read_text())
        except OSError:  # it has just ended
            continue
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return [
        stat for stat, (state, _, pgrp, *_) in zip(stats, fields, strict=True) if int(pgrp) == group and state != "Z"
    ]


# Evaluation batches and damaged images


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_are_in_order(archive, workers):
    result = list(eval_batches(archive, MODEL, DataConfig(workers=workers), 4))
    assert [len(batch) for batch in result] == [4, 4, 2]
    expected = [augment.resize_center_crop(archive.load(index), 8) for index in range(10)]
    assert np.array_equal(np.concatenate(result), np.stack(expected))


def test_evaluation_does_not_replace_images(folder):
    with pytest.raises(DataError, match=r"3\.png"):
        list(eval_batches(folder, MODEL, DataConfig(), 2))


def test_corrupt_log_names_each_image_once(caplog, tmp_path):
    for index in range(300):
        (tmp_path / f"{index:03}.png").touch()
    log = CorruptLog(open_source(tmp_path, 1))
    assert log.add(np.array([5, 5, 7])) == ["005.png", "007.png"]
    assert log.add([7]) == []
    assert log.add([9]) == ["009.png"]
    assert log.count == 3  # of 300: not more than 1 %
    assert [record.name for record in caplog.records] == ["pcae", "pcae"]
    assert "005.png, 007.png" in caplog.records[0].getMessage()
    with pytest.raises(
        TrainingError, match=r"4 of 300 images \(1\.3%\) cannot be read.*005.*007.*009.*011\.png$"
    ) as error:
        log.add([11])
    one_line(error)
    with pytest.raises(TrainingError, match=r"019\.png, and 5 more$"):
        CorruptLog(open_source(tmp_path, 1)).add(range(25))
