"""The kinds of data sets that PCAE reads. A new kind is a module in this folder, and its name in `KINDS`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pcae_core.data.sources import huggingface, image_folder, npz
from pcae_core.data.sources.base import SourceKind

KINDS: Sequence[SourceKind] = (image_folder.KIND, huggingface.KIND, npz.KIND)
"""In the order of messages. The last that recognises a path opens it: any folder may be a folder of images."""


def recognized(path: Path) -> SourceKind | None:
    """The kind of the data set at a path; None where there is none."""
    return next((kind for kind in reversed(KINDS) if kind.recognizes(path)), None)


def find_splits(path: Path) -> dict[str, Path]:
    """The splits that a data set holds, by name; none when it is one whole."""
    return next(filter(None, (kind.splits(path) for kind in reversed(KINDS))), {})


def words(which: Literal["name", "container", "labels"], last: str = "or") -> str:
    """That attribute of every kind, for messages: "a folder of images, ... or a .npz file"."""
    return joined([getattr(kind, which) for kind in KINDS], last)


def joined(parts: Iterable[str], last: str = "or") -> str:
    """Without repetition, and with `last` before the last: "a, b or c"."""
    *first, end = dict.fromkeys(parts)
    return f"{', '.join(first)} {last} {end}" if first else end
