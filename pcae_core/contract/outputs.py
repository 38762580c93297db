"""Outputs of a backend's functions, and the state of a training run.

Letters as in `pcae_core.contract`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pcae_core.contract.constants import Array, Floats


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a backend.

    Attributes:
        training: whether the backend trains, that is, is a `TrainingBackend`.
        dtypes: floating dtypes of parameters and images, by NumPy's names.
        devices: device types, best first.
    """

    training: bool
    dtypes: tuple[str, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True)
class PretrainingOutput:
    """Output of one forward pass of pre-training.

    Attributes:
        loss: scalar.
        prediction: predictions of the student (B, K, D).
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
    """Output of the encoder.

    Attributes:
        last_hidden_state: prefix tokens, CLS first, and surviving patch tokens after the final norm (B, P + k, D).
        kept_ids: positions of the surviving patches (B, k), ascending.
        logits: (B, num_classes), or None without a head.
    """

    last_hidden_state: Array
    kept_ids: Array
    logits: Array | None


@dataclass(frozen=True)
class StageOutput:
    """Output of one stage of the encoder: n patches entered, and k of them stayed.

    Attributes:
        block: index of the block before the stage, 0-based.
        ids: positions of the patches that entered (B, n), ascending.
        scores: similarity of each of them to their mean (B, n), float32 or better.
        kept_ids: positions of the patches that stayed (B, k), ascending.
    """

    block: int
    ids: Array
    scores: Array
    kept_ids: Array


@dataclass(frozen=True)
class EncoderTrace:
    """Output of the encoder, and of each of its stages, including stages at which all patches stay."""

    output: EncoderOutput
    stages: tuple[StageOutput, ...]


@dataclass
class TrainState:
    """The whole state of a training run between two steps, as NumPy arrays by canonical name.

    Attributes:
        student: encoder and decoder; in fine-tuning, encoder and head.
        teacher: encoder; in fine-tuning, the moving average of the student, or empty without one.
        exp_avg, exp_avg_sq: AdamW's moments of the trainable student parameters.
        step: number of optimizer steps done.
        loss_scale: loss scale and steps since its last change, for float16; else None.
    """

    student: dict[str, Floats]
    teacher: dict[str, Floats]
    exp_avg: dict[str, Floats]
    exp_avg_sq: dict[str, Floats]
    step: int = 0
    loss_scale: tuple[float, int] | None = field(default=None)


@dataclass(frozen=True)
class PretrainOutput:
    """Output of one optimizer step of pre-training, as the backend's arrays, so that nothing waits for the device.

    Attributes:
        loss: mean over this process's images, scalar.
        grad_norm: global gradient norm before clipping, scalar.
        finite: whether loss and gradient norm are finite in every process, scalar. If not, the step was skipped.
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
    """Output of one optimizer step of fine-tuning, as the backend's arrays.

    Attributes:
        loss: mean over this process's images, scalar.
        grad_norm, finite: as in `PretrainOutput`.
    """

    loss: Array
    grad_norm: Array
    finite: Array
