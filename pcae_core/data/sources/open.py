"""Open a data set, a split of it, or the split to score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pcae_core.config.data import USUAL, Reading
from pcae_core.data.classes import Labelled, labelled
from pcae_core.data.sources.base import VALIDATION_NAMES, Source
from pcae_core.data.sources.kinds import find_splits, joined, recognized, words
from pcae_core.errors import DataError, listed

SplitRole = Literal["train", "test"]
"""Role of a split. A validation split can have the role "test"."""

_NAMES: dict[SplitRole, tuple[str, ...]] = {"train": ("train",), "test": ("test", *VALIDATION_NAMES)}


def open_source(path: Path | str, in_chans: int, split: SplitRole | None = None, reading: Reading = USUAL) -> Source:
    """Open a data set of one of `kinds.KINDS`, or a split of it.

    A folder can hold splits: `train.npz` with `test.npz` or `val.npz`, folders `train` with `test` or `val`, or a
    `DatasetDict`. A validation split may be called `val`, `validation` or `valid`.

    Args:
        in_chans: number of channels of the images that the source returns.
        split: "train" and None open the train split, or the whole data set if it has no splits. "test" opens the test
            split, else the validation split.
        reading: settings of image reading.

    Raises:
        DataError: there is no such data set or split, or it cannot be read.
        MissingExtraError: the data set needs `datasets`, which is not installed.
    """
    path, split = Path(path), split or "train"
    splits = _splits(path)
    if not splits and split == "train":
        return _open(path, in_chans, reading)
    return _open(_first(path, splits, _NAMES[split], split), in_chans, reading)


def open_scored(path: Path | str, in_chans: int, split: str | None = None, reading: Reading = USUAL) -> Labelled:
    """The labelled images of a data set to score a classifier on.

    Args:
        split: name of a split. Default: the first of test, val, validation and valid that has labels.
        reading: settings of image reading.

    Raises:
        DataError, MissingExtraError: as `open_source`, or the split has no labels.
    """
    path = Path(path)
    splits = _splits(path)
    if split is not None:
        names = VALIDATION_NAMES if split in VALIDATION_NAMES else (split,)
        return labelled(_open(_first(path, splits, names, split), in_chans, reading))
    _first(path, splits, _NAMES["test"], "test")
    reasons: list[str] = []
    for name in _NAMES["test"]:
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
    raise DataError(f"{path} has no {split} split, which is {words('container')} named {joined(names)}{there}")


def _splits(path: Path) -> dict[str, Path]:
    """The splits of a data set: name -> path, empty if it has none. Raises DataError when there is no data set."""
    if not path.exists():
        raise DataError(f"there is no data set at {path}")
    return find_splits(path)


def _open(path: Path, in_chans: int, reading: Reading) -> Source:
    kind = recognized(path)
    if kind is None:
        raise DataError(f"{path} is neither {words('container', 'nor')}")
    return kind.open(path, in_chans, reading)
