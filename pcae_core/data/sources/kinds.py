"""The kinds of data sets that PCAE reads. To add one, write a module in this folder and list its kind in `KINDS`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pcae_core.data.sources import huggingface, image_folder, npz
from pcae_core.data.sources.base import SourceKind

KINDS: Sequence[SourceKind] = (image_folder.KIND, huggingface.KIND, npz.KIND)
"""All kinds, in the order in which messages list them.

Kinds are asked from last to first whether they recognise a path. The folder of images is asked last, because any folder
may be one.
"""


def recognized(path: Path) -> SourceKind | None:
    """The kind of the data set at a path; None if no kind recognises it."""
    return next((kind for kind in reversed(KINDS) if kind.recognizes(path)), None)


def find_splits(path: Path) -> dict[str, Path]:
    """The splits of a data set: name -> path, empty if it has no splits."""
    return next(filter(None, (kind.splits(path) for kind in reversed(KINDS))), {})


def words(which: Literal["name", "container", "labels"], last: str = "or") -> str:
    """One attribute of every kind, joined for messages: "a folder of images, ... or a .npz file"."""
    return joined([getattr(kind, which) for kind in KINDS], last)


def joined(parts: Iterable[str], last: str = "or") -> str:
    """Join parts without repetition, with `last` before the last one: "a, b or c"."""
    *first, end = dict.fromkeys(parts)
    return f"{', '.join(first)} {last} {end}" if first else end
