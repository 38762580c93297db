"""Differences between MindSpore's versions and devices. Written for MindSpore 2.10; tested on its CPU kernels.

The branches for Ascend and GPU follow MindSpore's documentation. They have never been run, because no such device was
available. Letters: B images, S query tokens, T key tokens, h heads, D width.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator

import mindspore as ms
from mindspore import Tensor, communication, mint, ops
from mindspore.ops.primitive import constexpr

from pcae_core import shapes
from pcae_core.config import Activation
from pcae_core.errors import BackendError, TrainingError

_TARGETS = {"ascend": "Ascend", "gpu": "GPU", "cpu": "CPU"}  # best first
_COLLECTIVES = {"ascend": "hccl", "gpu": "nccl", "cpu": "mccl"}
_PRECISIONS = {
    "ascend": ("float32", "bfloat16", "float16"),
    "gpu": ("float64", "float32", "float16"),
    "cpu": ("float64", "float32", "float16"),
}
_ROOT_OF_HALF = math.sqrt(0.5)  # outside the function: a compiled graph computes Python floats in float32
_TANH_SCALE, _TANH_CUBE, _QUICK_SCALE = math.sqrt(2.0 / math.pi), 0.044715, 1.702
_TIMES, _TIMES_TRANSPOSED = ops.MatMul(), ops.MatMul(transpose_b=True)
FUSED_ADAMW = ops.AdamWeightDecay()
"""AdamW as one float32 kernel, which takes a quarter of the time. Its rates contain the bias corrections."""


# Devices and processes


def choose_device(name: str) -> str:
    """Set MindSpore's device for the whole process. "auto" picks the best available one.

    Raises:
        BackendError: there is no such device, or MindSpore has started on another one in this process.
    """
    if name == "auto":
        name = next(device for device in _TARGETS if _is_there(device))
    if name not in _TARGETS:
        raise BackendError(
            f"the mindspore backend runs on the devices {', '.join(_TARGETS)}, not {name!r}; choose one with --device, "
            "or --device auto"
        )
    if not _is_there(name):
        raise BackendError(f"no {_TARGETS[name]} is available to MindSpore here; use device 'cpu'")
    try:
        ms.set_device(_TARGETS[name])
    except RuntimeError as error:  # after MindSpore's start, even for the device that it runs on (2.10)
        if ms.get_context("device_target") != _TARGETS[name]:
            reason = str(error).strip().partition("\n")[0]
            raise BackendError(f"MindSpore cannot use {_TARGETS[name]} in this process: {reason}") from None
    _set_synchronous(name == "cpu")
    return name


def _is_there(device: str) -> bool:
    with _quiet():
        return device == "cpu" or ms.hal.is_available(_TARGETS[device])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence MindSpore, which logs several lines about each missing device and each setting that will be renamed."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _set_synchronous(flag: bool) -> None:
    """Set whether an operator outside graphs runs in the calling thread.

    On CPUs, passing it to another thread takes ten times as long as a small operator itself. The newer function
    `ms.runtime.launch_blocking` cannot be undone.
    """
    with _quiet():
        ms.set_context(pynative_synchronize=flag)


@contextlib.contextmanager
def graphs() -> Iterator[None]:
    """Context to compile and run graphs in. A graph that is compiled with synchronous operators is six times slower.

    With `MS_JIT=0` in the environment, MindSpore compiles nothing and runs the operators one by one.
    """
    if os.environ.get("MS_JIT") == "0":
        yield
        return
    _set_synchronous(False)
    try:
        yield
    finally:
        _set_synchronous(ms.get_context("device_target") == "CPU")


class Patience:
    """Runs a graph and waits for it. On CPUs, MindSpore itself waits in a loop that takes a core from the graph.

    It sleeps for most of the shortest time that the graph has taken, without the first run, which compiles.
    """

    SHARE = 0.9

    def __init__(self, graph: Callable[..., tuple[Tensor, ...]]) -> None:
        self._graph = graph
        self._runs, self._shortest = 0, 0.0

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """The outputs of the graph."""
        began = time.monotonic()
        outputs = self._graph(*inputs)
        if ms.get_context("device_target") != "CPU":
            return outputs
        time.sleep(max(0.0, began + self.SHARE * self._shortest - time.monotonic()))
        outputs[0].asnumpy()
        took = time.monotonic() - began
        self._runs += 1
        if self._runs > 1:
            self._shortest = min(took, self._shortest or took)
        return outputs


def check_precision(device: str, precision: str) -> None:
    """Raise BackendError when `precision` has no kernels on `device`."""
    able = _PRECISIONS[device]
    if precision not in able:
        raise BackendError(f"MindSpore has no {precision} kernels on {device}; set precision to {' or '.join(able)}")


def join_group(device: str) -> tuple[int, int]:
    """Join the process group that `msrun` started. Returns rank and number of processes.

    In `msrun`'s scheduler process, this call lasts as long as the job.

    Raises:
        TrainingError: a process of the job is missing, or ended too early.
    """
    try:
        communication.init(_COLLECTIVES[device])
    except RuntimeError:  # it may name a wrong process, because msrun ends all of them
        raise TrainingError("a process of the job is missing or ended early; msrun tells its number") from None
    return communication.get_rank(), communication.get_group_size()


@constexpr
def _on_ascend() -> bool:
    return ms.get_context("device_target") == "Ascend"


# Operations

check_images = constexpr(shapes.check_images)
check_restore_grid = constexpr(shapes.check_restore_grid)
"""The check runs while a graph is compiled: the graph itself cannot raise our errors."""


def stable_argsort(x: Tensor) -> Tensor:
    """Ids (B, N) that sort each row of x (B, N), with ascending ids for equal values. x has no NaN.

    On CPUs `ops.sort` is stable, but compares float64 as float32. On Ascend it may round float32, so another sort is
    used there, which has no CPU kernel.
    """
    if _on_ascend():
        return mint.sort(x, dim=-1, descending=False, stable=True)[1]
    if x.dtype == ms.float64:
        return ops.sort(_ranks(x), -1)[1]
    return ops.sort(x, -1)[1]


def _ranks(x: Tensor) -> Tensor:
    """Rank of each element in its row (B, N), int32. It compares all pairs, which is exact in any dtype."""
    index = ops.arange(x.shape[1])
    tied_before = ops.logical_and(x.expand_dims(1) == x.expand_dims(2), index < index.expand_dims(1))
    before = ops.logical_or(x.expand_dims(1) < x.expand_dims(2), tied_before)
    return before.astype(ms.int32).sum(-1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: ms.Type) -> Tensor:
    """(..., D_in), (D_out, D_in), (D_out,) or None -> (..., D_out). Computed in `dtype`.

    The CPU kernels that add a row to a matrix, and sum the rows of its gradient, take as long as the matrix product.
    Multiplied by a column of ones, the bias becomes a matrix, and its gradient a fast product.
    """
    x, weight, bias = x.astype(dtype), weight.astype(dtype), None if bias is None else bias.astype(dtype)
    if _on_ascend():
        return ops.dense(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    product = _TIMES_TRANSPOSED(rows, weight)
    if bias is not None:
        ones = ops.ones((rows.shape[0], 1), dtype)
        product = product + _TIMES(ones, bias.reshape(1, -1))
    return product.reshape(*x.shape[:-1], weight.shape[0])


def gelu(x: Tensor) -> Tensor:
    """`x * Phi(x)` with the exact normal distribution function. On CPUs `ops.gelu` takes twice as long."""
    if _on_ascend():
        return ops.gelu(x, approximate="none")
    return x * ((ops.erf(x * Tensor(_ROOT_OF_HALF, x.dtype)) + 1) * Tensor(0.5, x.dtype))


def gelu_tanh(x: Tensor) -> Tensor:
    """`x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`."""
    if _on_ascend():
        return ops.gelu(x, approximate="tanh")
    inner = Tensor(_TANH_SCALE, x.dtype) * (x + Tensor(_TANH_CUBE, x.dtype) * x * x * x)
    return x * ((ops.tanh(inner) + 1) * Tensor(0.5, x.dtype))


def quick_gelu(x: Tensor) -> Tensor:
    """`x sigmoid(1.702 x)`."""
    return x * ops.sigmoid(x * Tensor(_QUICK_SCALE, x.dtype))


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}


def fused_layer_norm(eps: float) -> ops.LayerNorm:
    """MindSpore's own operator, over the last axis."""
    return ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, fused: ops.LayerNorm) -> Tensor:
    """LayerNorm (..., D), computed in float32 or better; the result has the parameters' dtype.

    The operator `fused`, with the same eps, is accurate to float32 only, in any dtype.
    """
    if x.dtype == ms.float64:
        centered = x - x.mean(-1, keep_dims=True)
        variance = (centered * centered).mean(-1, keep_dims=True)
        return centered / ops.sqrt(variance + Tensor(eps, ms.float64)) * weight + bias
    if x.dtype == ms.float32:
        return fused(x, weight, bias)[0]
    wide = fused(x.astype(ms.float32), weight.astype(ms.float32), bias.astype(ms.float32))
    return wide[0].astype(x.dtype)


