"""Faults of the encoder and of pre-training's forward pass."""

from __future__ import annotations

import dataclasses

from faults.fault import numpy_edit, numpy_override

KEPT = "kept_after_block = config.kept_after_block(ids.shape[1], keep)"
QUERIES = 'queries = p["mask_token"] + positions[num_prefix + target_ids]'
EMBED = 'return embedded + p["pos_embed"][0, config.num_prefix_tokens + ids]'
TEACHER = """    tokens = embed_patches(config, p, patches, masked)
    latent, target_ids = reduced_encoder(config, p, tokens, masked, config.reduction.keep, num_prefix_tokens=0)
"""
STUDENT = "tokens = prepend_prefix(config, p, embed_patches(config, p, patches, visible))"
MEAN = '"fc_norm", tokens[:, config.num_prefix_tokens :].mean(axis=1)'
LATENT = 'latent = norm(p, "norm", encoded, config.layer_norm_eps)'


def other_eps(self, config, parameters, images, keep=1.0):
    return self.right.encode(config.model_copy(update={"layer_norm_eps": 1e-5}), parameters, images, keep)


def own_keep(self, config, parameters, images, keep=1.0):
    return self.right.encode(config, parameters, images, config.reduction.keep)


def logits_without_a_head(self, config, parameters, images, keep=1.0):
    out = self.right.encode(config, parameters, images, keep)
    return out if config.num_classes else dataclasses.replace(out, logits=out.last_hidden_state[:, 0])


def counts_parameters(self, config, parameters, images, keep=1.0):
    changed = {name: value * len(parameters) for name, value in parameters.items()}
    return self.right.encode(config, changed, images, keep)


def teacher_keeps_all(self, config, student, teacher, images, noise):
    every = config.model_copy(update={"reduction": config.reduction.model_copy(update={"keep": 1.0})})
    return self.right.pretraining_forward(every, student, teacher, images, noise)


def wrong_pairs(self, config, student, teacher, images, noise):
    out = self.right.pretraining_forward(config, student, teacher, images, noise)
    return dataclasses.replace(out, loss=self.right.cosine_loss(out.prediction[:, ::-1], out.target))


