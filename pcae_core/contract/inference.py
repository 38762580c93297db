"""`Backend`: inference with PCAE in one framework.

Letters as in `pcae_core.contract`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from pcae_core.contract.constants import Array, Center
from pcae_core.contract.outputs import Capabilities, EncoderOutput, EncoderTrace, TrainState
from pcae_core.contract.trainers import Finetuner, Pretrainer
from pcae_core.errors import BackendError

if TYPE_CHECKING:
    from pcae_core.config import ModelConfig, PretrainConfig
    from pcae_core.config.finetune import FinetuneConfig


class Backend(abc.ABC):
    """Inference in one framework. Subclasses implement every abstract method; a `TrainingBackend` trains too."""

    name: str
    capabilities: Capabilities
    _leave: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._leave is not None:
            self._leave()

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

    # Models. Parameters are dictionaries by canonical name (`pcae_core.parameters`); their dtype is the model's.

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

    @abc.abstractmethod
    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        """As `encode`, with the scores and the choice of each stage; slower, for pictures and verification.

        Raises:
            ShapeError, ConfigError: as `encode`.
        """

    # Asked of a backend that only infers. A `TrainingBackend` implements both.

    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        """Raises BackendError: this backend does not train."""
        raise no_training(self)

    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        """Raises BackendError: this backend does not train."""
        raise no_training(self)

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
        return BackendError(f"the backend {self.name!r} has no weights file of its own")


def no_training(backend: Backend) -> BackendError:
    """What to raise when a backend that only infers is asked to train."""
    return BackendError(f"the backend {backend.name!r} does not train; pcae backends lists those that do")
