"""Files and folders that are written whole or not at all.

They are written in the same folder as `.writing_NAME`, and then renamed. At every instant, a name holds the whole old
content or the whole new content. A killed process leaves `.writing_NAME` behind, and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".writing_"


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path for a file that replaces `path` when the block ends, and is removed when the block raises.

    Args:
        shared: several processes may write `path` at the same time. Each has its own temporary path, and the file of a
            killed process is not removed.

    Raises:
        OSError: a file cannot be written, here or in the block.
    """
    place = _beside(path, shared)
    place.unlink(missing_ok=True)
    try:
        yield place
        place.replace(path)
    finally:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """An empty folder that becomes `path` when the block ends, and is removed when the block raises.

    Args:
        path: must not exist, or be an empty folder.
        durable: whether all files are on the disk at the end, and survive a loss of power.
        shared: as in `whole_file`.

    Raises:
        OSError: a file cannot be written, here or in the block.
    """
    with temporary_folder(path, shared=shared) as place:
        yield place
        if durable:
            for written in (*place.rglob("*"), place):
                _sync(written)
        place.rename(path)
        if durable:
            _sync(path.parent)


@contextmanager
def temporary_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """An empty folder next to `path`, on the same disk, that is removed at the end. `shared` as in `whole_file`.

    Raises:
        OSError: the folder cannot be written.
    """
    place = _beside(path, shared)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _beside(path: Path, shared: bool) -> Path:
    """A temporary path with the suffix of `path`, which some writers look at."""
    own = f"{secrets.token_hex(4)}_" if shared else ""
    return path.with_name(f"{PREFIX}{own}{path.name}")


def _sync(path: Path) -> None:
    windows = os.name == "nt"
    if windows and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
