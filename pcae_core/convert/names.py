"""Parameter names of other projects, as data. PCAE uses the names of timm, MAE and DeiT."""

from __future__ import annotations

import re
from typing import Literal

from pcae_core.config import Activation

HF_NAMES: dict[str, tuple[str, ...]] = {
    "cls_token": ("embeddings.cls_token",),
    "pos_embed": ("embeddings.position_embeddings",),
    "patch_embed.proj": ("embeddings.patch_embeddings.projection",),
    "norm": ("layernorm",),
    "head": ("classifier",),
    "mask_token": ("decoder.mask_token",),
    "decoder_pos_embed": ("decoder.decoder_pos_embed",),
    "decoder_embed": ("decoder.decoder_embed",),
    "decoder_norm": ("decoder.decoder_norm",),
    "decoder_pred": ("decoder.decoder_pred",),
}
"""Our name, without `.weight` or `.bias` -> names in Hugging Face's ViTModel and ViTMAEModel."""

HF_BLOCKS = {"blocks": "encoder.layer", "decoder_blocks": "decoder.decoder_layers"}
"""Our prefix of blocks -> Hugging Face's."""

HF_IN_BLOCK: dict[str, tuple[str, ...]] = {
    "norm1": ("layernorm_before",),
    "attn.qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attn.proj": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("intermediate.dense",),
    "mlp.fc2": ("output.dense",),
}
"""Our name in a block -> Hugging Face's names. Our tensor joins theirs along the first axis."""

HF_RENAMED = (
    (r"^vit\.", ""),
    # transformers 5 saves the decoder's blocks under this name, earlier versions under the documented one.
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    # Names in `state_dict()` of transformers 5; `save_pretrained` writes the names above.
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
"""Pattern -> replacement, from names in files to the names above."""

CLIP_NAMES: dict[str, tuple[str, ...]] = {
    "cls_token": ("embeddings.class_embedding",),
    "pos_embed": ("embeddings.position_embedding.weight",),
    "patch_embed.proj": ("embeddings.patch_embedding",),
    "norm_pre": ("pre_layrnorm",),
    "norm": ("post_layernorm",),
}
"""Those of Hugging Face's CLIPVisionModel, with its spelling."""
CLIP_BLOCKS = {"blocks": "encoder.layers"}
CLIP_IN_BLOCK: dict[str, tuple[str, ...]] = {
    "norm1": ("layer_norm1",),
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}

OPEN_CLIP_NAMES: dict[str, tuple[str, ...]] = {
    "cls_token": ("class_embedding",),
    "pos_embed": ("positional_embedding",),
    "patch_embed.proj": ("conv1",),
    "norm_pre": ("ln_pre",),
    "norm": ("ln_post",),
}
"""Those of the vision tower of OpenCLIP and of OpenAI's CLIP."""
OPEN_CLIP_BLOCKS = {"blocks": "transformer.resblocks"}
OPEN_CLIP_IN_BLOCK: dict[str, tuple[str, ...]] = {
    "norm1": ("ln_1",),
    "attn.qkv": ("attn.in_proj_",),
    "attn.proj": ("attn.out_proj",),
    "norm2": ("ln_2",),
    "mlp.fc1": ("mlp.c_fc",),
    "mlp.fc2": ("mlp.c_proj",),
}
"""No dot follows a name that ends in an underscore: `attn.in_proj_weight`."""

HF_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
"""Hugging Face's `hidden_act` -> ours."""

Layout = Literal["timm", "hf", "clip", "open_clip"]
"""Naming scheme of tensors."""
STEMS: dict[Layout, str] = {
    "timm": "patch_embed.proj.weight",
    "hf": "embeddings.patch_embeddings.projection.weight",
    "clip": "embeddings.class_embedding",
    "open_clip": "class_embedding",
}
"""Name of a tensor that every model has exactly once. The words before it are the prefix of the model."""
TABLES: dict[Layout, tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, tuple[str, ...]]]] = {
    "hf": (HF_NAMES, HF_BLOCKS, HF_IN_BLOCK),
    "clip": (CLIP_NAMES, CLIP_BLOCKS, CLIP_IN_BLOCK),
    "open_clip": (OPEN_CLIP_NAMES, OPEN_CLIP_BLOCKS, OPEN_CLIP_IN_BLOCK),
}
"""Names outside blocks, where blocks are, names inside them. timm's are ours."""
HF_INNER = "vit."
"""Prefix of the encoder in Hugging Face's models with a head or a decoder; the head does not have it."""
AVERAGES = frozenset({"model_ema", "state_dict_ema", "ema", "ema_model", "ema_state_dict"})
"""Words in a prefix that mark a moving average of the weights."""
INNER_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Words that compiling and sharding insert into names, also in the middle."""

HARMLESS: tuple[tuple[str, str], ...] = (
    ("mask_token", "used only in masked image modelling; features do not depend on it"),
    ("embeddings.mask_token", "used only in masked image modelling; features do not depend on it"),
    ("embeddings.position_ids", "the numbers of the places, in their order"),
    ("proj", "the projection to the space of texts reads the features and does not change them"),
    ("pooler.*", "the pooler reads the last hidden state and does not change it"),
    ("decoder.0.*", "the head of masked image modelling reads the last hidden state and does not change it"),
    ("head.[0-9]*.*", "a projection head reads the features and does not change them"),
    ("head.mlp.*", "a projection head reads the features and does not change them"),
    ("head.last_layer.*", "a projection head reads the features and does not change them"),
)
"""Pattern of a tensor's name -> why nothing is lost if our model has no place for it."""

