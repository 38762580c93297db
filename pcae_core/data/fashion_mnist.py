"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; MIT licence) as `train.npz` and `test.npz`.

The four files come from the user, from Debian's archive, or from the authors' address.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import subprocess  # nosec B404 # for its exceptions
import tempfile
import urllib.request
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core.data import fetching
from pcae_core.data.fetching import checksum
from pcae_core.errors import DataError

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# SHA-256 of the files' content without compression: Debian compresses it anew, so the .gz files differ.
CHECKSUMS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
DEBIAN_PACKAGE = "dataset-fashion-mnist"

_SPLITS = {"train": "train", "test": "t10k"}


def fetch(directory: Path, files: Iterable[Path] | None = None) -> None:
    """Write `train.npz` and `test.npz` (images, labels, class_names) into `directory`, unless they are there already.

    Args:
        files: the four .gz files, compressed or not, under any names. None: they are fetched.

    Raises:
        DataError: the files cannot be fetched, are the wrong ones, or cannot be written; or `directory` holds another
            data set.
    """
    if all(_is_verified(directory / f"{split}.npz", prefix) for split, prefix in _SPLITS.items()):
        return
    fetching.refuse_others(directory, CLASS_NAMES)
    contents = _recognise(files) if files is not None else _fetch()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for split, prefix in _SPLITS.items():
            images, labels = (_parse_idx(contents[name]) for name in _names(prefix))
            fetching.save_split(directory / f"{split}.npz", images, labels.astype(np.int64), CLASS_NAMES)
    except OSError as error:
        raise DataError(f"cannot write Fashion-MNIST to {directory}: {error}") from None


def _names(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _decompress(content: bytes) -> bytes:
    """Decompress a .gz file; return anything else unchanged. Raises ValueError when a .gz file is damaged."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged .gz file: {error}") from None


def _recognise(files: Iterable[Path]) -> dict[str, bytes]:
    """Content of the four files by their original names."""
    return fetching.recognise(
        files,
        CHECKSUMS,
        stranger="is not one of Fashion-MNIST's files",
        missing="of Fashion-MNIST's four files {} are missing; hand over all four",
        unpack=_decompress,
    )


def _fetch() -> dict[str, bytes]:
    problems = []
    for get in (_from_debian, _from_url):
        try:
            contents = get()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            problems.append(fetching.one_line(error))
        else:
            return _verified(contents)
    raise DataError(
        f"cannot fetch Fashion-MNIST ({'; '.join(problems)}); get its four .gz files from {URL} on another machine and "
        "hand them over: pcae data fashion-mnist DIR --files A.gz B.gz C.gz D.gz"
    )


def _verified(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    for name, expected in CHECKSUMS.items():
        found = checksum(contents[name])
        if found != expected:
            raise DataError(f"{name} is damaged: its SHA-256 is {found} instead of {expected}; fetch it again")
    return dict(contents)


def _from_debian() -> dict[str, bytes]:
    """Content of the files in Debian's or Ubuntu's package, which is unpacked, not installed: this needs no root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = _download_package(folder)
        fetching.run(["dpkg-deb", "-x", str(package), "unpacked"], folder)
        return {
            name: _decompress((folder / "unpacked/usr/share/datasets/fashion-mnist" / f"{name}.gz").read_bytes())
            for name in CHECKSUMS
        }


def _download_package(folder: Path) -> Path:
    """Download the package to `folder`, which only this user can read. Fetch new package lists if that fails."""
    # As root, apt would switch to a user who cannot write to `folder`.
    options = ["-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30"]
    download = ["download", DEBIAN_PACKAGE]
    try:
        fetching.run(["apt-get", *options, *download], folder)
    except subprocess.SubprocessError:
        for kind in ("State", "State::Lists", "Cache"):
            own = folder / kind.replace("::", "-")
            (own / "partial").mkdir(parents=True)
            options += ["-o", f"Dir::{kind}={own}"]
        # The update fails when one of several repositories fails. The download shows whether that matters.
        with contextlib.suppress(subprocess.SubprocessError):
            fetching.run(["apt-get", *options, "update"], folder)
        fetching.run(["apt-get", *options, *download], folder)
    packages = list(folder.glob("*.deb"))
    if not packages:
        raise ValueError("apt-get downloaded nothing")
    return packages[0]


def _from_url() -> dict[str, bytes]:
    contents = {}
    for name in CHECKSUMS:
        address = f"{URL}{name}.gz"
        try:
            with urllib.request.urlopen(address, timeout=60) as response:  # nosec B310 # of URL, our constant
                contents[name] = _decompress(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{address}: {error}") from None
    return contents


def _parse_idx(content: bytes) -> NDArray[np.uint8]:
    """Parse the idx format: two zeros, type (8: uint8), number of dimensions, big-endian sizes, values."""
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError("not an idx file of bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _to_idx(values: NDArray[np.uint8]) -> bytes:
    return b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def _is_verified(path: Path, prefix: str) -> bool:
    """Whether the file exists and holds exactly the content of Fashion-MNIST's files."""
    arrays = fetching.load_split(path, CLASS_NAMES)
    if arrays is None:
        return False
    found = [checksum(_to_idx(values.astype(np.uint8))) for values in arrays]
    return found == [CHECKSUMS[name] for name in _names(prefix)]
