"""Export into a folder so that its former model stays complete until all of the new model is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from pcae_core.errors import ModelFileError
from pcae_core.storage import atomic
from pcae_onnx import guard

MODEL_FILE = "model.onnx"


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder`, which is created if missing. It is always removed at the end.

    Raises:
        ModelFileError: a file cannot be written, here or in the block.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.temporary_folder(folder / MODEL_FILE) as staged:
            yield staged
    except OSError as error:
        raise ModelFileError(f"cannot write to {folder}: {error.strerror or error}") from None


def publish(staged: Path, folder: Path) -> None:
    """Move `staged/model.onnx`, its weights and JSON files into `folder`. Raises OSError.

    The new weights are moved first, under a unique name, and the former ones are removed last. So at any interruption,
    `folder/model.onnx` still has its own weights.
    """
    model = staged / MODEL_FILE
    _name_by_content(model)
    data = data_files(model)
    for file in (*data, model, *staged.glob("*.json")):
        file.replace(folder / file.name)
    for file in data_files(folder / MODEL_FILE):
        if file.name not in {new.name for new in data}:
            file.unlink()


def data_files(model: Path) -> list[Path]:
    """The external weights of a published model: one file, or none."""
    return list(model.parent.glob(f"{model.name}.{'[0-9a-f]' * 8}.data"))


def _name_by_content(path: Path) -> None:
    data = path.with_name(f"{path.name}.data")
    if not data.exists():
        return
    with data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    named = data.rename(path.with_name(f"{path.name}.{digest[:8]}.data"))
    model = onnx.load(path, load_external_data=False)
    for tensor in guard.tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = named.name
    onnx.save(model, path)
