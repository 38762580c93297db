"""Read tensors from published files: safetensors and frameworks' own files, whole or in shards."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import safetensors
from numpy.typing import NDArray

from pcae_core import registry
from pcae_core.errors import CheckpointError
from pcae_core.parameters import Arrays
from pcae_core.storage.manifest import read_json
from pcae_core.storage.tensors import load_safetensors

SAFETENSORS, INDEX = ".safetensors", ".index.json"
_ENDINGS = {".pt": ".pth", ".bin": ".pth", ".pth.tar": ".pth"}
"""Other suffixes in use -> suffix of the framework that reads such files."""
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of PyTorch's files, new and old. Lightning gives them the suffix `.ckpt`, as MindSpore does its own."""
_MOST_SHARDS = 1000
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip


class Index(pydantic.BaseModel):
    """A `*.index.json`: name of a tensor -> name of the file in the same folder that holds it."""

    model_config = pydantic.ConfigDict(extra="ignore")

    weight_map: dict[str, str]


def read_tensors(path: Path) -> Arrays:
    """Read all tensors of a file, or of the shards in an index. Half precision becomes float32.

    Raises:
        CheckpointError: the file or a shard cannot be read, or only by running code in it, or has an unknown suffix.
        MissingExtraError: the framework of the file is not installed.
    """
    if path.name.endswith(INDEX):
        return _read_shards(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    readers = registry.writers()
    ending = _ending(path)
    if ending not in readers:
        known = ", ".join([SAFETENSORS, *_ENDINGS, *readers])
        raise CheckpointError(f"{path} must end in one of {known} or {INDEX}, or be a folder, to be read")
    return registry.create(readers[ending]).load_weights(path)


def _ending(path: Path) -> str:
    for ending, standard in _ENDINGS.items():
        if path.name.endswith(ending):
            return standard
    if path.suffix == ".ckpt":
        with contextlib.suppress(OSError), path.open("rb") as file:
            start = file.read(len(_ZIP))
            return ".pth" if start == _ZIP or start.startswith(_PICKLE) else path.suffix
    return path.suffix


def _read_shards(path: Path) -> Arrays:
    ending = Path(path.name.removesuffix(INDEX)).suffix
    places = read_json(path, Index).weight_map
    names = sorted(set(places.values()))
    if len(names) > _MOST_SHARDS:
        raise CheckpointError(f"{path} names {len(names)} shards; more than {_MOST_SHARDS} are not read")
    for name in names:
        if not _is_plain(name) or Path(name).suffix != ending:
            raise CheckpointError(f"{path} names the shard {name!r}, which is no {ending} file of its folder")
        if not (path.parent / name).is_file():
            raise CheckpointError(f"{path} names the shard {name}, which is missing")
    tensors: Arrays = {}
    for shard in names:
        held = read_tensors(path.parent / shard)
        wanted = [name for name, place in places.items() if place == shard]
        lacking = [name for name in wanted if name not in held]
        if lacking:
            raise CheckpointError(f"{path.parent / shard} lacks {lacking[0]}, which {path.name} says that it holds")
        tensors |= {name: held[name] for name in wanted}
    return tensors


def _is_plain(name: str) -> bool:
    """Whether the name is that of a file in the folder itself, not of a path out of it."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0") and name.isprintable() and len(name) < 256


def _read_safetensors(path: Path) -> Arrays:
    if _fits_numpy(path):
        return {name: _widened(value) for name, value in load_safetensors(path).items()}
    deserialize: Any = safetensors.deserialize  # not typed
    tensors: Arrays = {}
    for name, entry in deserialize(path.read_bytes()):
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{path}: {name} is {entry['dtype']}, which NumPy cannot hold")
        values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        # the bits of bfloat16 are the upper half of float32's
        tensors[name] = (values.astype("<u4") << 16).view("<f4") if entry["dtype"] == "BF16" else _widened(values)
    return tensors


def _fits_numpy(path: Path) -> bool:
    """Whether NumPy has the dtypes of all tensors. True for a damaged file: reading it will raise the right error."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 # no mapping
    except (safetensors.SafetensorError, OSError):
        return True
    return types <= _DTYPES.keys() - {"BF16"}


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value
