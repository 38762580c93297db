"""Checkpoints and encoders' folders: their safetensors, their manifests, and what the manifests say of the files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from fuzz import tensors
from fuzz.kind import Kind, choose
from fuzz.mutation import json_text, mutated
from pcae_core import checkpoint, parameters, pretrained, registry
from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.contract import TrainState
from pcae_core.storage.stored_encoder import StoredEncoder

MODEL = ModelConfig(
    image_size=8, patch_size=2, embed_dim=8, depth=2, num_heads=2, in_chans=1, num_classes=0, mask_ratio=0.5,
    decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2, reduction={"num_stages": 2},
)  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)


class _Folders(Kind):
    manifest: str

    def good(self, folder: Path) -> None:
        shutil.copytree(self._sample, folder / "it")

    @property
    def _sample(self) -> Path:
        return self.samples / "it"

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        self.good(folder)
        it = folder / "it"
        if rng.random() < 0.4:
            text = (it / self.manifest).read_bytes()
            wrong = json_text(rng, json.loads(text)) if rng.random() < 0.8 else mutated(rng, text)
            (it / self.manifest).write_bytes(wrong)
            return "manifest"
        file = choose(rng, sorted(it.glob("*.safetensors")))
        if rng.random() < 0.05:
            file.unlink()
            choose(rng, (file.mkdir, lambda: file.symlink_to(file), lambda: file.symlink_to(os.devnull)))()
            return f"{file.name} is no file"
        data, what = tensors.hostile(rng, file.read_bytes())
        file.write_bytes(data)
        if rng.random() < 0.9:
            self._describe(it, file.name, data)
        return f"{file.name}: {what}"

    def _describe(self, it: Path, name: str, data: bytes) -> None:
        """In the manifest, as who changes the file could."""
        manifest = json.loads((it / self.manifest).read_text())
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (it / self.manifest).write_text(json.dumps(manifest))


def _weights() -> dict[str, np.ndarray]:
    return parameters.initial_parameters(MODEL, seed=0)


class Checkpoints(_Folders):
    """A run's checkpoint, read whole and tensor by tensor."""

    manifest = checkpoint.MANIFEST

    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        student = _weights()
        teacher = {name: student[name] for name in parameters.encoder_shapes(MODEL)}
        moments = {name: np.zeros_like(v) for name, v in student.items() if parameters.is_trainable(name)}
        data = checkpoint.DataPosition(fingerprint="abc", num_samples=10, samples_seen=0)
        state = TrainState(student, teacher, moments, moments, 3, (128.0, 3))
        checkpoint.save(samples, state, PretrainConfig(model=MODEL), data, {"loss_ratio": 0.5}, {}).rename(self._sample)

    def read(self, folder: Path) -> None:
        checkpoint.load(folder / "it")
        dict(StoredEncoder(folder / "it"))


class Encoders(_Folders):
    """An encoder's folder, read and used."""

    manifest = pretrained.MANIFEST

    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        weights = _weights()
        encoder = {name: weights.pop(name) for name in parameters.encoder_shapes(MODEL)}
        decoder = {name: weights[name] for name in parameters.decoder_shapes(MODEL)}
        pretrained.save(self._sample, pretrained.EncoderInfo(model=MODEL), encoder, decoder, "a test")

    def read(self, folder: Path) -> None:
        dict(StoredEncoder(folder / "it"))
        found = pretrained.load(folder / "it")
        if found.config.model.image_size == MODEL.image_size:
            with np.errstate(all="ignore"):
                registry.create("numpy").encode(found.config.model, found.encoder, IMAGES, 0.7)
