"""The encoder in a checkpoint, read tensor by tensor: a large model need not fit into memory several times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pcae_core import checkpoint
from pcae_core.checkpoint import Manifest
from pcae_core.errors import CheckpointError
from pcae_core.parameters import encoder_shapes

Side = Literal["student", "teacher"]


class StoredEncoder(Mapping[str, NDArray[np.floating[Any]]]):
    """The encoder's parameters by canonical name; each access reads one from the disk.

    Attributes:
        path: the checkpoint's folder.
        manifest: what the checkpoint says of itself.
    """

    def __init__(self, run: Path, side: Side = "student") -> None:
        """Open `run`, a run's folder (then its newest checkpoint) or a checkpoint's, and check its tensors.

        Raises:
            CheckpointError: missing, truncated or changed files; missing or misshapen tensors, which are listed.
        """
        self.path = checkpoint.find(run)
        self.manifest: Manifest = checkpoint.read_manifest(self.path)
        if self.manifest.format != checkpoint.FORMAT:
            raise CheckpointError(f"{self.path} has checkpoint format {self.manifest.format}, not {checkpoint.FORMAT}")
        self._file = checkpoint.verified_file(self.path, self.manifest, f"{side}.safetensors")
        self._shapes = encoder_shapes(self.manifest.config.model)
        try:
            with safe_open(self._file, framework="numpy") as tensors:
                found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self._file} is not a safetensors file: {error}") from None
        problems = [
            f"{name} has shape {found.get(name)} instead of {shape}"
            for name, shape in self._shapes.items()
            if found.get(name) != shape
        ]
        if problems:
            raise CheckpointError(f"{self._file} does not fit the model: {'; '.join(problems)}")

    def __getitem__(self, name: str) -> NDArray[np.floating[Any]]:
        if name not in self._shapes:
            raise KeyError(name)
        # Opened each time: an open file stays mapped, and its pages in memory
        with safe_open(self._file, framework="numpy") as tensors:
            tensor: NDArray[np.floating[Any]] = tensors.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
