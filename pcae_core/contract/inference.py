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
        """The values of `x` as the backend's array, on its device. `dtype` is NumPy's name; None keeps that of `x`."""

    @abc.abstractmethod
    def to_numpy(self, x: Array) -> NDArray[Any]:
        """A NumPy array that shares no memory with `x`; bfloat16 becomes float32."""

    # Operations

    @abc.abstractmethod
    def patchify(self, images: Array, patch_size: int) -> Array:
        """Images (B, C, H, W) to patches (B, N, C*p*p), row by row. A patch is flattened by channel, row, column."""

    @abc.abstractmethod
    def similarity_scores(self, tokens: Array, center: Center = "unit") -> Array:
        """Cosine of each token (B, N, D) with the mean token of its sequence, (B, N), float32 or better.

        The mean is over unit-length tokens ("unit") or over raw tokens ("raw"). A zero token scores 0. A score does not
        depend on the length of its token, however large or small.
        """

    @abc.abstractmethod
    def select_tokens(self, scores: Array, k: int) -> Array:
        """Ids (B, k) of the k lowest scores (B, N), in ascending position order. Ties go to the lower index."""

    @abc.abstractmethod
    def gather_tokens(self, tokens: Array, ids: Array) -> Array:
        """Tokens (B, N, D) at ids (B, k): (B, k, D), dtype kept."""

    @abc.abstractmethod
    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[Array, Array]:
        """Drop the patch tokens most similar to their mean.

        Args:
            tokens: (B, P + N, D). The P prefix tokens come first, always stay, and are not part of the mean.
            k: number of patch tokens that stay.

        Returns:
            The tokens that stay (B, P + k, D), and the ids of the patches that stay (B, k), 0..N-1.
        """

    @abc.abstractmethod
    def restore_grid(self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None) -> Array:
        """Put surviving patch tokens back on the whole grid, for dense tasks; differentiable with respect to `tokens`.

        Each survivor returns to its place bit for bit. Each dropped patch gets the token of the most similar survivor.
        With `features`, that is the survivor with the largest cosine between features, in float32 or better. A NaN
        cosine counts as the smallest. Without `features`, it is the nearest survivor on the square grid, by the exact
        squared distance. Ties, also those by rounding, go to the lower id.

        Args:
            tokens: tokens of the survivors, without prefix tokens (B, k, D).
            kept_ids: patches of the survivors (B, k), each once, in any order.
            num_patches: N.
            features: features of all patches (B, N, F), such as their pixels (`patchify`) or embeddings.

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
        """Encode the prefix tokens and all N patches of whole images.

        Each stage drops a share `1 - keep` of the patch tokens.

        The head, if there is one, reads the CLS token after the final norm. With `config.pooling == "mean"`, it reads
        `fc_norm` of the mean of the surviving patch tokens before the final norm. Parameters of a decoder are ignored.

        Raises:
            ShapeError: the images do not have the model's size, or there are none.
            ConfigError: `keep` is not in (0, 1].
        """

    @abc.abstractmethod
    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        """As `encode`, with the scores and the choice of each stage. Slower; for pictures and verification.

        Raises:
            ShapeError, ConfigError: as `encode`.
        """

    # A backend that only infers raises. A `TrainingBackend` implements both.

    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        """Raises BackendError: this backend does not train."""
        raise no_training(self)

    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        """Raises BackendError: this backend does not train."""
        raise no_training(self)

    # The framework's own weights files, if `BackendSpec.weights_suffix` names a suffix.

    def save_weights(self, path: Path, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Write parameters by name to a file of the framework, which loads without PCAE.

        Raises:
            BackendError: this backend has no such files.
            OSError: the file cannot be written.
        """
        raise self._no_weights_file()

    def load_weights(self, path: Path) -> dict[str, NDArray[Any]]:
        """The arrays in a weights file of the framework, by name; half precision becomes float32.

        Any program may have written the file. Names of nested dictionaries are joined by dots. Values that are not
        arrays are left out. No code in the file is run.

        Raises:
            BackendError: this backend has no such files.
            CheckpointError: the file cannot be read, or only by running code in it.
        """
        raise self._no_weights_file()

    def _no_weights_file(self) -> Exception:
        return BackendError(f"the backend {self.name!r} has no weights file of its own")


def no_training(backend: Backend) -> BackendError:
    """The error that a backend raises which only infers, when it is asked to train."""
    return BackendError(f"the backend {backend.name!r} does not train; pcae backends lists those that do")
