"""Facts about published models that their tensors do not show, as data.

timm's models are those of version 1.0.31 that have a class token and timm's plain blocks.
"""

from __future__ import annotations

Size = tuple[int, int]
"""Width and depth."""

HEADS: dict[Size, int] = {(768, 12): 12, (1024, 24): 16, (1280, 32): 16}
"""Size -> number of attention heads, if all published models of that size agree."""
AMBIGUOUS_HEADS: dict[Size, str] = {
    (192, 12): "3 in timm and DeiT, 12 in MAE-Lite",
    (384, 12): "6 in timm, DeiT and DINO, 12 in MoCo v3",
}
"""Size -> numbers of attention heads, if published models of that size differ."""
DECODER_HEADS: dict[Size, int] = {(512, 8): 16}
"""Size of MAE's decoder -> number of attention heads."""

TIMM_HEADS: dict[Size, int] = HEADS | {
    (64, 6): 2, (192, 12): 3, (256, 10): 4, (384, 12): 6, (384, 36): 6, (512, 12): 8, (640, 12): 10, (896, 12): 14,
    (1408, 40): 16, (1664, 48): 16,
}  # fmt: skip
"""Size of timm's plain architectures -> number of attention heads."""
TIMM_PLAIN = (
    r"(vit|deit|deit3)_(tiny|small|medium|base|large|huge|giant|gigantic)_patch\d+(_plus)?_(\d+|dinov2|224_miil|36x1_224)"
    r"|flexivit_(small|base|large)|test_vit"
)
"""Names of timm's plain architectures: exact GELU, LayerNorm with eps 1e-6, heads as above."""
TIMM_EPS = 1e-6
TIMM_CLIP = (
    r"vit_(xsmall|medium|betwixt|base|large|huge|giant|gigantic)_patch\d+(_plus)?_clip(?P<quick>_quickgelu)?_\d+"
)
"""Those with a norm before the blocks; some have another activation."""
CLIP_EPS = 1e-5
"""Of CLIP's models, everywhere."""

_ROTARY = "it turns queries and keys by their place (RoPE), which leaves no tensor: features would differ"
TIMM_REFUSED: tuple[tuple[str, str], ...] = (
    ("*rope*", _ROTARY),
    ("eva02_*", _ROTARY),
    ("*_dinov3*", _ROTARY),
    ("vit_pe_*", _ROTARY),
    ("*_lingbot", _ROTARY),
    ("*_sapiens2", _ROTARY),
    ("*siglip*", "it has no class token, and often another GELU: features would differ"),
    ("aimv2_*", "it has RMSNorm and gated MLPs: features would differ"),
)
"""Pattern of an architecture's name -> why it is refused, whatever its tensors look like."""
TIMM_ARGUMENTS = frozenset({
    "img_size", "patch_size", "in_chans", "num_classes", "global_pool", "embed_dim", "depth", "num_heads", "mlp_ratio",
    "qkv_bias", "qk_norm", "proj_bias", "scale_attn_norm", "scale_mlp_norm", "init_values", "class_token", "pos_embed",
    "no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm", "dynamic_img_size", "dynamic_img_pad",
    "strict_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate",
    "drop_path_rate", "weight_init", "fix_init",
})  # fmt: skip
"""Arguments of timm's models that are safe: tensors show them, PCAE reads them, or they do not change features."""
TIMM_POOLS = {"token": "cls", "avg": "mean"}  # nosec B105 # no password
"""timm's name of a pooling -> PCAE's."""
