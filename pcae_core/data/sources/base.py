"""The interface of a data set, and of a kind of data sets.

A source is pickled into every loading process, so it holds little. Each process opens the files by path, on first use.
"""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from pcae_core.config.data import USUAL, Reading
from pcae_core.data import images
from pcae_core.data.images import AnyImage


class Source(abc.ABC):
    """Images by number, 0 to len - 1, each with `in_chans` channels.

    A value in a `functools.cached_property` of a subclass is not pickled: use one for open files and mapped arrays.
    """

    def __init__(self, path: Path, in_chans: int, reading: Reading = USUAL) -> None:
        self.path = path.absolute()
        self.in_chans = in_chans
        self._reading = reading

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
            ImageError: the image cannot be read; other images may still be readable.
            DataError: the source cannot be read.
        """

    def _read(self, file: Path | BinaryIO, name: str) -> Image.Image:
        """Decode an image file, given as a path or as its content. Raises ImageError."""
        return images.read(file, name, self.in_chans, self._reading.max_pixels, self._reading.grey_bits)

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """Name of an image in messages."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each image, int64 (n,), -1 for no class; None if no image has a class."""
        return None

    @property
    def no_labels(self) -> str:
        """The reason why `labels` is None, in a few words."""
        return "it has no classes"

    @property
    def class_names(self) -> list[str] | None:
        """Name of each class; None if the classes have no names."""
        return None

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Short hexadecimal text that identifies the data set, independent of its path."""


@dataclass(frozen=True)
class SourceKind:
    """A kind of data set on disk: functions that recognise and open one, and its words in messages.

    Attributes:
        name: words for a data set, such as "a folder of images".
        container: words for the file or folder of a data set or a split, such as "a folder".
        labels: words for the place of the labels, such as "one sub-folder a class".
        recognizes: function that tells whether a path is one data set of this kind, without splits.
        splits: function from a folder to its splits of this kind: name -> path, empty if there are none.
        open: function from path, channels and reading settings to the source. Raises DataError, MissingExtraError.
    """

    name: str
    container: str
    labels: str
    recognizes: Callable[[Path], bool]
    splits: Callable[[Path], dict[str, Path]]
    open: Callable[[Path, int, Reading], Source]


VALIDATION_NAMES = ("val", "validation", "valid")
SPLIT_NAMES = ("train", "test", *VALIDATION_NAMES)
"""Usual names of splits."""


class Subset(Source):
    """Some images of another source, in its order."""

    def __init__(self, source: Source, ids: NDArray[np.int64]) -> None:
        """Args:
        ids: numbers (m,) of the images in `source`.
        """
        super().__init__(source.path, source.in_chans)
        self._source, self._ids = source, ids

    def __len__(self) -> int:
        return len(self._ids)

    @override
    def load(self, index: int) -> AnyImage:
        return self._source.load(int(self._ids[index]))

    @override
    def name(self, index: int) -> str:
        return self._source.name(int(self._ids[index]))

    @override
    @property
    def labels(self) -> NDArray[np.int64] | None:
        labels = self._source.labels
        return None if labels is None else labels[self._ids]

    @override
    @property
    def class_names(self) -> list[str] | None:
        return self._source.class_names

    @functools.cached_property
    def fingerprint(self) -> str:
        """Checksum over the fingerprint of the whole source and the image numbers."""
        return hashlib.sha256(self._source.fingerprint.encode() + self._ids.tobytes()).hexdigest()[:16]
