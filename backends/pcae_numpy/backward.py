"""The backward pass, derived by hand.

Each `*_backward` takes the arguments of its forward function and the gradient with respect to the output. It recomputes
intermediate values, adds the gradients of the parameters to `grads`, and returns the gradient with respect to the
input. The teacher has no gradient: its targets are constants. Letters as in `ops`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf, expit

from pcae_core.config import Activation, ModelConfig
from pcae_core.parameters import finetuned_shapes, is_trainable
from pcae_numpy import ops
from pcae_numpy.model import (
    Parameters,
    ReductionTrace,
    StudentTrace,
    attention,
    classify,
    embed_patches,
    every_patch,
    norm,
    pooled,
    prepend_prefix,
)
from pcae_numpy.ops import Floats, Ids

Gradients = dict[str, Floats]


def zero_gradients(parameters: Parameters) -> Gradients:
    """Zeros for every trainable parameter."""
    return {name: np.zeros_like(value) for name, value in parameters.items() if is_trainable(name)}


def linear_backward(p: Parameters, grads: Gradients, prefix: str, x: Floats, grad: Floats) -> Floats:
    """`y = x W^T + b`: dW = grad^T x, db = sum grad, dx = grad W."""
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    weight = p[f"{prefix}.weight"]
    grads[f"{prefix}.weight"] += (grad_rows.T @ rows).reshape(weight.shape)
    if f"{prefix}.bias" in grads:
        grads[f"{prefix}.bias"] += grad_rows.sum(axis=0)
    return grad @ weight.reshape(len(weight), -1)


def norm_backward(p: Parameters, grads: Gradients, prefix: str, x: Floats, eps: float, grad: Floats) -> Floats:
    """`y = n w + b`, `n = (x - mean) / std`: dx = (dn - mean(dn) - n mean(dn n)) / std."""
    n, inverse_std = ops.normalized(x, eps)
    axes = tuple(range(x.ndim - 1))
    grads[f"{prefix}.weight"] += (grad * n).sum(axis=axes)
    grads[f"{prefix}.bias"] += grad.sum(axis=axes)
    dn = grad * p[f"{prefix}.weight"]
    projection = (dn * n).mean(axis=-1, keepdims=True)
    return (dn - dn.mean(axis=-1, keepdims=True) - n * projection) * inverse_std


def gelu_backward(x: Floats, grad: Floats) -> Floats:
    """d/dx x Phi(x) = Phi(x) + x phi(x)."""
    distribution = 0.5 * (1.0 + erf(x / np.sqrt(2.0)))
    density = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi)
    return grad * (distribution + x * density)


def gelu_tanh_backward(x: Floats, grad: Floats) -> Floats:
    """With t = tanh(c (x + a x^3)): d/dx x/2 (1 + t) = (1 + t) / 2 + x/2 (1 - t^2) c (1 + 3 a x^2)."""
    t = np.tanh(ops.TANH_SCALE * (x + ops.TANH_CUBE * x**3))
    inner = ops.TANH_SCALE * (1.0 + 3.0 * ops.TANH_CUBE * x**2)
    return grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t**2) * inner)


def quick_gelu_backward(x: Floats, grad: Floats) -> Floats:
    """With s = sigmoid(c x): d/dx x s = s + c x s (1 - s)."""
    s = expit(ops.QUICK_SCALE * x)
    return grad * (s + ops.QUICK_SCALE * x * s * (1.0 - s))


ACTIVATIONS_BACKWARD: dict[Activation, Callable[[Floats, Floats], Floats]] = {
    "gelu": gelu_backward,
    "gelu_tanh": gelu_tanh_backward,
    "quick_gelu": quick_gelu_backward,
}


def mlp_backward(
    p: Parameters, grads: Gradients, prefix: str, x: Floats, activation: Activation, grad: Floats
) -> Floats:
    """`y = fc2(activation(fc1(x)))`."""
    hidden = ops.linear(x, p[f"{prefix}.fc1.weight"], p[f"{prefix}.fc1.bias"])
    grad = linear_backward(p, grads, f"{prefix}.fc2", ops.ACTIVATIONS[activation](hidden), grad)
    return linear_backward(p, grads, f"{prefix}.fc1", x, ACTIVATIONS_BACKWARD[activation](hidden, grad))


def attention_backward(p: Parameters, grads: Gradients, prefix: str, x: Floats, num_heads: int, grad: Floats) -> Floats:
    """`O = A V`, `A = softmax(Q K^T / sqrt(d))`; softmax: dS = A (dA - sum(dA A))."""
    qkv = ops.linear(x, p[f"{prefix}.qkv.weight"], p[f"{prefix}.qkv.bias"])
    query, key, value = ops.split_heads(qkv, num_heads)
    weights = ops.attention_weights(query, key)
    grad = linear_backward(p, grads, f"{prefix}.proj", ops.merge_heads(weights @ value), grad)

    batch, length, width = grad.shape
    d_out = grad.reshape(batch, length, num_heads, width // num_heads).transpose(0, 2, 1, 3)  # (B, h, T, d)
    d_weights = d_out @ value.swapaxes(-1, -2)
    d_scores = weights * (d_weights - (d_weights * weights).sum(axis=-1, keepdims=True))
    d_scores /= np.sqrt(query.shape[-1])
    d_qkv = np.stack([d_scores @ key, d_scores.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ d_out])
    return linear_backward(p, grads, f"{prefix}.qkv", x, d_qkv.transpose(1, 3, 0, 2, 4).reshape(qkv.shape))


def block_backward(
    config: ModelConfig,
    p: Parameters,
    grads: Gradients,
    prefix: str,
    x: Floats,
    num_heads: int,
    scales: Floats,
    grad: Floats,
) -> Floats:
    """`y = x + a attn(norm1(x))`, `z = y + m mlp(norm2(y))`."""
    attention_scale, mlp_scale = scales[:, :, None, None]
    eps = config.layer_norm_eps
    normed = norm(p, f"{prefix}.norm1", x, eps)
    y = x + attention_scale * attention(p, f"{prefix}.attn", normed, num_heads)

    hidden = norm(p, f"{prefix}.norm2", y, eps)
    d_normed = mlp_backward(p, grads, f"{prefix}.mlp", hidden, config.activation, mlp_scale * grad)
    grad = grad + norm_backward(p, grads, f"{prefix}.norm2", y, eps, d_normed)
    d_normed = attention_backward(p, grads, f"{prefix}.attn", normed, num_heads, attention_scale * grad)
    return grad + norm_backward(p, grads, f"{prefix}.norm1", x, eps, d_normed)


def blocks_backward(
    config: ModelConfig,
    p: Parameters,
    grads: Gradients,
    name: str,
    inputs: list[Floats],
    num_heads: int,
    scales: Floats,
    grad: Floats,
) -> Floats:
    """All blocks, from last to first."""
    for i in reversed(range(len(inputs))):
        grad = block_backward(config, p, grads, f"{name}.{i}", inputs[i], num_heads, scales[i], grad)
    return grad


def cosine_loss_backward(prediction: Floats, target: Floats) -> Floats:
    """d(1 - cos)/dx = -(t - x cos) / |x| with unit vectors x and t, divided by the number of tokens."""
    length = np.sqrt((prediction**2).sum(axis=-1, keepdims=True))
    unit, unit_target = ops.unit_length(prediction), ops.unit_length(target)
    cosine = (unit * unit_target).sum(axis=-1, keepdims=True)
    tokens = prediction[..., 0].size
    return (unit * cosine - unit_target) / np.where(length > 0, length, 1.0) / tokens


def decoder_backward(config: ModelConfig, p: Parameters, grads: Gradients, trace: StudentTrace, grad: Floats) -> Floats:
    """From the gradient by the prediction (B, K, D) to the one by the latent (B, P + V, D)."""
    num_targets = grad.shape[1]
    answers = norm(p, "decoder_norm", trace.decoded, config.layer_norm_eps)[:, -num_targets:]
    d_answers = linear_backward(p, grads, "decoder_pred", answers, grad)
    d_normed = np.zeros_like(trace.decoded)
    d_normed[:, -num_targets:] = d_answers
    grad = norm_backward(p, grads, "decoder_norm", trace.decoded, config.layer_norm_eps, d_normed)
    no_drop_path = np.ones((config.decoder_depth, 2, len(grad)))
    heads = config.decoder_num_heads
    grad = blocks_backward(config, p, grads, "decoder_blocks", trace.decoder_inputs, heads, no_drop_path, grad)
    grads["mask_token"] += grad[:, -num_targets:].sum(axis=(0, 1))
    return linear_backward(p, grads, "decoder_embed", trace.latent, grad[:, :-num_targets])


def soft_cross_entropy_backward(logits: Floats, targets: Floats) -> Floats:
    """d/dx of `-sum(t log softmax(x))` is `softmax(x) sum(t) - t`, divided by the number of images."""
    total = targets.sum(axis=1, keepdims=True)
    return (ops.softmax(logits) * total - targets) / len(logits)


def head_backward(config: ModelConfig, p: Parameters, grads: Gradients, tokens: Floats, grad: Floats) -> Floats:
    """From the gradient by the logits (B, classes) to the one by the last block's output (B, P + k, D)."""
    grad = linear_backward(p, grads, "head", pooled(config, p, tokens), grad)
    d_tokens = np.zeros_like(tokens)
    if config.pooling == "cls":
        d_tokens[:, 0] = norm_backward(p, grads, "norm", tokens[:, 0], config.layer_norm_eps, grad)
    else:
        patches = tokens[:, config.num_prefix_tokens :]
        d_mean = norm_backward(p, grads, "fc_norm", patches.mean(axis=1), config.layer_norm_eps, grad)
        d_tokens[:, config.num_prefix_tokens :] = d_mean[:, None] / patches.shape[1]
    return d_tokens


