"""`InferenceSession`: run an exported model on images.

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
_MOST_MEMORY_MIB = 2**40  # more than any machine has; ONNX Runtime takes a 64-bit number of bytes
_IMAGES_IN_MEMORY = 8  # number of float32 images that the memory of a run must hold


@dataclass(frozen=True)
class Outputs:
    """Outputs of a batch.

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
    """One class of a prediction. `name` is None if the model has no class names."""

    index: int
    name: str | None
    probability: float


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image.

    Attributes:
        classes: the most probable classes, best first; None without a head.
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
        image_size, in_chans: height and width, and number of channels, of the images.
        dynamic_keep: whether `run` takes a keep ratio.
        class_names: class names of the logits, or None.
        metadata: `metadata_props` of the model.
        info: the metadata, parsed.
        provider: provider in use.
        part: largest number of images that `run` computes together; None for all. Results do not depend on it.
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
            provider: key of `runtime.PROVIDERS`, such as "cpu" or "cuda".
            threads: number of threads of one operator. Default: the number of cores.
            memory_mib: memory limit of a run on CPUs in MiB, without the weights: even a small graph can ask for any
                amount. None for no limit; use it only for models that you trust.

        Raises:
            ModelFileError: the file is missing, damaged, changed or not exported by PCAE, or its images are too large
                for `memory_mib`.
            BackendError: the provider is not available, or `threads` or `memory_mib` is out of range.
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
        """Images of any size, mode and EXIF orientation to pixels, float32 (B, C, H, W), by the model's metadata.

        Raises:
            DataError: there are no images, pixels are of an unknown kind, or the model takes neither 1 nor 3 channels.
        """
        # Imported here, because it loads the data loader's libraries, which `run` does not need
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
        """Run the model on one batch.

        Args:
            pixel_values: floating (B, C, H, W), as from `preprocess`.
            keep: share of the patch tokens that each stage keeps, in (0, 1], read to six decimals. Only for models with
                `dynamic_keep`; 1 by default.

        Raises:
            DataError: the shape or dtype is wrong, or the batch is empty.
            ConfigError: the keep ratio is out of range, or the model's ratio is fixed.
            ModelFileError: the graph does not match its metadata, or needs more than `memory_mib`.
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
        """Predictions for images, at most `batch_size` images at a time.

        Raises:
            DataError, ConfigError: as `preprocess` and `run`, or `batch_size` or `topk` is below 1.
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
        """Check output shapes and ids, in case the graph was modified."""
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
        """The `topk` most probable classes, best first, from floating logits (num_classes,)."""
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
    """Largest number of images to compute together, so that each has the same result as alone; None for any number.

    An int8 model takes its scales from the whole batch. On CPUs, the rounding of a float16 model depends on an image's
    place in the batch. On CPUs, a batch that does not fit into the cache takes longer than its parts.
    """
    if info.dtype == "int8" or (info.dtype == "fp16" and provider == "cpu"):
        return 1
    return _images_in_cache(info.model) if provider == "cpu" else None


def _images_in_cache(model: ModelConfig) -> int:
    """Number of images whose widest activations, or pixels, fit into the cache."""
    tokens = model.num_prefix_tokens + model.num_patches
    widest = max(tokens * model.hidden_dim(model.embed_dim), model.in_chans * model.image_size**2)
    return max(1, _CACHE_BYTES // (widest * 4))
