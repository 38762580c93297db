"""Updates of single parameters in the compiled step, as functions for `ops.HyperMap`.

A loop over all parameters compiles into calls as deep as the number of parameters, and MindSpore fails at a depth of
1000. The result of a function that changes a parameter is never used: if a part of it is, MindSpore may run the
function twice.
"""

from __future__ import annotations

import math

from mindspore import Parameter, Tensor, ops

from pcae_core.config import RunConfig
from pcae_core.contract import ADAM_EPS
from pcae_mindspore import _compat
from pcae_mindspore.ops import ema

adamw = ops.MultitypeFuncGraph("adamw")
adamw_float32 = ops.MultitypeFuncGraph("adamw_float32")
ema_update = ops.MultitypeFuncGraph("ema_update")
add_to_sum = ops.MultitypeFuncGraph("add_to_sum")
mean_with_sum = ops.MultitypeFuncGraph("mean_with_sum")
sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")
multiply_finite = ops.MultitypeFuncGraph("multiply_finite")
flatten = ops.MultitypeFuncGraph("flatten")
size = ops.MultitypeFuncGraph("size")
part_of = ops.MultitypeFuncGraph("part_of")


@adamw.register(*["Tensor"] * 9)
def _adamw(
    rate: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    decay: Tensor,
    parameter: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    gradient: Tensor,
) -> bool:
    """AdamW (Loshchilov & Hutter) in place. `rate`, `eps` and `decay` contain the bias corrections of the moments."""
    first = exp_avg * beta1 + gradient * (1 - beta1)
    second = exp_avg_sq * beta2 + gradient * gradient * (1 - beta2)
    value = parameter - rate * (first / (ops.sqrt(second) + eps) + decay * parameter)
    ops.assign(parameter, value)
    ops.assign(exp_avg, first)
    ops.assign(exp_avg_sq, second)
    return True


@adamw_float32.register(*["Tensor"] * 9)
def _adamw_float32(
    rate: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    decay: Tensor,
    parameter: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    gradient: Tensor,
) -> bool:
    """`adamw` as one kernel."""
    _compat.FUSED_ADAMW(parameter, exp_avg, exp_avg_sq, rate, beta1, beta2, eps, decay, gradient)
    return True


def adamw_rates(config: RunConfig, learning_rate: float, step: int) -> tuple[float, float, float]:
    """`rate`, `eps` and `decay` of the updates above for 1-based `step`.

    With bias corrections c1 and c2, `lr * (m / c1) / (sqrt(v / c2) + eps)` equals
    `rate * m / (sqrt(v) + eps * sqrt(c2))` for `rate = lr * sqrt(c2) / c1`. The decay is divided by `sqrt(c2) / c1`.
    """
    correction1, correction2 = (1.0 - beta**step for beta in config.betas)
    ratio = math.sqrt(correction2) / correction1
    return learning_rate * ratio, ADAM_EPS * math.sqrt(correction2), config.weight_decay / ratio


@ema_update.register("Tensor", "Tensor", "Tensor")
def _ema_update(momentum: Tensor, teacher: Parameter, student: Parameter) -> bool:
    ops.assign(teacher, ema(teacher, student, momentum))
    return True


@add_to_sum.register("Tensor", "Tensor", "Tensor")
def _add_to_sum(is_first: Tensor, total: Parameter, gradient: Tensor) -> bool:
    ops.assign(total, ops.where(is_first, gradient, total + gradient))
    return True


@mean_with_sum.register("Number", "Tensor", "Tensor")
def _mean_with_sum(count: int, total: Parameter, gradient: Tensor) -> Tensor:
    return (total + gradient) / count


@sum_of_squares.register("Tensor")
def _sum_of_squares(gradient: Tensor) -> Tensor:
    return (gradient * gradient).sum()


@multiply_finite.register("Tensor", "Tensor", "Tensor")
def _multiply_finite(factor: Tensor, finite: Tensor, gradient: Tensor) -> Tensor:
    """The gradient times a factor, or zeros unless `finite`."""
    return ops.where(finite, gradient * factor, ops.zeros_like(gradient))


@flatten.register("Tensor")
def _flatten(gradient: Tensor) -> Tensor:
    return gradient.reshape(-1)


@size.register("Tensor")
def _size(gradient: Tensor) -> int:
    return gradient.size


@part_of.register("Tensor", "Number", "Tensor")
def _part_of(flat: Tensor, offset: int, gradient: Tensor) -> Tensor:
    """The part of `flat` at `offset` that belongs to `gradient`, in its shape."""
    return ops.slice(flat, (offset,), (gradient.size,)).reshape(gradient.shape)
