"""Other people's weights: safetensors, `.pth`, `.npz`, Hugging Face's folders; read as `pcae convert` does."""

from __future__ import annotations

import codecs
import io
import json
import os
import pickle
import pickletools
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from fuzz import archives, checkpoints, tensors
from fuzz.kind import Kind, choose
from fuzz.mutation import json_text, mutated
from pcae_core import parameters, pretrained
from pcae_core.convert import sources, targets
from pcae_core.convert.coverage import Coverage
from pcae_core.convert.metadata import ModelMetadata

WEIGHTS = {
    name: v for name, v in checkpoints._weights().items() if name in parameters.encoder_shapes(checkpoints.MODEL)
}


class Call:
    """What unpickling calls, if it may."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _doubled(times: int) -> Call:
    text = Call(codecs.encode, b"x" * 100, "hex")
    for _ in range(times):
        text = Call(codecs.encode, text, "hex")
    return text


def _itself() -> dict[str, object]:
    tree: dict[str, object] = {}
    tree["model"] = tree
    return tree


def _laughs(tree: object) -> object:
    for _ in range(8):
        tree = {"a": tree, "b": tree}
    return tree


GREEDY = {
    "bytearray": Call(bytearray, 1000),
    "tensor": Call(torch.Tensor, 250),
    "storage": Call(torch.UntypedStorage, 1000),
    "doubled": _doubled(3),
    "itself": _itself(),
    "laughs": _laughs({}),
}
"""Little that would make much of larger numbers."""


def pickled_into(data: bytes, program: bytes) -> bytes:
    """PyTorch's archive with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, program if info.filename.endswith("data.pkl") else old.read(info))
    return file.getvalue()


def _asks_for_more(data: bytes) -> bool:
    """Whether one of the pickles before the tensors asks for more bytes than there are."""
    file = io.BytesIO(data)
    try:
        for _ in range(5):
            for _ in pickletools.genops(file):
                pass
    except ValueError as error:
        return "remain" in str(error)
    return False


def _read(path: Path, metadata: ModelMetadata) -> None:
    found, coverage = sources.read(path, sources.Request(metadata=metadata, image_size=12))
    coverage.table()
    coverage.require_all()
    assert found.encoder


class _Files(Kind):
    name: str

    def good(self, folder: Path) -> None:
        (folder / self.name).write_bytes(self.data)

    def read(self, folder: Path) -> None:
        _read(folder / self.name, ModelMetadata(num_heads=2, decoder_num_heads=2))


class TimmFiles(_Files):
    name = "model.safetensors"

    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        save_file(WEIGHTS, samples / self.name)
        self.data = (samples / self.name).read_bytes()

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        data, what = tensors.hostile(rng, self.data)
        (folder / self.name).write_bytes(data)
        return what


class HuggingFaceFolders(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        config = pretrained.EncoderInfo(model=checkpoints.MODEL)
        targets.write(
            pretrained.Pretrained(samples, "a test", config, WEIGHTS, {}), samples / "hf", "hf", Coverage("a test")
        )

    def good(self, folder: Path) -> None:
        shutil.copytree(self.samples / "hf", folder / "hf")

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        self.good(folder)
        file = choose(rng, sorted((folder / "hf").iterdir()))
        if file.suffix == ".json":
            data, what = json_text(rng, json.loads(file.read_text())), "json"
        else:
            data, what = tensors.hostile(rng, file.read_bytes())
        file.write_bytes(data)
        return f"{file.name}: {what}"

    def read(self, folder: Path) -> None:
        _read(folder / "hf", ModelMetadata())


class TorchFiles(_Files):
    name = "model.pth"

    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        self.weights = {name: torch.from_numpy(value) for name, value in WEIGHTS.items()}
        self.data = self._saved(self.weights)
        self.legacy = self._saved(self.weights, _use_new_zipfile_serialization=False)

    @staticmethod
    def _saved(tree: object, **options: object) -> bytes:
        file = io.BytesIO()
        torch.save(tree, file, **options)
        return file.getvalue()

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        what = choose(rng, ("bytes", "legacy", "members", "odd", "pickle", "greedy"))
        if what == "bytes":
            data = mutated(rng, self.data)
        elif what == "legacy":
            data = self._legacy(rng) if rng.random() < 0.9 else self.legacy
        elif what == "members":
            data = archives.rebuilt(rng, self.data)
        elif what == "odd":
            data = self._saved(self._odd(rng))
        elif what == "greedy":
            data = pickled_into(self.data, pickle.dumps({"model": choose(rng, list(GREEDY.values()))}, 2))
        else:
            data = self._pickles(rng)
        (folder / self.name).write_bytes(data)
        return what

    def _legacy(self, rng: np.random.Generator) -> bytes:
        while True:
            data = mutated(rng, self.legacy)
            if not _asks_for_more(data):
                return data

    def _odd(self, rng: np.random.Generator) -> object:
        """A tree that torch itself takes."""
        name, tensor = choose(rng, list(self.weights.items()))
        deep: object = tensor
        for _ in range(int(choose(rng, (3, 100)))):
            deep = {"model": deep}
        values = (
            tensor.to_sparse(), tensor.to(torch.complex64), tensor.to(torch.bfloat16), tensor.to(torch.int32),
            tensor.bool(), tensor.to(torch.float8_e4m3fn), tensor.to("meta"), tensor.double(), None, 3, "x", [tensor],
            torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), tensor.expand(3, *tensor.shape), tensor[:0],
            torch.zeros(1).expand(100, 100), tensor.t() if tensor.ndim == 2 else tensor, deep, float("nan"),
        )  # fmt: skip
        value = choose(rng, values)
        key = choose(rng, (3, "", None, (1, 2), "../x", "blocks.99999999999.norm1.weight"))
        weights = self.weights
        return choose(
            rng,
            (weights | {name: value}, value, {"model": weights, "x": value}, weights | {key: tensor}, [weights], {}),
        )

    def _pickles(self, rng: np.random.Generator) -> bytes:
        """Programs, bare and as torch's archive."""
        protocol = int(rng.integers(0, 6))
        command = Call(os.mkdir, "escaped")  # what must not run
        harm = pickle.dumps(choose(rng, (command, {"model": command}, [command])), protocol)
        return harm if rng.random() < 0.5 else pickled_into(self.data, harm)


class NumpyFiles(_Files):
    name = "model.npz"

    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        archives.lower_the_limit()
        file = io.BytesIO()
        np.savez(file, **WEIGHTS)
        self.data = file.getvalue()

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        data, what = archives.hostile(rng, self.data, choose(rng, list(WEIGHTS)))
        (folder / self.name).write_bytes(data)
        return what
