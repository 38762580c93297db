"""The parameters: canonical names, shapes and initial values, the same in every framework.

The encoder has timm's names, the decoder MAE's. The initial values are drawn here, on the host, so that runs in two
frameworks start from the same numbers. Letters: D width, C channels, p patch size, N patches, P prefix
tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.contract import TrainState
from pcae_core.randomness import Purpose, generator

if TYPE_CHECKING:
    from pcae_core.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]
Arrays = dict[str, NDArray[np.floating[Any]]]


def _block_shapes(prefix: str, dim: int, hidden: int) -> Shapes:
    return {
        f"{prefix}.norm1.weight": (dim,),
        f"{prefix}.norm1.bias": (dim,),
        f"{prefix}.attn.qkv.weight": (3 * dim, dim),
        f"{prefix}.attn.qkv.bias": (3 * dim,),
        f"{prefix}.attn.proj.weight": (dim, dim),
        f"{prefix}.attn.proj.bias": (dim,),
        f"{prefix}.norm2.weight": (dim,),
        f"{prefix}.norm2.bias": (dim,),
        f"{prefix}.mlp.fc1.weight": (hidden, dim),
        f"{prefix}.mlp.fc1.bias": (hidden,),
        f"{prefix}.mlp.fc2.weight": (dim, hidden),
        f"{prefix}.mlp.fc2.bias": (dim,),
    }


def encoder_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of the encoder's parameters, which the teacher holds and inference needs."""
    dim, patch = config.embed_dim, config.patch_size
    shapes: Shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, config.num_prefix_tokens + config.num_patches, dim),
        "patch_embed.proj.weight": (dim, config.in_chans, patch, patch),
    }
    if config.patch_bias:
        shapes["patch_embed.proj.bias"] = (dim,)
    if config.pre_norm:
        shapes |= {"norm_pre.weight": (dim,), "norm_pre.bias": (dim,)}
    for i in range(config.depth):
        shapes |= _block_shapes(f"blocks.{i}", dim, config.hidden_dim(dim))
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    if config.num_classes and config.pooling == "mean":
        shapes |= {"fc_norm.weight": (dim,), "fc_norm.bias": (dim,)}
    if config.num_classes:
        shapes |= {"head.weight": (config.num_classes, dim), "head.bias": (config.num_classes,)}
    return shapes


def decoder_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of the decoder's parameters, which only pre-training uses."""
    dim = config.decoder_embed_dim
    shapes: Shapes = {
        "mask_token": (1, 1, dim),
        "decoder_pos_embed": (1, config.num_prefix_tokens + config.num_patches, dim),
        "decoder_embed.weight": (dim, config.embed_dim),
        "decoder_embed.bias": (dim,),
    }
    for i in range(config.decoder_depth):
        shapes |= _block_shapes(f"decoder_blocks.{i}", dim, config.hidden_dim(dim))
    return shapes | {
        "decoder_norm.weight": (dim,),
        "decoder_norm.bias": (dim,),
        "decoder_pred.weight": (config.embed_dim, dim),
        "decoder_pred.bias": (config.embed_dim,),
    }


def student_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of the student's parameters: encoder and decoder."""
    return encoder_shapes(config) | decoder_shapes(config)


def is_trainable(name: str) -> bool:
    """Whether a parameter is trained: all are, except the position embeddings, which are fixed."""
    return name not in ("pos_embed", "decoder_pos_embed")


def finetuned_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of the parameters that fine-tuning trains: the trainable ones of `classifier_shapes`."""
    return {name: shape for name, shape in classifier_shapes(config).items() if is_trainable(name)}


def classifier_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of the parameters that logits depend on; without a head, of the whole encoder.

    With mean pooling the head has a norm of its own, so the final norm of the encoder is left out.
    """
    own_norm = config.num_classes and config.pooling == "mean"
    return {n: s for n, s in encoder_shapes(config).items() if not (own_norm and n.startswith("norm."))}


def layer_scale(name: str, depth: int, decay: float) -> float:
    """Factor on the learning rate of a parameter: `decay` to the power of the number of layers above it.

    Layers are numbered as in BEiT and MAE. CLS token, patch projection and the norm before the blocks are layer 0, and
    block i is layer i + 1. Norms and head after the last block are layer depth + 1, whose factor is 1.
    """
    first, _, rest = name.partition(".")
    layer = int(rest.partition(".")[0]) + 1 if first == "blocks" else depth + 1
    if first in ("cls_token", "pos_embed", "patch_embed", "norm_pre"):
        layer = 0
    return float(decay ** (depth + 1 - layer))