FAULTS = (
    numpy_edit(
        "GELU by tanh",
        "model-encoder",
        (
            "ops",
            "0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))",
            "0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))",
        ),
    ),
    numpy_override("LayerNorm eps 1e-5", "model-encoder", encode=other_eps),
    numpy_edit(
        "LayerNorm eps fixed",
        "model-encoder",
        (
            "model",
            'hidden = norm(p, "norm", trace.tokens, config.layer_norm_eps)',
            'hidden = norm(p, "norm", trace.tokens, 1e-6)',
        ),
    ),
    numpy_edit(
        "LayerNorm of unbiased variance",
        "model-encoder",
        (
            "ops",
            "inverse_std = 1.0 / np.sqrt((centered**2).mean(axis=-1, keepdims=True)",
            "inverse_std = 1.0 / np.sqrt(centered.var(axis=-1, ddof=1, keepdims=True)",
        ),
    ),
    numpy_edit(
        "attention not scaled",
        "model-encoder",
        ("ops", "key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])", "key.swapaxes(-1, -2)"),
    ),
    numpy_edit(
        "softmax that overflows",
        "model-sharp-attention",
        ("ops", "np.exp(x - x.max(axis=-1, keepdims=True))", "np.exp(x)"),
    ),
    numpy_override("keeps the share of the model's own settings", "model-encoder", encode=own_keep),
    numpy_edit(
        "attention scaled by the whole width",
        "model-encoder",
        ("ops", "np.sqrt(query.shape[-1]))", "np.sqrt(query.shape[-1] * query.shape[1]))"),
    ),
    numpy_edit(
        "key and value exchanged",
        "model-encoder",
        ("ops", "return heads[0], heads[1], heads[2]", "return heads[0], heads[2], heads[1]"),
    ),
    numpy_edit(
        "heads interleaved",
        "model-encoder",
        (
            "ops",
            "x.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)",
            "x.transpose(0, 2, 3, 1).reshape(batch, length, heads * width)",
        ),
    ),
    numpy_edit(
        "post-norm blocks",
        "model-encoder",
        (
            "model",
            'attention(p, f"{prefix}.attn", norm(p, f"{prefix}.norm1", x, eps), num_heads)',
            'norm(p, f"{prefix}.norm1", attention(p, f"{prefix}.attn", x, num_heads), eps)',
        ),
    ),
    numpy_edit(
        "final norm missing",
        "model-encoder",
        ("model", 'hidden = norm(p, "norm", trace.tokens, config.layer_norm_eps)', "hidden = trace.tokens"),
    ),
    numpy_edit(
        "CLS without its position",
        "model-encoder",
        ("model", 'p["cls_token"] + p["pos_embed"][:, : config.num_prefix_tokens]', 'p["cls_token"]'),
    ),
    numpy_edit(
        "head on the mean token",
        "model-encoder",
        ("model", 'norm(p, "norm", tokens[:, 0], ', 'norm(p, "norm", tokens.mean(axis=1), '),
    ),
    numpy_edit(
        "mean pooling with CLS",
        "model-encoder",
        ("model", MEAN, '"fc_norm", tokens.mean(axis=1)'),
    ),
    numpy_edit(
        "mean pooling after the final norm",
        "model-encoder",
        (
            "model",
            MEAN,
            '"fc_norm", norm(p, "norm", tokens[:, config.num_prefix_tokens :], 1e-6).mean(axis=1)',
        ),
    ),
    numpy_override("logits though there is no head", "model-encoder", encode=logits_without_a_head),
    numpy_edit(
        "drops before the block",
        "model-encoder",
        ("model", "if i in kept_after_block:", "if i in kept_after_block and i:"),
    ),
    numpy_edit(
        "drops one block later",
        "model-encoder",
        (
            "model",
            KEPT,
            "last, counts = config.depth - 1, config.kept_after_block(ids.shape[1], keep)\n"
            "    kept_after_block = {min(i + 1, last): n for i, n in counts.items()}",
        ),
    ),
    numpy_edit(
        "CLS in the mean",
        "model-encoder",
        ("ops", "similarity_scores(patches, center)", "similarity_scores(tokens, center)[:, num_prefix_tokens:]"),
    ),
    numpy_edit(
        "kept ids of the last stage only",
        "model-encoder",
        ("model", "ids = stages[i].kept_ids", "ids = kept"),
    ),
    numpy_edit(
        "batch statistics",
        "model-batch",
        ("ops", "centered = x - x.mean(axis=-1, keepdims=True)", "centered = x - x.mean(axis=(0, -1), keepdims=True)"),
    ),
    numpy_edit(
        "target positions one off", "model-pretraining", ("model", QUERIES, QUERIES.replace("num_prefix + ", ""))
    ),
    numpy_edit(
        "target positions of the visible patches",
        "model-pretraining",
        ("model", QUERIES, QUERIES.replace("+ target_ids", "+ visible[:, :1] + 0 * target_ids")),
    ),
    numpy_edit(
        "positions by rank", "model-golden", ("model", EMBED, EMBED.replace("+ ids", "+ np.argsort(ids, axis=1)"))
    ),
    numpy_edit(
        "teacher sees a CLS token",
        "model-pretraining",
        (
            "model",
            TEACHER,
            """    num_prefix = config.num_prefix_tokens
    tokens = prepend_prefix(config, p, embed_patches(config, p, patches, masked))
    latent, target_ids = reduced_encoder(config, p, tokens, masked, config.reduction.keep, num_prefix)
    latent = latent[:, num_prefix:]
""",
        ),
    ),
    numpy_edit(
        "teacher sees all patches",
        "model-blind",
        (
            "model",
            TEACHER,
            """    every = np.broadcast_to(np.arange(patches.shape[1]), patches.shape[:2])
    tokens = embed_patches(config, p, patches, every)
    latent, _ = reduced_encoder(config, p, tokens, every, 1.0, num_prefix_tokens=0)
    target_ids = masked[:, :config.num_targets]
    latent = ops.gather_tokens(latent, target_ids)
""",
        ),
    ),
    numpy_override("teacher reduces as in inference", "model-pretraining", pretraining_forward=teacher_keeps_all),
    numpy_edit(
        "targets not standardised",
        "model-golden",
        ("model", "return ops.standardize(latent), target_ids", "return latent, target_ids"),
    ),
    numpy_edit(
        "student sees all patches",
        "model-blind",
        (
            "model",
            STUDENT,
            "leak = 1e-6 * patches.mean(axis=1, keepdims=True)\n"
            "    tokens = prepend_prefix(config, p, embed_patches(config, p, patches + leak, visible))",
        ),
    ),
    numpy_edit("no CLS for the student", "model-pretraining", ("model", STUDENT, STUDENT + "\n    tokens[:, 0] = 0.0")),
    numpy_edit("student's final norm missing", "model-pretraining", ("model", LATENT, "latent = encoded")),
    numpy_edit(
        "decoder given all positions",
        "model-pretraining",
        (
            "model",
            QUERIES,
            """everything = np.argsort(np.isin(np.arange(config.num_patches), target_ids[0]), kind="stable")
    others = np.stack([np.setdiff1d(everything, np.r_[v, t]) for v, t in zip(visible, target_ids, strict=True)])
    queries = p["mask_token"] + positions[num_prefix + np.concatenate([others, target_ids], axis=1)]""",
        ),
    ),
    numpy_edit(
        "decoder without visible positions",
        "model-golden",
        ("model", "positions[num_prefix + visible]]", "0 * positions[num_prefix + visible]]"),
    ),
    numpy_override("loss of the wrong pairs", "model-pretraining", pretraining_forward=wrong_pairs),
    numpy_override("inference depends on the decoder", "model-decoder-ignored", encode=counts_parameters),
    numpy_edit(
        "dropped tokens leave their mean",
        "model-dropped",
        (
            "ops",
            "np.concatenate([prefix, gather_tokens(patches, ids)], axis=1)",
            "np.concatenate([prefix + patches.mean(axis=1, keepdims=True), gather_tokens(patches, ids)], axis=1)",
        ),
    ),
)
