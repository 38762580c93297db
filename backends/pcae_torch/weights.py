"""Read plain tensors from PyTorch files of any origin, in time and memory that are bounded by the file's size.

`weights_only=True` keeps torch.load from running programs. It does not limit the size that a file unpacks to, nor the
size of the objects that some allowed calls return (PyTorch 2.13).
"""

from __future__ import annotations

import io
import pickle  # nosec B403 # for the name of its error; torch.load has weights_only=True
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pcae_core.errors import CheckpointError

_ZIP = b"PK\x03\x04"
_CALLS = re.compile(rb"\n(bytearray|encode|\w*Tensor)\n")
"""Names, as a pickle writes them, of calls that can expand in memory."""
_TIMES = 4
"""Tensors may share numbers, but all together may be at most this many times the size of the file."""
_LONGEST_NAME = 1000
_ADVICE = "where you trust it, load it with PyTorch itself and save its tensors alone"


def load(path: Path) -> dict[str, Tensor]:
    """The tensors in the nested dictionaries of a file, by keys joined by dots.

    Raises:
        CheckpointError: the file is damaged, needs to run code, is compressed, or holds tensors that are not plain.
    """
    try:
        stored = torch.load(_checked(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is not a file of plain tensors: reading it could run code that is in it, which is refused; "
            f"{_ADVICE}"
        ) from None
    except CheckpointError:
        raise
    except Exception as error:  # the reader raises many kinds of errors for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a PyTorch file, or damaged: {reason}") from None
    found = _flat(path, stored)
    for name, value in found.items():
        if not _is_plain(value):
            kind = f"{value.layout} {value.dtype} {tuple(value.shape)} on {value.device}"
            raise CheckpointError(f"{path}: {name} ({kind}) is not a plain tensor whose numbers are all in the file")
    amount, size = sum(value.nbytes for value in found.values()), path.stat().st_size
    if amount > _TIMES * size:
        raise CheckpointError(f"{path} has {size} bytes, and claims to hold tensors of {amount}")
    return found


def _checked(path: Path) -> Path | io.BytesIO:
    """The file, or its content, after a check that it is not compressed and calls nothing that expands in memory.

    Raises:
        CheckpointError: it calls a function that may take any amount of memory.
        OSError, RuntimeError, ValueError: it cannot be read, or is compressed.
    """
    with path.open("rb") as file:
        packed = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        content = b"" if packed else file.read()
    if packed:
        reader = torch._C.PyTorchFileReader(str(path))
        unpacked, size = sum(map(reader.get_record_size, reader.get_all_records())), path.stat().st_size
        if unpacked > size:
            raise ValueError(f"it unpacks from {size} to {unpacked} bytes, though PyTorch packs nothing")
        content = reader.get_record("data.pkl")
    call = _CALLS.search(content)
    if call is not None:
        raise CheckpointError(
            f"{path} is not a file of plain tensors: it calls {call[1].decode()}, which may take any memory and which "
            f"NumPy's values need, but tensors do not; {_ADVICE}"
        )
    # Read an old file from memory: reading from disk, Python allocates as much as the file asks for
    return path if packed else io.BytesIO(content)


def _flat(path: Path, stored: object) -> dict[str, Tensor]:
    """Flatten nested dictionaries. Each is visited once, although it may occur in several places or in itself."""
    found: dict[str, Tensor] = {}
    seen, left = set(), [("", stored)]
    while left:
        name, value = left.pop()
        if len(name) > _LONGEST_NAME:
            raise CheckpointError(f"{path} has a name of more than {_LONGEST_NAME} characters: {name[:50]}...")
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            left += reversed([(f"{name}.{key}" if name else str(key), inner) for key, inner in value.items()])
    return found


def _is_plain(value: Tensor) -> bool:
    """Whether NumPy can hold the tensor, and the file holds all its numbers: a view may repeat one endlessly."""
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    known = value.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16) or not (
        value.dtype.is_floating_point or value.dtype.is_complex
    )
    return known and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
