"""Files and folders that are written whole or not at all.

They are written beside their place, as `.writing_NAME`, and renamed. At every instant, a name holds what was there
before or all that is new. A process that is killed leaves `.writing_NAME` behind, and the next writer removes it.
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
    """A place for a file that replaces `path` when the block ends well, and is removed when it does not.

    Args:
        shared: several processes may write `path` at a time. Each writes to a place of its own, and what a killed one
            leaves is not removed.

    Raises:
        OSError: the disk refuses, here or in the block.
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
    """An empty folder that becomes `path` when the block ends well, and is removed when it does not.

    Args:
        path: must not exist, or be an empty folder.
        durable: all of it is on the disk when this ends, also if the machine then loses its power.
        shared: as in `whole_file`.

    Raises:
        OSError: the disk refuses, here or in the block.
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
    """An empty folder beside `path`, on the same disk, that is removed at the end; `shared` as in `whole_file`.

    Raises:
        OSError: the disk refuses.
    """
    place = _beside(path, shared)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _beside(path: Path, shared: bool) -> Path:
    """The name ends as that of `path`: some writers look at its suffix."""
    own = f"{secrets.token_hex(4)}_" if shared else ""
    return path.with_name(f"{PREFIX}{own}{path.name}")


def _sync(path: Path) -> None:
    windows = os.name == "nt"
    if windows and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
