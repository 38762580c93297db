"""The contract: what a backend must do, stated once.

Letters: B images, C channels, H height, W width, p patch size, N patches (or tokens) of an image, V visible patches,
M masked patches, K targets, k tokens kept, D width, L encoder blocks. Scores and losses are computed in float32 or
better whatever the inputs' dtype. Ids are integers. The statement of the method is `pcae_numpy`; this file says only
what every backend promises:

- Order: ties between scores go to the lower index; kept ids are in ascending position order. Two tokens are always
  equally similar to the mean of their unit vectors, so of the last two rounding chooses one.
- NaN: scores sort after every number (as in NumPy). A NaN in a token makes all scores of its sequence NaN, since the
  mean has it too, so that sequence keeps its first k tokens; all other outputs follow IEEE arithmetic.
- Purity: no function changes its inputs, and no result shares memory with one.
- Arrays: every function takes NumPy arrays or the backend's own and returns the backend's own.
"""

from __future__ import annotations

import abc
import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pcae_core.config import ModelConfig, PretrainConfig
    from pcae_core.config.finetune import FinetuneConfig

STANDARDIZE_EPS = 1e-6
"""Added to the variance of a target token."""
LAYER_NORM_EPS = 1e-6
"""Of every LayerNorm, unless `ModelConfig.layer_norm_eps` says otherwise."""
NORM_EPS = 1e-12
"""Smallest length that a vector is divided by, its largest entry scaled to 1: only a zero token has similarity 0."""
ADAM_EPS = 1e-8
"""Added to the root of AdamW's second moment."""

Array = Any
"""An array of the backend, or a NumPy array."""
Floats = NDArray[np.floating[Any]]
"""A NumPy array of any floating dtype."""
Center = Literal["unit", "raw"]


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        training: `create_pretrainer`, `create_finetuner` and the two methods that give gradients work.
        dtypes: floating dtypes of parameters and images, by NumPy's names.
        devices: device types, best first.
    """

    training: bool
    dtypes: tuple[str, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True)
class PretrainingOutput:
    """What one pre-training forward pass gives.

    Attributes:
        loss: scalar.
        prediction: student's predictions (B, K, D).
        target: standardised features of the teacher (B, K, D).
        visible_ids: patches that the student saw (B, V), ascending.
        target_ids: patches that the teacher kept (B, K), ascending.
    """

    loss: Array
    prediction: Array
    target: Array
    visible_ids: Array
    target_ids: Array


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder gives.

    Attributes:
        last_hidden_state: CLS and surviving patch tokens after the final norm (B, 1 + k, D).
        kept_ids: positions of the surviving patches (B, k), ascending.
        logits: (B, num_classes), or None without a head.
    """

    last_hidden_state: Array
    kept_ids: Array
    logits: Array | None


@dataclass
class TrainState:
    """Everything that a training run carries from step to step, as NumPy arrays by canonical name.

    Attributes:
        student: encoder and decoder; in fine-tuning the encoder with its head.
        teacher: encoder only; in fine-tuning the moving average of the student, empty without one.
        exp_avg, exp_avg_sq: AdamW's moments of the trainable student parameters.
        step: optimizer steps done.
        loss_scale: scale and steps since its last change, for float16; else None.
    """

    student: dict[str, Floats]
    teacher: dict[str, Floats]
    exp_avg: dict[str, Floats]
    exp_avg_sq: dict[str, Floats]
    step: int = 0
    loss_scale: tuple[float, int] | None = field(default=None)


@dataclass(frozen=True)
class StepOutput:
    """What one optimizer step gives, as the backend's arrays so that nothing waits for the device.

    Attributes:
        loss: mean over this process's images, scalar.
        grad_norm: global gradient norm before clipping, scalar.
        finite: whether the loss and the gradient norm are finite in every process, a scalar; if not, the step was
            skipped.
        target: standardised targets (B, K, D).
        features: mean of the student's visible patch tokens (B, D).
    """

    loss: Array
    grad_norm: Array
    finite: Array
    target: Array
    features: Array


@dataclass(frozen=True)
class FinetuneOutput:
    """What one optimizer step of fine-tuning gives, as the backend's arrays.

    Attributes:
        loss: mean over this process's images, scalar.
        grad_norm, finite: as in `StepOutput`.
    """

    loss: Array
    grad_norm: Array
    finite: Array