def gather_backward(kept: Ids, length: int, num_prefix: int, grad: Floats) -> Floats:
    """Scatter the gradient to the places that tokens were gathered from: (B, P + k, D) -> (B, P + n, D), prefix first.

    The choice itself is a step function of the scores and has no gradient.
    """
    scattered = np.zeros((grad.shape[0], length, grad.shape[2]))
    scattered[:, :num_prefix] = grad[:, :num_prefix]
    np.put_along_axis(scattered, num_prefix + kept[:, :, None], grad[:, num_prefix:], axis=1)
    return scattered


def classifier_backward(
    config: ModelConfig, p: Parameters, images: Floats, targets: Floats, trace: ReductionTrace, drop_path: Floats
) -> Gradients:
    """Gradient of the cross-entropy for every parameter that fine-tuning trains."""
    grads = {name: np.zeros_like(p[name]) for name in finetuned_shapes(config)}
    grad = soft_cross_entropy_backward(classify(config, p, trace.tokens), targets)
    grad = head_backward(config, p, grads, trace.tokens, grad)
    for i in reversed(range(config.depth)):
        if i in trace.stages:
            length = trace.inputs[i].shape[1]
            grad = gather_backward(trace.stages[i].kept, length, config.num_prefix_tokens, grad)
        grad = block_backward(config, p, grads, f"blocks.{i}", trace.inputs[i], config.num_heads, drop_path[i], grad)
    patches = ops.patchify(images, config.patch_size)
    embed_backward(config, p, grads, patches, every_patch(config, len(images)), grad)
    return grads


