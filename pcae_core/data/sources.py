"""How a path is recognised as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pcae_core.data.huggingface import HuggingFaceSource
from pcae_core.data.image_folder import ImageFolder
from pcae_core.data.npz import NpzSource
from pcae_core.data.source import Source
from pcae_core.errors import DataError

Split = Literal["train", "test"]

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val", "validation")}
_ALL_SPLIT_NAMES = ("train", "test", "val", "validation")


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
    if path.is_file() and path.suffix.lower() == ".npz":
        return NpzSource(path, in_chans)
    if not path.is_dir():
        raise DataError(f"{path} is neither a folder nor a .npz file")
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return HuggingFaceSource(path, in_chans)
    return ImageFolder(path, in_chans)
