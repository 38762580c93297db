"""`InferenceSession`: an exported model, run on pictures.

Letters: B images, C channels, H = W pixels, P prefix tokens, k patches kept, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.errors import BackendError, ConfigError, DataError, ModelFileError
from pcae_core.reduction import check_keep
from pcae_onnx import MEMORY_MIB, guard, runtime

if TYPE_CHECKING:
    from PIL import Image

    from pcae_core.config import ModelConfig
    from pcae_onnx.info import ModelInfo

_CACHE_BYTES = 5_000_000
_MOST_MEMORY_MIB = 2**40  # more than any machine has; ONNX Runtime takes the bytes in 64 bits
_IMAGES_IN_MEMORY = 8  # how many images, as float32, the memory of a run must hold


@dataclass(frozen=True)
class Outputs:
    """What a batch gives.

    Attributes:
        last_hidden_state: prefix tokens, CLS first, and surviving patch tokens, float32 (B, P + k, D).
        kept_ids: positions of the surviving patches, row by row of the grid, int64 (B, k), ascending.
        logits: float32 (B, num_classes), or None without a head.
    """

    last_hidden_state: NDArray[Any]
    kept_ids: NDArray[Any]
    logits: NDArray[Any] | None


@dataclass(frozen=True)
class ClassScore:
    """One class of a prediction; `name` is None when the model does not know it."""

    index: int
    name: str | None
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What one picture gives.

    Attributes:
        classes: the most probable ones, best first; None without a head.
        last_hidden_state: float32 (P + k, D).
        kept_ids: int64 (k,), ascending.
    """

    classes: tuple[ClassScore, ...] | None
    last_hidden_state: NDArray[Any]
    kept_ids: NDArray[Any]