def embed_backward(
    config: ModelConfig, p: Parameters, grads: Gradients, patches: Floats, visible: Ids, grad: Floats
) -> None:
    """Norm before the blocks, prefix tokens and patch projection; the position embeddings are fixed."""
    if config.pre_norm:
        tokens = prepend_prefix(config, p, embed_patches(config, p, patches, visible))
        grad = norm_backward(p, grads, "norm_pre", tokens, config.layer_norm_eps, grad)
    d_prefix, d_patches = grad[:, : config.num_prefix_tokens], grad[:, config.num_prefix_tokens :]
    grads["cls_token"] += d_prefix.sum(axis=(0, 1))
    linear_backward(p, grads, "patch_embed.proj", ops.gather_tokens(patches, visible), d_patches)


def student_backward(
    config: ModelConfig, p: Parameters, trace: StudentTrace, target: Floats, drop_path: Floats
) -> Gradients:
    """Gradient of the loss for every trainable parameter of the student."""
    grads = zero_gradients(p)
    grad = cosine_loss_backward(trace.prediction, target)
    grad = decoder_backward(config, p, grads, trace, grad)
    grad = norm_backward(p, grads, "norm", trace.encoded, config.layer_norm_eps, grad)
    grad = blocks_backward(config, p, grads, "blocks", trace.encoder_inputs, config.num_heads, drop_path, grad)
    embed_backward(config, p, grads, trace.patches, trace.visible, grad)
    return grads