class Trainer(abc.ABC):
    """A model in training; the subclasses say what a step is.

    A step whose loss or gradient is not finite, in any process, is skipped in all of them: parameters and moments stay
    as they are. It counts as a step, and the moving average takes its own as ever.

    Under data parallelism each process holds one; `rank` and `world_size` say which. `compiles` says that the first
    step takes much longer than the others.
    """

    rank: int = 0
    world_size: int = 1
    compiles: bool = False

    @abc.abstractmethod
    def state(self) -> TrainState:
        """A snapshot that later steps leave alone."""

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` holds in any process."""
        return flag

    def mean_over_ranks(self, value: float) -> float:
        """Mean of `value` over the processes."""
        return value

    def close(self) -> None:
        """Leave the process group, if there is one."""
        return


class Pretrainer(Trainer):
    """Pre-training: forward, backward, AdamW and EMA of one step."""

    @abc.abstractmethod
    def step(
        self,
        images: Array,
        noise: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> StepOutput:
        """One optimizer step, then one EMA step.

        Args:
            images: this process's part of the global batch (B, C, H, W): uint8, normalised by the backend with
                `config.loader`, or floating and normalised already.
            noise: (B, N), splits the patches.
            learning_rate, momentum: of this step.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """


class Finetuner(Trainer):
    """Fine-tuning: a classifier whose encoder drops tokens, as `FinetuneConfig.keep` says."""

    @abc.abstractmethod
    def step(
        self,
        images: Array,
        targets: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> FinetuneOutput:
        """One optimizer step; then, where there is a moving average, one step of it.

        Args:
            images: as in `Pretrainer.step`.
            targets: (B, classes), each row the wanted probabilities.
            learning_rate: of this step, for the layers nearest to the head; `parameters.layer_scale` times it for
                the others. Weight decay follows the same rate.
            momentum: of the moving average; without one it is not used.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """


class Backend(abc.ABC):
    """An implementation of PCAE in one framework. Subclasses implement every abstract method."""

    name: str
    capabilities: Capabilities
    _previous: Backend | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        IN_USE.set(self._previous)

    # Arrays

    @abc.abstractmethod
    def asarray(self, x: Array, dtype: str | None = None) -> Array:
        """The backend's array with the values of `x`, on its device; `dtype` by NumPy's name, or as in `x`."""

    @abc.abstractmethod
    def to_numpy(self, x: Array) -> NDArray[Any]:
        """A NumPy array that shares no memory with `x`; bfloat16 becomes float32."""

    # Operations

    @abc.abstractmethod
    def patchify(self, images: Array, patch_size: int) -> Array:
        """Images (B, C, H, W) to flat patches (B, N, C*p*p), row by row; within a patch channel, row, column."""

    @abc.abstractmethod
    def split_by_noise(self, noise: Array, num_visible: int) -> tuple[Array, Array]:
        """Noise (B, N) to visible ids (B, V), of the V smallest numbers, and masked ids (B, M); both ascending."""

    @abc.abstractmethod
    def similarity_scores(self, tokens: Array, center: Center = "unit") -> Array:
        """Cosine of each token (B, N, D) with the mean token of its sequence, (B, N), float32 or better.

        The mean is over unit-length tokens ("unit") or over raw ones ("raw"). A zero token scores 0. The length of a
        token that is scored does not count, however large or small.
        """

    @abc.abstractmethod
    def select_tokens(self, scores: Array, k: int) -> Array:
        """Ids (B, k) of the k lowest scores (B, N) by (score, index), in ascending position order."""

    @abc.abstractmethod
    def gather_tokens(self, tokens: Array, ids: Array) -> Array:
        """Tokens (B, N, D) at ids (B, k): (B, k, D), dtype kept."""

    @abc.abstractmethod
    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[Array, Array]:
        """Drop the patch tokens most similar to their mean.

        Args:
            tokens: (B, P + N, D), the P prefix tokens first; those always stay and take no part in the mean.
            k: patch tokens that stay.

        Returns:
            The tokens that stay (B, P + k, D) and the ids of the patches among them (B, k), 0..N-1.
        """

    @abc.abstractmethod
    def restore_grid(self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None) -> Array:
        """Put surviving patch tokens back on the whole grid, for dense tasks; differentiable by `tokens`.

        A survivor stays as it is, bit for bit. A dropped patch gets its most similar survivor: the one whose features
        have the largest cosine with its own, in float32 or better; ties, also those by rounding, go to the lower id,
        and a NaN cosine counts as the smallest. Without `features` only places are known of dropped patches, so the
        most similar survivor is the nearest one on the square grid, by the exact squared distance.

        Args:
            tokens: of the survivors, without prefix tokens (B, k, D).
            kept_ids: their patches (B, k), each once, in any order.
            num_patches: N.
            features: of all patches (B, N, F), such as their pixels (`patchify`) or embeddings.

        Returns:
            (B, N, D), dtype kept.

        Raises:
            ShapeError: the shapes do not fit together, or N is not a square and there are no features.
        """

    @abc.abstractmethod
    def standardize(self, latents: Array, eps: float = STANDARDIZE_EPS) -> Array:
        """Each token (B, K, D) to mean 0 and unbiased variance 1 over its features; float32 or better."""

    @abc.abstractmethod
    def cosine_loss(self, prediction: Array, target: Array) -> Array:
        """`1 - cosine` of each pair of tokens (B, K, D), averaged: a scalar, float32 or better."""

    @abc.abstractmethod
    def ema_update(
        self, teacher: Mapping[str, Array], student: Mapping[str, Array], momentum: float
    ) -> dict[str, Array]:
        """`momentum * teacher + (1 - momentum) * student` for every name in `teacher`; dtypes kept."""

    # Models. Parameters are dictionaries by canonical name (`pcae_core.parameters`); their dtype is the model's.

    @abc.abstractmethod
    def pretraining_forward(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
    ) -> PretrainingOutput:
        """The whole forward pass of pre-training, without drop path.

        Args:
            student: encoder and decoder; teacher: encoder.
            images: normalised (B, C, H, W).
            noise: (B, N), splits the patches.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """

    @abc.abstractmethod
    def encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderOutput:
        """CLS and all N patches through the encoder, dropping `1 - keep` of the patch tokens at each stage.

        The head, where there is one, reads the CLS token after the final norm, or with `config.pooling == "mean"` the
        mean of the surviving patch tokens before it, through `fc_norm`. Parameters of a decoder are ignored.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
            ConfigError: `keep` is not in (0, 1].
        """

    # Training; only where `capabilities.training`.

    def loss_and_gradients(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
        drop_path: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Loss of `pretraining_forward`, and its gradient by each trainable student parameter.

        Raises:
            BackendError: this backend does not train.
        """
        raise self._no_training()

    def gradient(self, function: Callable[[Array], Array], x: Array) -> Array:
        """Gradient by `x` of a scalar function made of this backend's operations; of the shape and dtype of `x`.

        Raises:
            BackendError: this backend does not train.
        """
        raise self._no_training()

    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        """A model in training, from `state` or from `config.seed`.

        Raises:
            BackendError: this backend does not train.
        """
        raise self._no_training()

    def finetuning_loss_and_gradients(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        images: Array,
        targets: Array,
        keep: float = 1.0,
        drop_path: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy of the logits with soft targets, and its gradient by each parameter that fine-tuning trains.

        The choice of the tokens that stay has no gradient; those that go have one through what they gave the others.

        Args:
            targets: (B, classes), each row the wanted probabilities.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            BackendError: this backend does not train.
        """
        raise self._no_training()

    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        """A classifier in training, from `state`, or from `config.seed` at random.

        Raises:
            BackendError: this backend does not train.
        """
        raise self._no_training()

    # Files of a framework's own kind; only where `BackendSpec.weights_suffix` names one.

    def save_weights(self, path: Path, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Write parameters by name to a file that the framework's own users load without PCAE.

        Raises:
            BackendError: this backend has no such files.
            OSError: the file cannot be written.
        """
        raise self._no_weights_file()

    def load_weights(self, path: Path) -> dict[str, NDArray[Any]]:
        """The arrays in such a file, whoever wrote it, by name; half precision becomes float32.

        Names of nested dictionaries are joined by dots; what is no array is left out. Nothing in the file is run.

        Raises:
            BackendError: this backend has no such files.
            CheckpointError: the file cannot be read, or only by running code that is in it.
        """
        raise self._no_weights_file()

    def _no_weights_file(self) -> Exception:
        from pcae_core.errors import BackendError

        return BackendError(f"the backend {self.name!r} has no weights file of its own")

    def _no_training(self) -> Exception:
        from pcae_core.errors import BackendError

        return BackendError(f"the backend {self.name!r} does not train; pcae backends lists those that do")


IN_USE: contextvars.ContextVar[Backend | None] = contextvars.ContextVar("pcae_backend_in_use", default=None)
"""The backend in use in this thread or async task; `registry.use` and `registry.current` are the way to it."""
