"""Hostile files read by the libraries below, without the project's guards.

They may refuse a file in any way. What they must not do is what a guard would be there for: the files are made so that
nobody's library takes much memory or time over them, or dies (docs/security.md).
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path

from fuzz import misbehaving, watch


def read(kind: str, folder: Path) -> None:
    """Each file in the folder as its library reads it; raises only where memory did not suffice."""
    _attempt(READERS[kind], folder)


def _files(folder: Path, **readers: Callable[[Path], object]) -> None:
    """By the reader that stands for a file's ending."""
    for place, _, names in os.walk(folder):
        for name in names:
            reader = readers.get(name.rpartition(".")[2])
            if reader is not None:
                _attempt(reader, Path(place) / name)


def _tensors(path: Path) -> object:
    from safetensors.numpy import load_file

    return load_file(path)


def _json(path: Path) -> object:
    return json.loads(path.read_bytes())


def _yaml(path: Path) -> object:
    import yaml

    return yaml.safe_load(path.read_bytes())


def _archive(path: Path) -> object:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: _attempt(archive.__getitem__, name) for name in archive.files}


def _attempt(call: Callable[..., object], *arguments: object) -> object:
    """What a call returns, or its error; memory that it cannot have is no way to refuse."""
    try:
        return call(*arguments)
    except MemoryError as error:
        if traceback.extract_tb(error.__traceback__)[-1].name != "parse":  # Python's parser says so of deep nesting
            raise
        return error
    except Exception as error:
        if watch.OUT_OF_MEMORY.search(str(error)):
            raise
        return error


def _torch(path: Path) -> object:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _mindspore(path: Path) -> object:
    import mindspore

    return mindspore.load_checkpoint(str(path))


def _picture(path: Path) -> object:
    from PIL import Image

    return Image.open(path).convert("RGBA")


def _model(path: Path) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(path, options)
    feeds = {"pixel_values": np.zeros((2, 1, 8, 8), np.float32), "keep": np.float32(0.7)}
    session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})


def _data_set(folder: Path) -> None:
    import datasets

    found = datasets.load_from_disk(str(folder / "it"))
    for row in range(len(found)):
        _attempt(found.__getitem__, row)


def _lines(path: Path) -> object:
    return [_attempt(json.loads, line) for line in path.read_bytes().split(b"\n")]


def _pictures(folder: Path) -> None:
    """As loaders of class folders do: along links, whatever is called an image."""
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            _attempt(_picture, Path(place) / name)


READERS: dict[str, Callable[[Path], None]] = {
    "checkpoint": lambda folder: _files(folder, safetensors=_tensors, json=_json),
    "encoder": lambda folder: _files(folder, safetensors=_tensors, json=_json),
    "timm": lambda folder: _files(folder, safetensors=_tensors),
    "huggingface": lambda folder: _files(folder, safetensors=_tensors, json=_json),
    "pth": lambda folder: _files(folder, pth=_torch),
    "weights-npz": lambda folder: _files(folder, npz=_archive),
    "yaml": lambda folder: _files(folder, yaml=_yaml),
    "onnx": lambda folder: _files(folder, onnx=_model),
    "images": _pictures,
    "npz": lambda folder: _files(folder, npz=_archive),
    "folders": _pictures,
    "arrow": _data_set,
    "metrics": lambda folder: _files(folder, jsonl=_lines),
    "misbehaving": misbehaving.unguarded,
    "ckpt": lambda folder: _files(folder, ckpt=_mindspore),
}
