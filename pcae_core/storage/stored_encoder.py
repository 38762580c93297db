"""Read the encoder in a checkpoint tensor by tensor, so that a large model is not in memory several times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pcae_core.config import EncoderName
from pcae_core.errors import CheckpointError
from pcae_core.parameters import encoder_shapes
from pcae_core.storage import checkpoint, pretrained
from pcae_core.storage.manifest import verified_file
from pcae_core.storage.pretrained import EncoderInfo
from pcae_core.storage.run import Run

_FLOATING = ("F16", "F32", "F64")


class StoredEncoder(Mapping[str, NDArray[np.floating[Any]]]):
    """Parameters of an encoder by canonical name. Each access reads one from the disk.

    Attributes:
        path: folder of the checkpoint or the encoder.
        config: settings that features depend on, besides the weights.
        step, encoder: step and name of the encoder in a run; None for an encoder folder.
    """

    def __init__(self, path: Path | Run, encoder: EncoderName | None = None) -> None:
        """Open `path` as `pretrained.load` does, and check its tensors.

        Raises:
            CheckpointError: a file is missing, truncated or changed, or tensors are missing or have a wrong shape; the
                text lists them.
        """
        self.path, self.config, self._file, self.step, self.encoder = _described(path, encoder)
        self._shapes = encoder_shapes(self.config.model)
        try:
            with safe_open(self._file, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                found = {name: tuple(part.get_shape()) for name, part in slices.items()}
                dtypes = {name: part.get_dtype() for name, part in slices.items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self._file} is not a safetensors file: {error}") from None
        problems = [
            f"{name} has shape {found.get(name)} instead of {shape}"
            for name, shape in self._shapes.items()
            if found.get(name) != shape
        ]
        problems += [f"{name} is {dtype}" for name, dtype in dtypes.items() if dtype not in _FLOATING]
        if problems:
            raise CheckpointError(f"{self._file} does not fit the model: {'; '.join(problems)}")

    def __getitem__(self, name: str) -> NDArray[np.floating[Any]]:
        if name not in self._shapes:
            raise KeyError(name)
        # Open the file each time: an open file stays mapped, and its pages stay in memory
        with safe_open(self._file, framework="numpy") as tensors:
            tensor: NDArray[np.floating[Any]] = tensors.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _described(
    path: Path | Run, encoder: EncoderName | None
) -> tuple[Path, EncoderInfo, Path, int | None, EncoderName | None]:
    """Folder of the checkpoint or encoder, settings, verified file of tensors, step, and name of the encoder."""
    if isinstance(path, Path) and pretrained.is_encoder(path):
        pretrained.refuse_choice(path, encoder)
        alone = pretrained.read_manifest(path)
        return path, alone.config, verified_file(path, alone.files, pretrained.ENCODER), None, None
    run = Run.open(path)
    path = run.default
    manifest = run.manifest_of(path)
    if manifest.format != checkpoint.FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {manifest.format}, not {checkpoint.FORMAT}")
    chosen = pretrained.encoder_of(manifest.config, encoder, path)
    file = verified_file(path, manifest.files, f"{chosen}.safetensors")
    return path, pretrained.config_of(manifest.config), file, manifest.step, chosen
