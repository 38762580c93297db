"""What the functions of a backend give, and what a training run carries from step to step.

Letters as in `pcae_core.contract`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pcae_core.contract.constants import Array, Floats


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        training: it trains: the backend is a `TrainingBackend`.
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


@dataclass(frozen=True)
class StageOutput:
    """What one stage of the encoder did: of n patches that entered, k stayed.

    Attributes:
        block: after which block, 0-based.
        ids: positions of the patches that entered (B, n), ascending.
        scores: their similarity to their mean (B, n), float32 or better.
        kept_ids: positions of those that stayed (B, k), ascending.
    """

    block: int
    ids: Array
    scores: Array
    kept_ids: Array


@dataclass(frozen=True)
class EncoderTrace:
    """What the encoder gives, and what each of its stages did; also a stage at which all patches stay is there."""

    output: EncoderOutput
    stages: tuple[StageOutput, ...]


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
class PretrainOutput:
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
        grad_norm, finite: as in `PretrainOutput`.
    """

    loss: Array
    grad_norm: Array
    finite: Array
