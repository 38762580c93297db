"""Emoji of Google and Twitter in nine categories: 64 px with transparency, in folders train, val and test.

The images and categories come from two npm packages of the project emoji-data. The packages hold each image in a file
of its own and on sheets. The single files need no cutting, and their names are the code points. Variants in other skin
tones are left out: they are three fifths of all images, nearly alike, and in one category. Emoji that have the same
image as another one are left out too, such as the flags of Norway and Svalbard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcae_core.data import fetching
from pcae_core.errors import DataError
from pcae_core.storage import atomic

VERSION = "16.0.0"

# SHA-256 of the packages' .tgz files by vendor.
CHECKSUMS = {
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
}

# SHA-256 of the files that `fetch` writes, see `_content_checksum`.
CONTENT_CHECKSUM = "73cfcc7c0098a9885cf0b25d804329c26e663778140a0e5b2eefe759dae63fc1"

# The category "Component" is left out: it holds the five skin tones.
CLASS_NAMES = {
    "Activities": "activities",
    "Animals & Nature": "animals-nature",
    "Flags": "flags",
    "Food & Drink": "food-drink",
    "Objects": "objects",
    "People & Body": "people-body",
    "Smileys & Emotion": "smileys-emotion",
    "Symbols": "symbols",
    "Travel & Places": "travel-places",
}

ATTRIBUTION = f"""\
The files *_google.png are Noto Emoji. Copyright Google LLC. Licensed under the Apache License, Version 2.0:
https://www.apache.org/licenses/LICENSE-2.0

The files *_twitter.png are Twemoji. Copyright Twitter, Inc and other contributors. Licensed under CC-BY 4.0:
https://creativecommons.org/licenses/by/4.0/

They are unchanged from the npm packages emoji-datasource-google and emoji-datasource-twitter {VERSION} of emoji-data
(Copyright (c) 2013 Cal Henderson, MIT licence, https://github.com/iamcal/emoji-data), sorted into folders by category
and split into train, val and test by emoji.
"""


@dataclass(frozen=True)
class _Package:
    """A vendor's package: the records of all emoji in emoji.json, and the 64 px images by file name."""

    records: list[dict[str, Any]]
    pictures: dict[str, bytes]


def fetch(directory: Path, files: Iterable[Path] | None = None) -> None:
    """Write train, val and test, each with a folder per category, into `directory`, unless they are there already.

    The two images of an emoji are in the same split. The splits hold about 70%, 10% and 20% of the emoji.

    Args:
        files: the .tgz files of the two packages, under any names. None: npm fetches them.

    Raises:
        DataError: the packages cannot be fetched or are the wrong ones, or `directory` holds something else or cannot
            be written.
    """
    directory = directory.resolve()
    try:
        if _is_complete(directory):
            return
        checksums = dict(zip(_specs(), CHECKSUMS.values(), strict=True))
        archives = fetching.npm_packages(files, checksums, name="emoji", title="the emoji")
        packages = {vendor: _read(vendor, archives[spec]) for vendor, spec in zip(CHECKSUMS, archives, strict=True)}
        _write(directory, dict(_layout(packages)))
    except OSError as error:
        raise DataError(f"cannot write the emoji to {directory}: {error}") from None


def split_of(unified: str) -> str:
    """The split of an emoji, which depends only on its code points, such as "1F1E9-1F1EA"."""
    share = int.from_bytes(hashlib.sha256(unified.encode()).digest()[:8], "big") / 2**64
    return "test" if share < 0.2 else "val" if share < 0.3 else "train"


def _is_complete(directory: Path) -> bool:
    """Whether the folder holds the whole data set; False if it is missing or empty."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not directory.is_dir() or _content_checksum(directory) != CONTENT_CHECKSUM:
        raise DataError(f"{directory} holds something else, or the emoji are damaged; remove it or name another folder")
    return True


def _content_checksum(directory: Path) -> str:
    """Checksum over the name and the content of every image."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*/*/*.png")):
        content = fetching.checksum(path.read_bytes())
        digest.update(f"{content}  {path.relative_to(directory).as_posix()}\n".encode())
    return digest.hexdigest()


def _specs() -> list[str]:
    return [f"emoji-datasource-{vendor}@{VERSION}" for vendor in CHECKSUMS]


def _read(vendor: str, archive: bytes) -> _Package:
    files = fetching.members(archive, rf"package/(emoji\.json|img/{vendor}/64/[0-9a-f-]+\.png)")
    records = json.loads(files.pop("package/emoji.json"))
    return _Package(records, {name.rpartition("/")[2]: content for name, content in files.items()})


def _layout(packages: Mapping[str, _Package]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file to write. Both packages have the same records."""
    yield "ATTRIBUTION.txt", ATTRIBUTION.encode()
    seen: set[bytes] = set()
    records = next(iter(packages.values())).records
    for record in sorted(records, key=lambda record: record["sort_order"]):
        drawn = {vendor: package.pictures.get(record["image"]) for vendor, package in packages.items()}
        contents = {vendor: content for vendor, content in drawn.items() if content is not None}
        if record["category"] in CLASS_NAMES and seen.isdisjoint(contents.values()):
            folder = f"{split_of(record['unified'])}/{CLASS_NAMES[record['category']]}"
            for vendor, content in contents.items():
                yield f"{folder}/{Path(record['image']).stem}_{vendor}.png", content
        seen.update(contents.values())


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write all files at once: another process never sees a part of them."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with atomic.whole_folder(directory, shared=True) as writing:
        for name, content in files.items():
            path = writing / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