def has_fused_attention(dim: int, num_heads: int, dtype: ms.Type) -> bool:
    """Whether `ops.flash_attention_score` works for this head width and dtype on this device, which must be Ascend."""
    return _on_ascend() and dtype in (ms.float16, ms.bfloat16) and (dim // num_heads) % 16 == 0


def fused_attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, scale: float) -> Tensor:
    """(B, S, D), (B, T, D), (B, T, D) -> (B, S, D) by one kernel that does not store the weights (B, h, S, T).

    Ascend only: it follows the documentation and has never been run.
    """
    return ops.flash_attention_score(query, key, value, num_heads, scalar_value=scale, input_layout="BSH")


def plain_attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, scale: float) -> Tensor:
    """As `fused_attention`, from matrix products; the softmax is computed in float32 or better."""
    dtype, dim = query.dtype, query.shape[2]
    query = query * Tensor(scale, dtype)
    weights = ops.BatchMatMul(transpose_b=True)(_split_heads(query, num_heads), _split_heads(key, num_heads))
    if dtype == ms.float16 or dtype == ms.bfloat16:
        weights = weights.astype(ms.float32)
    mixed = ops.BatchMatMul()(ops.softmax(weights, -1).astype(dtype), _split_heads(value, num_heads))  # (B, h, S, D/h)
    return mixed.transpose(0, 2, 1, 3).reshape(mixed.shape[0], mixed.shape[2], dim)


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) -> (B, h, T, D/h)."""
    batch, length, dim = x.shape
    return x.reshape(batch, length, num_heads, dim // num_heads).transpose(0, 2, 1, 3)
