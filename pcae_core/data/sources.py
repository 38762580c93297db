"""Where images come from, behind one small interface, and how a path is recognised as one of them.

A source is pickled into every loading process, so it holds little: what it opens it opens by path, on first use and
in each process anew.
"""

from __future__ import annotations

import abc
import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pcae_core.data.images import AnyImage
from pcae_core.errors import DataError

Split = Literal["train", "test"]

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val", "validation")}
_ALL_SPLIT_NAMES = ("train", "test", "val", "validation")


class Source(abc.ABC):
    """Images by number, 0 to len - 1, each with `in_chans` channels.

    What a subclass keeps in a `functools.cached_property` (open files, mapped arrays) is not pickled.
    """

    def __init__(self, path: Path, in_chans: int) -> None:
        self.path = path.absolute()
        self.in_chans = in_chans

    def __getstate__(self) -> dict[str, Any]:
        def is_cached(name: str) -> bool:
            return isinstance(getattr(type(self), name, None), functools.cached_property)

        return {name: value for name, value in vars(self).items() if not is_cached(name)}

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def load(self, index: int) -> AnyImage:
        """A decoded image: Pillow's "L" or "RGB", or uint8 (H, W, C) for other numbers of channels.

        Raises:
            DataError: the image cannot be read; names it.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """What to call an image in a message."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each image, int64 (n,); None when there are no classes."""
        return None

    @property
    def class_names(self) -> list[str] | None:
        """Name of each class; None when they have none."""
        return None

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Short hexadecimal text that identifies the data set, wherever it lies."""


def open_source(path: Path | str, in_chans: int, split: Split | None = None) -> Source:
    """Open a data set: a `.npz` file, a folder of images, or a folder that Hugging Face's `datasets` wrote.

    A folder may also hold splits: `train.npz` with `test.npz` or `val.npz`, folders `train` with `test` or `val`, or
    a `DatasetDict`.

    Args:
        in_chans: channels of the images to deliver.
        split: "train" (also None) takes the train split, or the whole where there are no splits. "test" takes the
            test split, else the validation split.

    Raises:
        DataError: there is no such data set or split, or it cannot be read.
        MissingExtraError: it needs `datasets`, which is not installed.
    """
    return _open(_find_split(Path(path), split or "train"), in_chans)


def _find_split(path: Path, split: Split) -> Path:
    if not path.exists():
        raise DataError(f"there is no data set at {path}")
    splits = _splits(path)
    for name in _SPLIT_NAMES[split]:
        if name in splits:
            return splits[name]
    if splits or split == "test":
        names = " or ".join(_SPLIT_NAMES[split])
        raise DataError(f"{path} has no {split} split, which is a .npz file or a sub-folder named {names}")
    return path


def _splits(path: Path) -> dict[str, Path]:
    """The splits that a folder holds, by name; empty when it is one data set."""
    archives = {name: path / f"{name}.npz" for name in _ALL_SPLIT_NAMES}
    archives = {name: archive for name, archive in archives.items() if archive.is_file()}
    if archives:
        return archives
    if (path / "dataset_dict.json").is_file():
        return {folder.name: folder for folder in path.iterdir() if folder.is_dir()}
    folders = {name: path / name for name in _ALL_SPLIT_NAMES if (path / name).is_dir()}
    # Only "train" beside something else is a split; a class could be called "test" or "val".
    return folders if "train" in folders and len(folders) > 1 else {}


def _open(path: Path, in_chans: int) -> Source:
    # Imported here: each of them imports this module for `Source`.
    from pcae_core.data.huggingface import HuggingFaceSource
    from pcae_core.data.image_folder import ImageFolder
    from pcae_core.data.npz import NpzSource

    if path.is_file() and path.suffix.lower() == ".npz":
        return NpzSource(path, in_chans)
    if not path.is_dir():
        raise DataError(f"{path} is neither a folder nor a .npz file")
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return HuggingFaceSource(path, in_chans)
    return ImageFolder(path, in_chans)
