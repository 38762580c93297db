"""Images in a folder, with sub-folders as classes or without classes."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcae_core.data import images
from pcae_core.data.source import Source
from pcae_core.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


class ImageFolder(Source):
    """All image files below a folder, sorted by their path in it; hidden files and folders are left out.

    Where images lie directly in the folder there are no classes. Otherwise its sub-folders that hold images, at any
    depth, are the classes, numbered in the order of their names.
    """

    def __init__(self, path: Path, in_chans: int) -> None:
        """Raises DataError for a folder without images, or when `in_chans` is neither 1 nor 3."""
        super().__init__(path, in_chans)
        if in_chans not in images.MODES:
            raise DataError(f"image files give 1 or 3 channels, not {in_chans}; use a .npz file for other images")
        files = _find_images(self.path)
        if not files:
            raise DataError(f"{path} holds no images ({', '.join(sorted(e[1:] for e in EXTENSIONS))})")
        # One piece of bytes, not a list: it is small in memory and quick to pickle for millions of files.
        encoded = [os.fsencode(file) for file in files]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._names = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """Path in the folder."""
        start = 0 if index == 0 else int(self._ends[index - 1])
        return os.fsdecode(self._names[start : int(self._ends[index])])

    def load(self, index: int) -> Image.Image:
        """See `Source.load`."""
        file = self.path / self.name(index)
        return images.read(file, str(file), self.in_chans)

    @functools.cached_property
    def _classes(self) -> tuple[NDArray[np.int64], list[str]] | None:
        folders = [self.name(index).partition("/") for index in range(len(self))]
        if not all(slash for _, slash, _ in folders):
            return None
        names = sorted({folder for folder, _, _ in folders})
        number = {name: index for index, name in enumerate(names)}
        return np.array([number[folder] for folder, _, _ in folders], dtype=np.int64), names

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """See `Source.labels`."""
        return None if self._classes is None else self._classes[0]

    @property
    def class_names(self) -> list[str] | None:
        """Names of the sub-folders."""
        return None if self._classes is None else self._classes[1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Over the name and the size of every file; the class is part of the name."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            name = self.name(index)
            try:
                size = (self.path / name).stat().st_size
            except OSError as error:
                raise DataError(f"cannot read the image {self.path / name}: {error.strerror}") from None
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        return digest.hexdigest()[:16]


def _find_images(root: Path) -> list[str]:
    """Sorted paths in `root`. Raises DataError when a folder cannot be read."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}")

    found, seen = [], set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = Path(folder).resolve()
        # Links may lead back to a folder above. In a fixed order, for a folder counts where it is met first.
        shown = [name for name in subfolders if not name.startswith(".")]
        subfolders[:] = [] if real in seen else sorted(shown, key=lambda name: (Path(folder, name).is_symlink(), name))
        if real not in seen:
            relative = Path(folder).relative_to(root)
            found += [(relative / file).as_posix() for file in files if _is_image(file)]
        seen.add(real)
    return sorted(found)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
