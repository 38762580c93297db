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
