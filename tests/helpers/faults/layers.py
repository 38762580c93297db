"""Faults of what a block is made of besides attention."""

from __future__ import annotations

from faults.fault import numpy_edit, torch_edit

TANH = "0.5 * x * (1.0 + np.tanh(TANH_SCALE * (x + TANH_CUBE * x**3)))"
BY_NAME = "ops.ACTIVATIONS[activation](ops"
DECODED = 'config, p, "decoder_blocks", np.concatenate([context, queries], axis=1)'
EXACT = 'config.model_copy(update={"activation": "gelu"})'

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
