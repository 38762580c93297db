"""Read and write arrays in safetensors files, and check that they are those of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pcae_core.errors import CheckpointError
from pcae_core.parameters import Arrays, Shapes


def save_safetensors(path: Path, arrays: Arrays) -> None:
    """Write one file. Raises OSError."""
    contiguous = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})  # other libraries require this note
    except SafetensorError as error:  # the library raises it for a full disk
        raise OSError(str(error)) from None


def load_safetensors(file: Path) -> Arrays:
    """All arrays of a file. Raises CheckpointError when it is damaged, or NumPy lacks the dtype of a tensor."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:  # the last: "no float8_e4m3fn"
        raise CheckpointError(f"{file} is not a safetensors file that NumPy can hold: {error}") from None


def check_tensors(source: Path, tensors: Arrays, expected: Shapes) -> None:
    """Raise CheckpointError, with all differences, unless names and shapes are as expected and dtypes floating."""
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"surplus {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tensors[name].shape} instead of {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems += [f"{name} is {value.dtype}" for name, value in tensors.items() if value.dtype.kind != "f"]
    if problems:
        raise CheckpointError(f"{source} does not fit the model: {'; '.join(problems)}")