def is_decayed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether weight decay applies: only to weight matrices, not to biases, norms, the CLS or the mask token."""
    return name.endswith(".weight") and len(shape) >= 2


def sincos_pos_embed(dim: int, grid_size: int, num_prefix_tokens: int = 1) -> NDArray[np.float64]:
    """Fixed 2-D sine-cosine position embeddings (1, P + N, D); the rows of the prefix tokens are zero.

    The first half of the width encodes the column, the second half the row. In each half, sines come before cosines, at
    frequencies `10000 ** -(i / (D / 4))`, as in MAE.
    """
    frequency = 10_000.0 ** -(np.arange(dim // 4) / (dim / 4))
    angle = np.arange(grid_size)[:, None] * frequency
    axis: NDArray[np.float64] = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)  # (grid, D/2)
    column = np.broadcast_to(axis[None, :, :], (grid_size, grid_size, dim // 2))
    row = np.broadcast_to(axis[:, None, :], (grid_size, grid_size, dim // 2))
    embeddings = np.zeros((1, num_prefix_tokens + grid_size * grid_size, dim))
    embeddings[0, num_prefix_tokens:] = np.concatenate([column, row], axis=2).reshape(-1, dim)
    return embeddings


def _xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    fan_out, fan_in = shape[0], math.prod(shape[1:])
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


def _initial_value(
    name: str, shape: tuple[int, ...], config: ModelConfig, seed: int, place: int
) -> NDArray[np.float64]:
    rng = generator(seed, Purpose.INIT, major=place)
    if name == "pos_embed":
        return sincos_pos_embed(config.embed_dim, config.grid_size, config.num_prefix_tokens)
    if name == "decoder_pos_embed":
        return sincos_pos_embed(config.decoder_embed_dim, config.grid_size, config.num_prefix_tokens)
    if name in ("cls_token", "mask_token"):
        return rng.normal(0.0, 0.02, shape)
    if name.endswith(".bias"):
        return np.zeros(shape)
    if len(shape) == 1:  # LayerNorm weight
        return np.ones(shape)
    value = _xavier_uniform(rng, shape)
    if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
        value *= config.init_residual_scale
    return value


def initial_parameters(config: ModelConfig, seed: int, dtype: str = "float32") -> Arrays:
    """Initial values of the student by canonical name. The teacher starts as a copy of the encoder's part.

    Linear layers are Xavier-uniform, and so is the patch projection, taken as a linear layer. Biases are 0, norms have
    weight 1, CLS and mask token are normal with standard deviation 0.02. `config.init_residual_scale` multiplies the
    last layer of every residual branch.
    """
    shapes = student_shapes(config)
    return {
        name: _initial_value(name, shape, config, seed, place).astype(dtype)
        for place, (name, shape) in enumerate(shapes.items())
    }


HEAD_STD = 2e-5
"""Standard deviation of the head's initial weights in fine-tuning, as in MAE's recipe; the first logits are near 0."""


def pretrained_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of the parameters that fine-tuning takes from a pre-trained encoder: no head, no `fc_norm`."""
    return {name: s for name, s in encoder_shapes(config).items() if not name.startswith(("head.", "fc_norm."))}


def finetuning_state(config: ModelConfig, seed: int, encoder: Arrays | None, ema: bool) -> TrainState:
    """Initial state of fine-tuning, float32. The head starts with tiny weights (`HEAD_STD`).

    Args:
        encoder: pre-trained parameters, at least those in `pretrained_shapes`; None for random initialisation.
        ema: whether the run keeps a moving average of the weights, which starts as an exact copy.
    """
    model, shapes = initial_parameters(config, seed), encoder_shapes(config)
    model = {name: model[name] for name in shapes}
    rng = generator(seed, Purpose.INIT, major=len(shapes), minor=1)
    model["head.weight"] = rng.normal(0.0, HEAD_STD, shapes["head.weight"]).astype(np.float32)
    if encoder is not None:
        model |= {name: encoder[name].astype(np.float32) for name in pretrained_shapes(config)}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in finetuned_shapes(config).items()}
    return TrainState(model, dict(model) if ema else {}, zeros, dict(zeros))


def pretraining_state(config: ModelConfig, seed: int) -> TrainState:
    """Initial state of pre-training, float32: the student from the seed, the teacher its exact copy, moments zero.

    Backends that train in another precision convert these numbers, so that all start from the same ones.
    """
    student = initial_parameters(config, seed)
    zeros = {name: np.zeros_like(value) for name, value in student.items() if is_trainable(name)}
    teacher = {name: student[name] for name in encoder_shapes(config)}
    return TrainState(student, teacher, zeros, dict(zeros))
