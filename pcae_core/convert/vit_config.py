"""Check that Hugging Face's ViT can hold an encoder, and make its `config.json`."""

from __future__ import annotations

from collections.abc import Sequence

from pcae_core.config import ModelConfig
from pcae_core.convert.names import HF_ACTIVATIONS


def why_no_vit(model: ModelConfig) -> str | None:
    """The reason why Hugging Face's ViT cannot hold a model that keeps all tokens; None if it can."""
    if model.num_classes and model.pooling == "mean":
        return "this model's head reads the mean of its tokens, and Hugging Face's classifier reads the class token"
    if model.pre_norm:
        return "this model has a norm before its blocks, and Hugging Face's ViT has none"
    return None


def why_no_clip(model: ModelConfig) -> str | None:
    """Why Hugging Face's CLIPVisionModel cannot hold a model with a norm before its blocks; None where it can."""
    if model.num_classes:
        return "this model has a head and a norm before its blocks, and Hugging Face's CLIPVisionModel has no head"
    if model.patch_bias:
        return "this model's patch projection has a bias, and that of Hugging Face's CLIPVisionModel has none"
    return None


def clip_config(model: ModelConfig) -> dict[str, object]:
    """Settings of a CLIPVisionModel, of a model that it can hold (`why_no_clip`)."""
    return _shape(model) | {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"}


def _shape(model: ModelConfig) -> dict[str, object]:
    return {
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "num_channels": model.in_chans,
        "hidden_size": model.embed_dim,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "intermediate_size": model.hidden_dim(model.embed_dim),
        "hidden_act": next(theirs for theirs, ours in HF_ACTIVATIONS.items() if ours == model.activation),
        "layer_norm_eps": model.layer_norm_eps,
    }


def vit_config(model: ModelConfig, class_names: Sequence[str] | None) -> dict[str, object]:
    """Settings of a ViT.

    Args:
        model: a model that a ViT can hold (`why_no_vit`).
        class_names: class names of the head's outputs; None for LABEL_0 and so on.
    """
    names = class_names or [f"LABEL_{i}" for i in range(model.num_classes)]
    settings: dict[str, object] = {
        "architectures": ["ViTForImageClassification" if model.num_classes else "ViTModel"],
        "model_type": "vit",
        **_shape(model),
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return settings | (labels(names) if model.num_classes else {})


def labels(class_names: Sequence[str]) -> dict[str, object]:
    """The maps `id2label` and `label2id` of class names."""
    return {
        "id2label": {str(i): name for i, name in enumerate(class_names)},
        "label2id": {name: i for i, name in enumerate(class_names)},
    }
