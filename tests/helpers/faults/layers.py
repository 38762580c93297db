"""Faults of what a block is made of besides attention."""

from __future__ import annotations

from faults.fault import numpy_edit, torch_edit

TANH = "0.5 * x * (1.0 + np.tanh(TANH_SCALE * (x + TANH_CUBE * x**3)))"
BY_NAME = "ops.ACTIVATIONS[activation](ops"
DECODED = 'config, p, "decoder_blocks", np.concatenate([context, queries], axis=1)'
EXACT = 'config.model_copy(update={"activation": "gelu"})'

NORM_PRE = 'norm(p, "norm_pre", tokens, config.layer_norm_eps) if config.pre_norm else tokens'
PLACED = 'embedded + p["pos_embed"][0, config.num_prefix_tokens + ids]'
NORM_EMBEDDED = f"({NORM_PRE.replace('tokens', 'embedded')})"
ENTRY = "tokens = pre_normed(config, p, tokens)"
D_NORM_PRE = 'grad = norm_backward(p, grads, "norm_pre", tokens, config.layer_norm_eps, grad)'

FAULTS = (
    numpy_edit("always exact GELU", "layers-definition", ("model", BY_NAME, "ops.gelu(ops")),
    numpy_edit(
        "exact GELU for GELU by tanh", "layers-definition", ("ops", '"gelu_tanh": gelu_tanh', '"gelu_tanh": gelu')
    ),
    numpy_edit(
        "GELU by tanh without its cube", "layers-definition", ("ops", TANH, TANH.replace(" + TANH_CUBE * x**3", ""))
    ),
    numpy_edit(
        "exact GELU for quick GELU", "layers-definition", ("ops", '"quick_gelu": quick_gelu', '"quick_gelu": gelu')
    ),
    numpy_edit("SiLU for quick GELU", "layers-definition", ("ops", "expit(QUICK_SCALE * x)", "expit(x)")),
    numpy_edit("sigmoid of quick GELU alone", "layers-definition", ("ops", "x * expit(QUICK", "expit(QUICK")),
    numpy_edit(
        "exact GELU in the decoder", "model-pretraining", ("model", DECODED, DECODED.replace("config", EXACT, 1))
    ),
    numpy_edit(
        "GELU's gradient for GELU by tanh",
        "gradients-differences",
        ("backward", '"gelu_tanh": gelu_tanh_backward', '"gelu_tanh": gelu_backward'),
    ),
    numpy_edit(
        "gradient of GELU by tanh without its cube", "gradients-differences", ("backward", "3.0 * ops.TANH_CUBE", "0.0")
    ),
    numpy_edit(
        "GELU's gradient for quick GELU",
        "gradients-differences",
        ("backward", '"quick_gelu": quick_gelu_backward', '"quick_gelu": gelu_backward'),
    ),
    numpy_edit(
        "quick GELU's gradient without its scale",
        "finetune-differences",
        ("backward", "s + ops.QUICK_SCALE * x", "s + x"),
    ),
    numpy_edit(
        "patch projection with a bias that is not there",
        "layers-definition",
        (
            "model",
            "if config.patch_bias else np.zeros(len(weight))",
            "if config.patch_bias else np.arange(len(weight))",
        ),
    ),
    numpy_edit(
        "patch projection without its bias",
        "layers-definition",
        (
            "model",
            'p["patch_embed.proj.bias"] if config.patch_bias else',
            "0 * weight[:, 0, 0, 0] if config.patch_bias else",
        ),
    ),
    numpy_edit("no norm before the blocks", "layers-definition", ("model", NORM_PRE, "tokens")),
    numpy_edit(
        "norm before the blocks with an eps of its own",
        "layers-definition",
        ("model", NORM_PRE, NORM_PRE.replace("config.layer_norm_eps", "1e-6")),
    ),
    numpy_edit(
        "norm before the positions",
        "layers-definition",
        ("model", PLACED, PLACED.replace("embedded", NORM_EMBEDDED)),
        ("model", NORM_PRE, "tokens"),
    ),
    numpy_edit(
        "norm before the blocks not on the prefix",
        "layers-definition",
        ("model", NORM_PRE, f"np.concatenate([tokens[:, :1], {NORM_PRE.replace('tokens', 'tokens[:, 1:]')}], axis=1)"),
    ),
    numpy_edit(
        "teacher without the norm before the blocks",
        "model-pretraining",
        ("model", ENTRY, "tokens = pre_normed(config, p, tokens) if num_prefix_tokens else tokens"),
    ),
    numpy_edit(
        "student without the norm before the blocks",
        "model-pretraining",
        ("model", '"blocks", pre_normed(config, p, tokens)', '"blocks", tokens'),
    ),
    numpy_edit(
        "norm before the blocks without a gradient of its own",
        "gradients-differences",
        ("backward", D_NORM_PRE, D_NORM_PRE.replace("grads,", "zero_gradients(p),")),
    ),
    numpy_edit(
        "norm before the blocks left out of the backward pass",
        "gradients-differences",
        ("backward", D_NORM_PRE, D_NORM_PRE.replace("grad = ", "")),
    ),
    numpy_edit(
        "norm before the blocks left out of the backward pass of fine-tuning",
        "finetune-differences",
        ("backward", D_NORM_PRE, D_NORM_PRE.replace("grad = ", "")),
    ),
    numpy_edit(
        "norm before the blocks at the head's rate",
        "finetune-step",
        ("finetuning", "layer_scale(name, depth", 'layer_scale(name.replace("norm_pre", "norm"), depth'),
    ),
    torch_edit(
        "student without the norm before the blocks in PyTorch",
        "gradients-reference",
        "float64",
        (
            "model",
            "self.pre_normed(self.prepend_prefix(self.embed(patches, visible)))",
            "self.prepend_prefix(self.embed(patches, visible))",
        ),
    ),
    torch_edit(
        "quick GELU not scaled back",
        "layers-definition",
        "float64",
        ("ops", "F.silu(QUICK_SCALE * x) * (1.0 / QUICK_SCALE)", "F.silu(QUICK_SCALE * x)"),
    ),
    torch_edit(
        "exact GELU for GELU by tanh in PyTorch",
        "layers-definition",
        "float32",
        ("ops", 'functools.partial(F.gelu, approximate="tanh")', "F.gelu"),
    ),
    torch_edit(
        "exact GELU in PyTorch's decoder",
        "gradients-reference",
        "float64",
        (
            "model",
            "Block(dim, config.decoder_num_heads, hidden, config.layer_norm_eps, config.activation)",
            "Block(dim, config.decoder_num_heads, hidden, config.layer_norm_eps)",
        ),
    ),
)
