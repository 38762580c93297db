"""Images in a NumPy archive. An uncompressed archive is mapped into memory, not read."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pcae_core.config import Reading
from pcae_core.data import images
from pcae_core.data.images import AnyImage
from pcae_core.data.sources.base import SPLIT_NAMES, Source, SourceKind
from pcae_core.data.sources.labels import check_labels, check_names
from pcae_core.errors import DataError
from pcae_core.storage import archives


class NpzSource(Source):
    """Images in a `.npz` file.

    It has an array `images`, uint8 (n, H, W) or (n, H, W, C). Optional arrays are `labels`, integers (n,) with -1 for
    no class, and `class_names`, text. The images of `numpy.savez` are mapped into memory. Those of
    `numpy.savez_compressed` are read whole by every process.
    """

    def __init__(self, path: Path, in_chans: int) -> None:
        """Check the file. Raises DataError when it is damaged or its arrays are not as described above."""
        super().__init__(path, in_chans)
        try:
            self._members = archives.members(path)
        except ValueError as error:
            raise DataError(f"{path} is not a readable .npz file: {error}") from None
        self._check()

    def _check(self) -> None:
        member = self._members.get("images")
        if member is None:
            found = ", ".join(sorted(self._members)) or "nothing"
            raise DataError(f"{self.path} must hold an array named images; it holds {found}")
        if member.dtype != np.uint8 or len(member.shape) not in (3, 4) or 0 in member.shape:
            raise DataError(
                f"images in {self.path} must be uint8 (n, H, W) or (n, H, W, C), not {member.dtype} {member.shape}"
            )
        images.check_channels(self.path, member.shape, self.in_chans)
        labels, names = self._members.get("labels"), self._members.get("class_names")
        if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != member.shape[:1]):
            raise DataError(
                f"labels in {self.path} must be integers ({member.shape[0]},), not {labels.dtype} {labels.shape}"
            )
        if names is not None and (names.dtype.kind != "U" or len(names.shape) != 1):
            raise DataError(f"class_names in {self.path} must be an array of text, not {names.dtype} {names.shape}")

    def __len__(self) -> int:
        return self._members["images"].shape[0]

    def name(self, index: int) -> str:
        """File name and number."""
        return f"{self.path.name}[{index}]"

    @override
    def load(self, index: int) -> AnyImage:
        return images.from_array(self._images[index], self.in_chans)

    @functools.cached_property
    def _images(self) -> NDArray[np.uint8]:
        member = self._members["images"]
        if member.offset is None:
            return self._array("images")
        order: Any = "F" if member.fortran_order else "C"
        try:
            return np.memmap(self.path, np.uint8, "r", member.offset, member.shape, order)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {self.path}: {error}") from None

    def _array(self, name: str) -> NDArray[Any]:
        try:
            return archives.read(self.path, name)
        except ValueError as error:
            raise DataError(f"cannot read {name} from {self.path}: {error}") from None

    @functools.cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """The array `labels`; see `Source.labels`. Raises DataError for labels that `class_names` does not name."""
        if "labels" not in self._members:
            return None
        return check_labels(self.path, self._array("labels").astype(np.int64), self.class_names)

    @override
    @property
    def no_labels(self) -> str:
        return "all its labels are -1" if "labels" in self._members else "it holds no array named labels"

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """The array `class_names`; see `Source.class_names`. Raises DataError when two are the same."""
        if "class_names" not in self._members:
            return None
        return check_names(self.path, self._array("class_names").tolist())

    @functools.cached_property
    def fingerprint(self) -> str:
        """Checksum over dtype, shape and CRC-32 (stored in the archive) of every array."""
        parts = [f"{name} {m.dtype.str} {m.shape} {m.fortran_order} {m.crc}" for name, m in self._members.items()]
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def _recognizes(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".npz"


def _splits(path: Path) -> dict[str, Path]:
    archives = {name: path / f"{name}.npz" for name in SPLIT_NAMES}
    return {name: archive for name, archive in archives.items() if archive.is_file()}


def _open(path: Path, in_chans: int, reading: Reading) -> Source:
    return NpzSource(path, in_chans)  # it holds no image files, so `reading` does not matter


KIND = SourceKind("a .npz file", "a .npz file", "an array labels in the .npz file", _recognizes, _splits, _open)
