"""Sources: folders, archives and Hugging Face's data sets of small images made here."""

from __future__ import annotations

import importlib
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import COLOURS, GREYS, MODEL, fix_walk, load_array, one_line, save_image, save_npz
from PIL import Image

from pcae_core import PretrainConfig
from pcae_core.data import images, open_scored, open_source
from pcae_core.data.sources import kinds
from pcae_core.data.sources.base import SPLIT_NAMES, SourceKind
from pcae_core.data.sources.image_folder import ImageFolder
from pcae_core.errors import ConfigError, DataError, MissingExtraError
from pcae_core.training.pretrain import pretrain

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


@pytest.mark.parametrize("link", ["alias", "zulu"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_folder_counts_by_its_own_name_whatever_the_order_of_the_disk(tmp_path, monkeypatch, link, reverse):
    save_image(tmp_path / "mike" / "x.png")
    save_image(tmp_path / "other" / "y.png")
    (tmp_path / link).symlink_to(tmp_path / "mike")
    fix_walk(monkeypatch, reverse)
    assert ImageFolder(tmp_path, 1).class_names == ["mike", "other"]


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


@pytest.mark.parametrize(
    ("shape", "in_chans"),
    [((60, 3, 32, 32), 3), ((60, 3, 32, 32), 1), ((60, 3, 32, 32), 32), ((9, 1, 28, 20), 1), ((9, 13, 64, 64), 13),
     ((9, 13, 64, 64), 3)],
)  # fmt: skip
def test_npz_with_the_channels_first_is_recognised(tmp_path, shape, in_chans):
    values = np.zeros(shape, np.uint8)
    path = save_npz(tmp_path / "d.npz", images=values)
    with pytest.raises(DataError, match=r"looks like \(n, C, H, W\).* save images.transpose\(0, 2, 3, 1\)") as error:
        open_source(path, in_chans)
    assert str(path) in one_line(error)
    if shape[1] in (in_chans, 1, 3):
        assert len(open_source(save_npz(path, images=values.transpose(0, 2, 3, 1)), shape[1])) == shape[0]


def test_npz_of_many_channels_is_still_read(tmp_path):
    for shape in ((9, 24, 32, 32), (9, 32, 32, 13), (9, 3, 3, 3), (9, 28, 28, 1), (9, 3, 32, 3)):
        path = save_npz(tmp_path / "d.npz", images=np.zeros(shape, np.uint8))
        assert len(open_source(path, shape[3])) == 9


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


@pytest.mark.parametrize("labels", [[-2] * 10, [2] * 10])
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


class Frames(ImageFolder):
    """A kind that PCAE does not know."""


def test_a_new_kind_needs_nothing_else(tmp_path, monkeypatch):
    def splits(path: Path) -> dict[str, Path]:
        return {name: path / f"{name}.frames" for name in SPLIT_NAMES if (path / f"{name}.frames").is_dir()}

    def recognizes(path: Path) -> bool:
        return path.suffix == ".frames"

    kind = SourceKind("a .frames folder", "a .frames folder", "a line a frame", recognizes, splits, Frames)
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, kind))
    for name in ("train", "val"):
        save_image(tmp_path / f"{name}.frames" / "x.png")
    assert isinstance(open_source(tmp_path / "val.frames", 1), Frames)
    assert open_source(tmp_path, 1, "test").path.name == "val.frames"
    for part, message in (
        ("train.frames", r"a folder, a \.npz file or a \.frames folder named test, val, validation or valid$"),
        ("train.frames/x.png", r"is neither a folder, a \.npz file nor a \.frames folder$"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / part, 1, "test" if part.endswith("frames") else "train")
    with pytest.raises(DataError, match=r"array labels in the \.npz file or a line a frame$"):
        open_scored(tmp_path, 1, "train")
    with pytest.raises(ConfigError, match=r"or a \.frames folder with --data$"):
        pretrain(PretrainConfig(model=MODEL))


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
