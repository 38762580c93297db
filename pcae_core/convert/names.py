"""What others call the parameters, as data. timm's, MAE's and DeiT's names are ours already."""

from __future__ import annotations

import re

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
"""Ours, without `.weight` or `.bias` -> those of Hugging Face's ViTModel and ViTMAEModel."""

HF_BLOCKS = {"blocks": "encoder.layer", "decoder_blocks": "decoder.decoder_layers"}
"""Where blocks are."""

HF_IN_BLOCK: dict[str, tuple[str, ...]] = {
    "norm1": ("layernorm_before",),
    "attn.qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attn.proj": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("intermediate.dense",),
    "mlp.fc2": ("output.dense",),
}
"""Inside a block; ours is theirs one below the other."""

HF_RENAMED = (
    (r"^vit\.", ""),
    # transformers 5 saves the decoder's blocks under this name, earlier versions under the documented one.
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
)
"""Pattern -> replacement: names in files to those above."""

WRAPPERS = ("", "model.", "state_dict.", "module.", "model.module.", "state_dict.module.")
"""What may stand before the names in a `.pth` file, the parts of a nested dictionary joined by dots."""

DIFFERENCES: tuple[tuple[str, str], ...] = (
    ("dist_token", "a distilled DeiT, whose distillation token takes part in attention: its features would differ"),
    ("head_dist.*", "the second head of a distilled DeiT"),
    ("fc_norm.*", "a norm of the pooled tokens, which ours has under a head only"),
    ("norm_pre.*", "this model normalises the embedded tokens: features would differ"),
    ("reg_token", "register tokens take part in attention: features would differ"),
    ("attn_pool.*", "this model pools by attention; ours reads the class token"),
    ("pre_logits.*", "a layer before the head, which ours does not have"),
    ("blocks.*.attn.?_norm.*", "queries and keys are normalised: features would differ"),
    ("blocks.*.mlp.w*", "a gated MLP: features would differ"),
    ("*relative_position*", "relative position biases: features would differ"),
    ("pooler.dense.*", "the pooler reads the last hidden state and does not change it"),
    ("embeddings.mask_token", "used only in masked image modelling; features do not depend on it"),
    ("decoder_pred.*", "MAE predicts pixels, PCAE features of the teacher"),
    ("decoder.decoder_pred.*", "MAE predicts pixels, PCAE features of the teacher"),
)
"""Pattern of a tensor's name -> what it means that ours has no place for it."""

HF_MODEL_TYPES = {
    "deit": "Hugging Face's DeiT always has a distillation token",
    "beit": "it has relative position biases",
}
"""Model types that are refused, and why."""

PUBLISHED_HEADS = {(192, 12): 3, (384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16}
"""Width and depth -> attention heads of the published ViTs: a file of tensors does not tell."""
PUBLISHED_DECODER_HEADS = {(512, 8): 16}
"""Likewise of MAE's decoder."""


def to_hf(name: str) -> tuple[str, ...]:
    """Hugging Face's names of one of our parameters, in the order in which they are joined."""
    stem, dot, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        stem, dot, kind = name, "", ""
    block = re.fullmatch(r"(\w*blocks)\.(\d+)\.(.+)", stem)
    if block is None:
        return tuple(f"{theirs}{dot}{kind}" for theirs in HF_NAMES[stem])
    place = f"{HF_BLOCKS[block[1]]}.{block[2]}"
    return tuple(f"{place}.{theirs}.{kind}" for theirs in HF_IN_BLOCK[block[3]])


def from_hf_file(name: str) -> str:
    """A name in a Hugging Face file as `to_hf` gives it."""
    for pattern, replacement in HF_RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
