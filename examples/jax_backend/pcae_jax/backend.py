"""`JaxBackend`: the contract, on JAX arrays. Its methods are documented in `pcae_core.contract.Backend`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pcae_core import Backend, BackendError, EncoderOutput, EncoderTrace, ModelConfig, StageOutput
from pcae_core.contract import Array, Center
from pcae_core.reduction import check_keep
from pcae_core.shapes import check_images
from pcae_jax import CAPABILITIES, model, ops

F = TypeVar("F", bound=Callable[..., Any])


def with_float64(method: F) -> F:
    """Float64 is on inside the method only: the rest of the user's program keeps JAX's default."""

    @functools.wraps(method)
    def run(*args: Any, **options: Any) -> Any:
        with jax.enable_x64(True):
            return method(*args, **options)

    return run


def _array(x: Array) -> jax.Array:
    """A copy, since JAX computes later and would see what the caller changes meanwhile."""
    return jnp.array(x)


def _arrays(parameters: Mapping[str, Array]) -> dict[str, jax.Array]:
    return {name: _array(value) for name, value in parameters.items()}


def _checked(
    config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Parameters, and images (B, C, H, W) of their dtype."""
    check_keep(keep)
    check_images(np.shape(images), config.in_chans, config.image_size)
    own = _arrays(parameters)
    return own, _array(images).astype(own["cls_token"].dtype)


class JaxBackend(Backend):
    """Infers on the CPU."""

    name = "jax"
    capabilities = CAPABILITIES

    def __init__(self, device: str = "cpu") -> None:
        if device not in ("auto", "cpu"):
            raise BackendError(f"the jax backend runs on the device 'cpu', not {device!r}")

    @with_float64
    def asarray(self, x: Array, dtype: str | None = None) -> jax.Array:
        return jnp.array(x, dtype=dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.array(x)

    @with_float64
    def patchify(self, images: Array, patch_size: int) -> jax.Array:
        return ops.patchify(_array(images), patch_size)

    @with_float64
    def similarity_scores(self, tokens: Array, center: Center = "unit") -> jax.Array:
        return ops.similarity_scores(_array(tokens), center)

    @with_float64
    def select_tokens(self, scores: Array, k: int) -> jax.Array:
        return ops.select_tokens(_array(scores), k)

    @with_float64
    def gather_tokens(self, tokens: Array, ids: Array) -> jax.Array:
        return ops.gather_tokens(_array(tokens), _array(ids))

    @with_float64
    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[jax.Array, jax.Array]:
        return ops.reduce_tokens(_array(tokens), k, num_prefix_tokens, center)

    @with_float64
    def restore_grid(
        self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None
    ) -> jax.Array:
        own = None if features is None else _array(features)
        return ops.restore_grid(_array(tokens), _array(kept_ids), num_patches, own)

    @with_float64
    def encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderOutput:
        own, pixels = _checked(config, parameters, images, keep)
        return EncoderOutput(*model.encode(config, own, pixels, keep))

    @with_float64
    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        own, pixels = _checked(config, parameters, images, keep)
        output, stages = model.encode_stages(config, own, pixels, keep)
        blocks = config.kept_after_block(config.num_patches, keep)
        found = (StageOutput(block, *stage) for block, stage in zip(blocks, stages, strict=True))
        return EncoderTrace(EncoderOutput(*output), tuple(found))
