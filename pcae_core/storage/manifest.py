"""Manifests: the JSON file that describes a folder, with the size and the hash of every file of tensors."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydantic

import pcae_core
from pcae_core.config import Config
from pcae_core.errors import CheckpointError, describe_validation_error
from pcae_core.parameters import Arrays
from pcae_core.storage.tensors import load_safetensors, save_safetensors

M = TypeVar("M", bound=pydantic.BaseModel)

_LARGEST_JSON = 2**26
_EARLIER = "use an earlier checkpoint; a run continues from it once this one is deleted"


class FileEntry(Config):
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str


def versions() -> dict[str, str]:
    """Versions of PCAE, Python and NumPy."""
    return {"pcae": pcae_core.__version__, "python": platform.python_version(), "numpy": np.__version__}


def write_tensors(folder: Path, files: Mapping[str, Arrays]) -> dict[str, FileEntry]:
    """Write arrays as safetensors files, and return their entries. Raises OSError."""
    entries = {}
    for name, arrays in files.items():
        path = folder / name
        save_safetensors(path, arrays)
        entries[name] = FileEntry(size=path.stat().st_size, sha256=_sha256(path))
    return entries


def write_manifest(path: Path, manifest: Config) -> None:
    """Write a manifest as JSON. Raises OSError."""
    path.write_text(json.dumps(manifest.to_dict(), indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, kind: type[M]) -> M:
    """Parse a JSON file to a pydantic model. Raises CheckpointError when it is damaged, too large or something else."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(f"{path} is larger than {_LARGEST_JSON >> 20} MiB, so no file of settings")
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except pydantic.ValidationError as error:
        problem = describe_validation_error(error)
    except (OSError, UnicodeDecodeError) as error:
        problem = str(error)
    raise CheckpointError(f"{path} cannot be read: {problem}")


def read_tensors(path: Path, files: Mapping[str, FileEntry], name: str) -> Arrays:
    """The arrays of one file in a folder, checked against the entries of its manifest.

    Raises:
        CheckpointError: the file is missing, truncated or changed.
    """
    return load_safetensors(verified_file(path, files, name))


def verified_file(path: Path, files: Mapping[str, FileEntry], name: str) -> Path:
    """Path of the file `name` in the folder `path`. Raises CheckpointError unless size and SHA-256 match `files`."""
    entry, file = files.get(name), path / name
    if entry is None or not file.is_file():
        raise CheckpointError(f"the checkpoint {path} lacks {name}; {_EARLIER}")
    size = file.stat().st_size
    if size != entry.size:
        raise CheckpointError(f"{file} is truncated or changed: {size} bytes instead of {entry.size}; {_EARLIER}")
    if _sha256(file) != entry.sha256:
        raise CheckpointError(f"{file} is damaged: its SHA-256 differs from the manifest's; {_EARLIER}")
    return file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
