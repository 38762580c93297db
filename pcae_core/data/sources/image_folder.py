"""Images in a folder, with sub-folders as classes or without classes."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from pcae_core.config.data import USUAL, Reading
from pcae_core.data import images
from pcae_core.data.sources.base import SPLIT_NAMES, Source, SourceKind
from pcae_core.data.sources.labels import NO_CLASS
from pcae_core.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


class ImageFolder(Source):
    """All image files below a folder, sorted by their path in it, without hidden files and folders.

    Each sub-folder that holds images, at any depth, is a class. Classes are numbered in the order of their names.
    Images directly in the folder have no class. If they are at least half of all images, there are no classes.

    Links to folders are followed. A folder that is also reached without a link counts only there, and any folder counts
    only once in a class.
    """

    def __init__(self, path: Path, in_chans: int, reading: Reading = USUAL) -> None:
        """Find the images. Raises DataError when there are none, or `in_chans` is neither 1 nor 3."""
        super().__init__(path, in_chans, reading)
        images.check_file_channels(in_chans)
        files = _find_images(self.path)
        if not files:
            raise DataError(f"{path} holds no images ({', '.join(sorted(e[1:] for e in EXTENSIONS))})")
        # One bytes object, not a list: for millions of files it is small in memory and quick to pickle.
        encoded = [os.fsencode(file) for file in files]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._names = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """Path of the image in the folder."""
        start = 0 if index == 0 else int(self._ends[index - 1])
        return os.fsdecode(self._names[start : int(self._ends[index])])

    @override
    def load(self, index: int) -> Image.Image:
        file = self.path / self.name(index)
        return self._read(file, str(file))

    @functools.cached_property
    def _classes(self) -> tuple[NDArray[np.int64], list[str]] | None:
        parts = [self.name(index).partition("/") for index in range(len(self))]
        folders = [folder if slash else None for folder, slash, _ in parts]
        if 2 * folders.count(None) >= len(self):
            return None
        names = sorted({folder for folder in folders if folder is not None})
        number: dict[str | None, int] = {name: index for index, name in enumerate(names)}
        labels = [number.get(folder, NO_CLASS) for folder in folders]
        return np.array(labels, dtype=np.int64), names

    @override
    @property
    def labels(self) -> NDArray[np.int64] | None:
        return None if self._classes is None else self._classes[0]

    @override
    @property
    def no_labels(self) -> str:
        return "most of its images lie in no sub-folder"

    @property
    def class_names(self) -> list[str] | None:
        """Names of the sub-folders."""
        return None if self._classes is None else self._classes[1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Checksum over the name and the size of every file; the class is part of the name."""
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
    """Sorted paths of the images, relative to `root`. Raises DataError when a folder cannot be read."""
    found, own, links = _walk(root, root, set())
    met: dict[str, set[Path]] = {}
    links.reverse()
    while links:  # links may lead back, to one another, or into folders that are counted already
        link = links.pop()
        seen = met.setdefault(link.relative_to(root).parts[0], set(own))
        more, inside, further = _walk(root, link, seen)
        seen |= inside
        found += more
        links += reversed(further)
    return sorted(found)


def _walk(root: Path, start: Path, seen: set[Path]) -> tuple[list[str], set[Path], list[Path]]:
    """Walk a folder without following links, and without the folders in `seen` and below.

    Returns:
        Paths of images, relative to `root`; the folders walked, resolved; and the links to folders.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}")

    found, inside, links = [], set(), []
    for folder, subfolders, files in os.walk(start, onerror=refuse):
        here, real = Path(folder), Path(folder).resolve()
        shown = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = []
        if real in seen:
            continue
        inside.add(real)
        for name in shown:
            if (here / name).is_symlink():
                links.append(here / name)
            else:
                subfolders.append(name)
        found += [(here.relative_to(root) / file).as_posix() for file in files if _is_image(file)]
    return found, inside, links


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _splits(path: Path) -> dict[str, Path]:
    """Split folders, if there is "train" and another one. A lone "test" or "val" may be a class."""
    folders = {name: path / name for name in SPLIT_NAMES if (path / name).is_dir()}
    return folders if "train" in folders and len(folders) > 1 else {}


KIND = SourceKind("a folder of images", "a folder", "one sub-folder a class", Path.is_dir, _splits, ImageFolder)