class InferenceSession:
    """An exported model on ONNX Runtime. `run` may be called from several threads.

    Attributes:
        name, task: as exported; task is "feature-extraction" or "image-classification".
        image_size, in_chans: of the pictures.
        dynamic_keep: whether `run` takes a keep ratio.
        class_names: of the logits, or None.
        metadata: the model's `metadata_props`.
        info: the same, parsed.
        provider: in use.
        part: most images that `run` computes together; None for all. An image's answer does not depend on it.
    """

    def __init__(
        self,
        path: Path | str,
        provider: str = "cpu",
        threads: int | None = None,
        memory_mib: int | None = MEMORY_MIB,
    ) -> None:
        """Load `path`, an ONNX file or the folder that holds `model.onnx`.

        Args:
            provider: a key of `runtime.PROVIDERS`, such as "cpu" or "cuda".
            threads: of one operator; by default as many as there are cores.
            memory_mib: the most that a run on CPUs may take beside the weights, in MiB; a graph of few operators can
                ask for any amount. None for no limit, where the model is your own.

        Raises:
            ModelFileError: the file is missing, damaged, changed, not exported by PCAE, or takes images too large for
                `memory_mib`.
            BackendError: the provider is not there; a number of threads or of MiB out of range.
        """
        path = Path(path)
        path = path / "model.onnx" if path.is_dir() else path
        if not path.is_file():
            raise ModelFileError(
                f"there is no model at {path}; give a folder written by pcae export, or its model.onnx"
            )
        self.info = guard.inspect(path)
        if memory_mib is not None:
            _check_memory(path, self.info.model, memory_mib)
        self.metadata = self.info.to_metadata()
        self._session = runtime.session(path, provider, threads, memory_mib=memory_mib)
        self.provider = provider
        self.name, self.task = self.info.name, self.info.task
        self.image_size, self.in_chans = self.info.model.image_size, self.info.model.in_chans
        self.dynamic_keep = self.info.schedule.keep is None
        self.class_names = self.info.class_names
        self.part = images_together(self.info, provider)

    def preprocess(self, images: Sequence[Image.Image]) -> NDArray[Any]:
        """Pictures of any size, mode and EXIF orientation to pixels, float32 (B, C, H, W), as the metadata says.

        Raises:
            DataError: no pictures, pixels of an unknown kind, or a model that takes neither 1 nor 3 channels.
        """
        # Here, since it brings the data loader's libraries, which who prepares pixels otherwise does not need
        from PIL import ImageOps

        from pcae_core.data import normalize
        from pcae_core.data.images import MODES, convert
        from pcae_core.data.transforms import resize_center_crop, stack

        if not images:
            raise DataError("there is no picture to predict")
        if self.in_chans not in MODES:
            raise DataError(f"the model takes {self.in_chans} channels; prepare pixel_values and call run")
        try:
            bits = self.info.preprocessing.grey_bits
            upright = (convert(ImageOps.exif_transpose(image), self.in_chans, bits) for image in images)
            pixels = [resize_center_crop(image, self.image_size) for image in upright]
        except (ValueError, OSError) as error:
            raise DataError(f"a picture cannot be converted: {error}") from None
        return normalize(stack(pixels), self.info.preprocessing.mean, self.info.preprocessing.std)

    def run(self, pixel_values: NDArray[Any], keep: float | None = None) -> Outputs:
        """One batch.

        Args:
            pixel_values: floating (B, C, H, W), as `preprocess` gives them.
            keep: share of the patch tokens that each stage keeps, in (0, 1], read to six decimals; only where
                `dynamic_keep`, and 1 when not given.

        Raises:
            DataError: wrong shape or dtype, or an empty batch.
            ConfigError: a keep ratio out of range, or for a model whose ratio is fixed.
            ModelFileError: the model's graph is not what its metadata says, or asks for more than `memory_mib`.
        """
        pixels = np.asarray(pixel_values)
        expected = (self.in_chans, self.image_size, self.image_size)
        if pixels.ndim != 4 or pixels.shape[1:] != expected:
            raise DataError(
                f"pixel_values must have the shape (batch, {', '.join(map(str, expected))}), not {pixels.shape}"
            )
        if len(pixels) == 0:
            raise DataError("pixel_values is an empty batch; give at least one picture")
        if pixels.dtype.kind != "f":
            raise DataError(f"pixel_values must be floating and normalised, not {pixels.dtype}; use preprocess")
        dynamic = self.dynamic_keep or keep is not None
        feeds = {"keep": self._keep(1.0 if keep is None else keep)} if dynamic else {}
        step = self.part or len(pixels)
        hidden, kept_ids, *logits = runtime.run_in_parts(self._session, pixels, feeds, step)
        outputs = Outputs(hidden, kept_ids, logits[0] if logits else None)
        self._check_outputs(outputs, len(pixels))
        return outputs

    def predict(
        self, images: Sequence[Image.Image], keep: float | None = None, batch_size: int = 32, topk: int = 5
    ) -> list[Prediction]:
        """Pictures to predictions, at most `batch_size` at a time.

        Raises:
            DataError, ConfigError: as `preprocess` and `run`; `batch_size` or `topk` below 1.
        """
        for name, value in (("batch_size", batch_size), ("topk", topk)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        found, step = [], min(batch_size, self.part or batch_size)
        for start in range(0, max(1, len(images)), step):
            outputs = self.run(self.preprocess(images[start : start + step]), keep)
            for i, kept_ids in enumerate(outputs.kept_ids):
                classes = None if outputs.logits is None else self.best_classes(outputs.logits[i], topk)
                found.append(Prediction(classes, outputs.last_hidden_state[i], kept_ids))
        return found

    def _check_outputs(self, outputs: Outputs, batch: int) -> None:
        """Whoever counts on the shapes and places must not be led astray by a graph that was changed."""
        model, ids = self.info.model, outputs.kept_ids
        heads = None if outputs.logits is None else outputs.logits.shape
        if (
            ids.ndim != 2
            or ids.dtype != np.int64
            or outputs.last_hidden_state.shape != (batch, model.num_prefix_tokens + ids.shape[1], model.embed_dim)
            or heads not in (None, (batch, model.num_classes))
            or (ids < 0).any()
            or (ids >= model.num_patches).any()
        ):
            raise ModelFileError("the outputs of the model do not fit its metadata; export the model again")

    def _keep(self, keep: float) -> NDArray[Any]:
        if not self.dynamic_keep:
            raise ConfigError(
                f"the keep ratio of this model is fixed at {self.info.schedule.keep}; "
                "export with --dynamic-keep to choose it for each run"
            )
        check_keep(keep)
        return np.array(keep, dtype=np.float32)

    def best_classes(self, logits: NDArray[Any], topk: int) -> tuple[ClassScore, ...]:
        """The `topk` most probable classes by logits, floating (num_classes,), best first."""
        exponential = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = exponential / exponential.sum()
        best = np.argsort(-probabilities, kind="stable")[:topk]
        names = self.class_names
        return tuple(ClassScore(int(i), names[i] if names else None, float(probabilities[i])) for i in best)


def _check_memory(path: Path, model: ModelConfig, memory_mib: int) -> None:
    if not 1 <= memory_mib <= _MOST_MEMORY_MIB:
        raise BackendError(f"memory_mib must be from 1 to {_MOST_MEMORY_MIB}, not {memory_mib}")
    if model.in_chans * model.image_size**2 * 4 * _IMAGES_IN_MEMORY > memory_mib * 2**20:
        raise ModelFileError(
            f"{path} takes images of {model.in_chans} x {model.image_size} x {model.image_size}, too large for runs of "
            f"{memory_mib} MiB; if you trust it, raise memory_mib"
        )


def images_together(info: ModelInfo, provider: str) -> int | None:
    """The most images to compute at a time, so that each gets the answer that it gets alone; None for any number.

    An int8 model takes its scales from the whole batch. On CPUs the rounding of a float16 model depends on an image's
    place in the batch, and beyond what a cache holds a batch costs more than its parts.
    """
    if info.dtype == "int8" or (info.dtype == "fp16" and provider == "cpu"):
        return 1
    return _images_in_cache(info.model) if provider == "cpu" else None


def _images_in_cache(model: ModelConfig) -> int:
    """Images whose widest activations, or pixels, fit."""
    tokens = model.num_prefix_tokens + model.num_patches
    widest = max(tokens * model.hidden_dim(model.embed_dim), model.in_chans * model.image_size**2)
    return max(1, _CACHE_BYTES // (widest * 4))
