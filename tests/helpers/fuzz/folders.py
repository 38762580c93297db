"""Folders of classes: odd names, links that lead round, things that are no files."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.kind import Kind, choose
from pcae_core.data import open_source

_NAMES = tuple(map(os.fsdecode, (
    b"a b", b"-rf", b"a\nb", b"\xff\xfe", b"%s%n", b"$(touch escaped)", b"\xe2\x80\xae", b"..x", b".hidden", b"x" * 255,
    b"'", b'"', b"<script>", b"a\tb", b"train", b"test", b"val", b"a.jpg", b"caf\xc3\xa9", b"cafe\xcc\x81", b"*", b"\\",
    b"\x1b[2J", b"~", b"CON",
)))  # fmt: skip


class Folders(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        Image.new("RGB", (9, 7), "red").save(samples / "a.png")

    def good(self, folder: Path) -> None:
        for name in ("one", "two"):
            (folder / "data" / name).mkdir(parents=True)
            shutil.copy(self.samples / "a.png", folder / "data" / name / "a.png")

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        self.good(folder)
        done = []
        for _ in range(int(rng.integers(1, 6))):
            change = choose(rng, (_named, _named, _link, _thing, _deep, _odd_split))
            change(rng, folder / "data", self.samples / "a.png")
            done.append(change.__name__.strip("_"))
        return ", ".join(done)

    def read(self, folder: Path) -> None:
        source = open_source(folder / "data", 3)
        assert source.fingerprint
        assert source.labels is None or len(source.labels) == len(source)
        for index in range(min(len(source), 20)):
            source.name(index)
            source.load(index)


def _within(rng: np.random.Generator, data: Path) -> Path:
    """A folder in the data set."""
    return choose(rng, [Path(folder) for folder, _, _ in os.walk(data) if len(folder) < 2000])


def _named(rng: np.random.Generator, data: Path, image: Path) -> None:
    place = _within(rng, data) / choose(rng, _NAMES)
    if not os.path.lexists(place):
        place.mkdir()
    if place.is_dir() and rng.random() < 0.8:
        shutil.copy(image, place / (choose(rng, _NAMES)[:200] + choose(rng, (".png", ".PNG", ".jpg", ".png.txt"))))


def _link(rng: np.random.Generator, data: Path, image: Path) -> None:
    place = _within(rng, data) / f"link{rng.integers(100)}{choose(rng, ('', '.png'))}"
    target = choose(rng, (".", "..", "link", data, "nowhere.png", os.devnull, "/proc/self/mem", place, data / "one"))
    if not os.path.lexists(place) and not (target == ".." and place.parent == data):
        place.symlink_to(target)
    folders = [path for path in data.rglob("link*") if path.is_symlink() and path.is_dir()]
    if len(folders) > 1:  # one link is enough to lead round
        place.unlink()


def _thing(rng: np.random.Generator, data: Path, image: Path) -> None:
    """A device, a socket, a folder or an empty file that is called an image."""
    place = _within(rng, data) / f"thing{rng.integers(100)}.png"
    if os.path.lexists(place):
        return
    what = choose(rng, ("device", "socket", "folder", "empty"))
    if what == "device":
        place.symlink_to(os.devnull)
    elif what == "socket" and len(str(place)) < 100:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(place))
    elif what == "folder":
        place.mkdir()
    else:
        place.touch()


def _deep(rng: np.random.Generator, data: Path, image: Path) -> None:
    """Nested deeply in long names."""
    place = data.joinpath(*["d" * 200] * int(rng.integers(1, 12)))
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(image, place / "deep.png")


def _odd_split(rng: np.random.Generator, data: Path, image: Path) -> None:
    """What makes a folder look like splits, or like a data set of Hugging Face's."""
    place = data / choose(rng, ("train.npz", "test.npz", "dataset_dict.json", "val", "train"))
    if not os.path.lexists(place):
        choose(rng, (place.mkdir, lambda: place.write_bytes(b"{}")))()