OUTPUTS: tuple[tuple[str, str], ...] = (
    ("head_dist.*", "the second head of a distilled DeiT"),
    ("fc_norm.*", "a norm of the pooled tokens, which ours has under a head only"),
    ("decoder_pred.*", "MAE predicts pixels, PCAE features of the teacher"),
    ("decoder.decoder_pred.*", "MAE predicts pixels, PCAE features of the teacher"),
)
"""Pattern of a tensor's name -> why only an output other than the features is lost without it."""

DIFFERENCES: tuple[tuple[str, str], ...] = (
    ("dist_token", "a distilled DeiT, whose distillation token takes part in attention: its features would differ"),
    ("reg_token", "register tokens take part in attention: features would differ"),
    ("register_tokens", "register tokens take part in attention: features would differ"),
    ("attn_pool.*", "this model pools by attention; ours reads the class token"),
    ("pre_logits.*", "a layer before the head, which ours does not have"),
    ("blocks.*.attn.?_norm.*", "queries and keys are normalised: features would differ"),
    ("blocks.*.mlp.w*", "a gated MLP: features would differ"),
    ("*relative_position*", "relative position biases: features would differ"),
)
"""Pattern of a tensor's name -> why the model differs from ours."""

HF_MODEL_TYPES = {
    "deit": "Hugging Face's DeiT always has a distillation token",
    "pcae": "it is an ONNX model of pcae export; convert what it was exported from",
    "beit": "BEiT scales its residual branches and has no bias of keys, and most have relative position biases",
}
"""Model type of Hugging Face that is refused -> reason."""


def theirs(name: str, layout: Layout) -> tuple[str, ...]:
    """The layout's names of one of our parameters, in the order in which they are joined."""
    outside, places, inside = TABLES[layout]
    stem, dot, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        stem, dot, kind = name, "", ""
    block = re.fullmatch(r"(\w*blocks)\.(\d+)\.(.+)", stem)
    if block is None:
        return tuple(f"{found}{dot}{kind}" for found in outside[stem])
    place = f"{places[block[1]]}.{block[2]}"
    return tuple(f"{place}.{found}{'' if found.endswith('_') else '.'}{kind}" for found in inside[block[3]])


def from_hf_file(name: str) -> str:
    """Translate a name in a file of a Hugging Face ViT to the form of `theirs`."""
    for pattern, replacement in HF_RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
