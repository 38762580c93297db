"""The contract: the operations of a backend, with shapes, ties, NaN and dtypes. `pcae_numpy` is the reference.

Letters: B images, C channels, H height, W width, p patch size, N patches (or tokens) of an image, V visible patches,
M masked patches, K targets, k tokens kept, P prefix tokens (`ModelConfig.num_prefix_tokens`), D width, L encoder
blocks. Scores and losses are computed in float32 or better, for inputs of any dtype. Ids are integers. Every backend
guarantees:

- Order: ties between scores go to the lower index, and kept ids are in ascending position order. Two tokens are always
  equally similar to the mean of their unit vectors. So rounding decides which of the last two tokens stays.
- NaN: a NaN score sorts after every number, as in NumPy. A NaN in a token makes the mean NaN, and so all scores of its
  sequence. That sequence keeps its first k tokens. All other outputs follow IEEE arithmetic.
- Purity: no function changes its inputs, and no result shares memory with one.
- Arrays: every function takes NumPy arrays or the backend's arrays, and returns the backend's.
"""

from pcae_core.contract.constants import (
    ADAM_EPS,
    LAYER_NORM_EPS,
    NORM_EPS,
    STANDARDIZE_EPS,
    Array,
    Center,
    Floats,
)
from pcae_core.contract.inference import Backend
from pcae_core.contract.outputs import (
    Capabilities,
    EncoderOutput,
    EncoderTrace,
    FinetuneOutput,
    PretrainingOutput,
    PretrainOutput,
    StageOutput,
    TrainState,
)
from pcae_core.contract.trainers import Finetuner, Pretrainer, Trainer
from pcae_core.contract.training import TrainingBackend, training_backend

__all__ = [
    "ADAM_EPS",
    "LAYER_NORM_EPS",
    "NORM_EPS",
    "STANDARDIZE_EPS",
    "Array",
    "Backend",
    "Capabilities",
    "Center",
    "EncoderOutput",
    "EncoderTrace",
    "FinetuneOutput",
    "Finetuner",
    "Floats",
    "PretrainOutput",
    "Pretrainer",
    "PretrainingOutput",
    "StageOutput",
    "TrainState",
    "Trainer",
    "TrainingBackend",
    "training_backend",
]
