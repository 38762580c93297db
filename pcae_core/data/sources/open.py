"""How a path is recognised as a data set, and which of its splits is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pcae_core.config.data import USUAL, Reading
from pcae_core.data.classes import Labelled, labelled
from pcae_core.data.sources.base import Source
from pcae_core.data.sources.huggingface import HuggingFaceSource
from pcae_core.data.sources.image_folder import ImageFolder
from pcae_core.data.sources.npz import NpzSource
from pcae_core.errors import DataError, listed

Split = Literal["train", "test"]

_VALIDATION = ("val", "validation", "valid")
_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", *_VALIDATION)}
_ALL_SPLIT_NAMES = ("train", "test", *_VALIDATION)


def open_source(path: Path | str, in_chans: int, split: Split | None = None, reading: Reading = USUAL) -> Source:
    """Open a data set: a `.npz` file, a folder of images, or a folder that Hugging Face's `datasets` wrote.

    A folder may also hold splits: `train.npz` with `test.npz` or `val.npz`, folders `train` with `test` or `val`, or
    a `DatasetDict`. A validation split may be called `val`, `validation` or `valid`.

    Args:
        in_chans: channels of the images to deliver.
        split: "train" (also None) takes the train split, or the whole where there are no splits. "test" takes the
            test split, else the validation split.
        reading: how image files are read.

    Raises:
        DataError: there is no such data set or split, or it cannot be read.
        MissingExtraError: it needs `datasets`, which is not installed.
    """
    path, split = Path(path), split or "train"
    splits = _splits(path)
    if not splits and split == "train":
        return _open(path, in_chans, reading)
    return _open(_first(path, splits, _SPLIT_NAMES[split], split), in_chans, reading)


def open_scored(path: Path | str, in_chans: int, split: str | None = None, reading: Reading = USUAL) -> Labelled:
    """The labelled images of a data set that a classifier is scored on.

    Args:
        split: name of a split; by default the first of test, val, validation and valid that has labels.
        reading: how image files are read.

    Raises:
        DataError, MissingExtraError: as `open_source`, or the split has no labels.
    """
    path = Path(path)
    splits = _splits(path)
    if split is not None:
        names = _VALIDATION if split in _VALIDATION else (split,)
        return labelled(_open(_first(path, splits, names, split), in_chans, reading))
    _first(path, splits, _SPLIT_NAMES["test"], "test")
    reasons: list[str] = []
    for name in _SPLIT_NAMES["test"]:
        source = _open(splits[name], in_chans, reading) if name in splits else None
        if source is not None and source.labels is not None:
            found = labelled(source)
            passed = [f"the split {name} of {path} is scored; {reason}" for reason in reasons]
            return replace(found, notes=(*passed, *found.notes))
        if source is not None:
            reasons.append(f"{name} has no labels: {source.no_labels}")
    raise DataError(f"no split of {path} that can be scored has labels; {'; '.join(reasons)}")


def _first(path: Path, splits: dict[str, Path], names: tuple[str, ...], split: str) -> Path:
    for name in names:
        if name in splits:
            return splits[name]
    there = f"; it has {listed(sorted(splits))}" if splits else ""
    called = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    raise DataError(f"{path} has no {split} split, which is a .npz file or a sub-folder named {called}{there}")


def _splits(path: Path) -> dict[str, Path]:
    """The splits that a data set holds, by name; none when it is one whole. Raises DataError when there is none."""
    if not path.exists():
        raise DataError(f"there is no data set at {path}")
    archives = {name: path / f"{name}.npz" for name in _ALL_SPLIT_NAMES}
    archives = {name: archive for name, archive in archives.items() if archive.is_file()}
    if archives:
        return archives
    if (path / "dataset_dict.json").is_file():
        return {folder.name: folder for folder in path.iterdir() if folder.is_dir()}
    folders = {name: path / name for name in _ALL_SPLIT_NAMES if (path / name).is_dir()}
    # Only "train" beside something else is a split; a class could be called "test" or "val".
    return folders if "train" in folders and len(folders) > 1 else {}


def _open(path: Path, in_chans: int, reading: Reading) -> Source:
    if path.is_file() and path.suffix.lower() == ".npz":
        return NpzSource(path, in_chans)
    if not path.is_dir():
        raise DataError(f"{path} is neither a folder nor a .npz file")
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return HuggingFaceSource(path, in_chans, reading)
    return ImageFolder(path, in_chans, reading)
