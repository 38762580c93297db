"""Faults of single operations."""

from __future__ import annotations

from faults.mutation import numpy_fault, torch_fault

SORT = 'np.sort(np.argsort(scores, axis=1, kind="stable")[:, :k], axis=1)'
MEAN = '(unit if center == "unit" else tokens).mean(axis=1, keepdims=True)'
CLIPPED = "np.clip((unit * unit_length(mean)).sum(axis=-1), -1.0, 1.0)"
VARIANCE = "latents.var(axis=-1, ddof=1, keepdims=True)"
EMA = "{name: momentum * value + (1.0 - momentum) * student[name] for name, value in teacher.items()}"
GATHER = "np.take_along_axis(tokens, ids[:, :, None], axis=1)"
IDS = "ids = select_tokens(similarity_scores(patches, center), k)"
JOINED = "np.concatenate([prefix, gather_tokens(patches, ids)], axis=1), ids"
UPDATED = "ops.ema_update(_all_floats(teacher), _all_floats(student), momentum)"
SPLIT = 'order = np.argsort(noise, axis=1, kind="stable")'

SCORES = [
    numpy_fault(
        "mean of raw tokens for unit ones", "scores-reference", ("ops", MEAN, "tokens.mean(axis=1, keepdims=True)")
    ),
    numpy_fault(
        "mean of unit tokens for raw ones", "scores-reference", ("ops", MEAN, "unit.mean(axis=1, keepdims=True)")
    ),
    numpy_fault(
        "mean over the whole batch", "scores-permutation", ("ops", MEAN, "unit.mean(axis=(0, 1), keepdims=True)")
    ),
    numpy_fault(
        "not kept within [-1, 1]", "scores-bounds", ("ops", CLIPPED, "(unit * unit_length(mean)).sum(axis=-1)")
    ),
    numpy_fault(
        "dot product for cosine", "scores-scale", ("ops", CLIPPED, "(tokens * unit_length(mean)).sum(axis=-1)")
    ),
    numpy_fault(
        "zero tokens divided by zero", "scores-bounds", ("ops", "np.where(largest > 0, largest, 1.0)", "largest")
    ),
    numpy_fault(
        "tiny tokens taken for zero ones",
        "scores-scale",
        ("ops", "np.where(largest > 0, largest, 1.0)", "1.0"),
    ),
    numpy_fault(
        "scores in float32",
        "scores-definition",
        (
            "backend",
            "ops.similarity_scores(_floats(tokens), center)",
            "np.float64(ops.similarity_scores(np.float32(tokens), center))",
        ),
    ),
    numpy_fault(
        "NaN replaced by 0",
        "scores-nan",
        (
            "backend",
            "ops.similarity_scores(_floats(tokens), center)",
            "ops.similarity_scores(np.nan_to_num(_floats(tokens)), center)",
        ),
    ),
    torch_fault(
        "scores in half precision",
        "scores-reference",
        "bfloat16",
        ("ops", "tokens = at_least_float32(tokens)\n    unit = unit_length(tokens)", "unit = unit_length(tokens)"),
        (
            "ops",
            "(unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0)",
            "at_least_float32((unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0))",
        ),
    ),
    torch_fault(
        "scores come out in half precision",
        "scores-reference",
        "float16",
        (
            "ops",
            "(unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0)",
            "(unit * unit_length(mean)).sum(dim=-1).clamp(-1.0, 1.0).half()",
        ),
    ),
]

SELECTION = [
    numpy_fault("keeps the most similar", "select-lowest", ("ops", "np.argsort(scores,", "np.argsort(-scores,")),
    numpy_fault(
        "ties to the higher index",
        "select-lowest",
        (
            "ops",
            SORT,
            'np.sort(scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, :k], axis=1)',
        ),
    ),
    numpy_fault(
        "ids in order of score", "select-lowest", ("ops", SORT, 'np.argsort(scores, axis=1, kind="stable")[:, :k]')
    ),
    numpy_fault(
        "unstable sort",
        "select-lowest",
        ("ops", SORT, "np.sort(np.argpartition(scores, k - 1, axis=1)[:, :k], axis=1)"),
    ),
    numpy_fault(
        "NaN before all numbers",
        "select-lowest",
        ("ops", "np.argsort(scores,", "np.argsort(np.nan_to_num(scores, nan=-np.inf),"),
    ),
    numpy_fault(
        "-0 before +0",
        "select-lowest",
        ("ops", "np.argsort(scores,", "np.argsort(scores - 1e-300 * np.signbit(scores),"),
    ),
    numpy_fault(
        "infinities as NaN",
        "select-lowest",
        ("ops", "np.argsort(scores,", "np.argsort(np.where(np.isfinite(scores), scores, np.nan),"),
    ),
    numpy_fault(
        "compares rounded scores", "select-lowest", ("ops", "np.argsort(scores,", "np.argsort(np.float32(scores),")
    ),
    numpy_fault(
        "ties kept in order in short rows alone",
        "select-lowest",
        (
            "ops",
            SORT,
            f"{SORT} if scores.shape[1] <= 16 else "
            'np.sort(scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, :k], axis=1)',
        ),
    ),
    numpy_fault("one token more", "select-lowest", ("ops", SORT, SORT.replace(":k]", ":k + 1]"))),
]

REDUCTION = [
    numpy_fault("prefix tokens dropped", "reduce-prefix", ("ops", JOINED, "gather_tokens(patches, ids), ids")),
    numpy_fault(
        "prefix tokens in the mean",
        "reduce-prefix",
        ("ops", IDS, "ids = select_tokens(similarity_scores(tokens, center)[:, num_prefix_tokens:], k)"),
    ),
    numpy_fault(
        "prefix tokens last",
        "reduce-own-scores",
        ("ops", JOINED, "np.concatenate([gather_tokens(patches, ids), prefix], axis=1), ids"),
    ),
    numpy_fault("ids count the prefix", "reduce-own-scores", ("ops", JOINED, JOINED + " + num_prefix_tokens")),
    numpy_fault(
        "center ignored", "reduce-reference", ("ops", IDS, "ids = select_tokens(similarity_scores(patches), k)")
    ),
    numpy_fault(
        "gathers in ascending order",
        "gather-indexing",
        ("ops", GATHER, "np.take_along_axis(tokens, np.sort(ids, axis=1)[:, :, None], axis=1)"),
    ),
    numpy_fault(
        "gathers by a product with 0 and 1",
        "gather-dropped",
        ("ops", GATHER, "(np.eye(tokens.shape[1])[ids][:, :, :, None] * tokens[:, None]).sum(axis=2)"),
    ),
    numpy_fault("every image gathers the first one's ids", "gather-indexing", ("ops", GATHER, "tokens[:, ids[0]]")),
]

STANDARDIZE_LOSS = [
    numpy_fault("biased variance", "standardize-definition", ("ops", VARIANCE, "latents.var(axis=-1, keepdims=True)")),
    numpy_fault("eps missing", "standardize-moments", ("ops", "np.sqrt(variance + eps)", "np.sqrt(variance)")),
    numpy_fault(
        "eps beside the root", "standardize-definition", ("ops", "np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)")
    ),
    numpy_fault("eps fixed", "standardize-invariance", ("ops", "np.sqrt(variance + eps)", "np.sqrt(variance + 1e-6)")),
    numpy_fault("over the tokens", "standardize-moments", ("ops", VARIANCE, "latents.var(axis=(1, 2), keepdims=True)")),
    numpy_fault("mean left in", "standardize-invariance", ("ops", "(latents - mean) / np", "latents / np")),
    numpy_fault(
        "NaN of a token hidden",
        "standardize-nan",
        ("backend", "ops.standardize(_floats(latents), eps)", "ops.standardize(np.nan_to_num(_floats(latents)), eps)"),
    ),
    numpy_fault(
        "changes its input",
        "arrays-training-purity",
        ("backend", "ops.standardize(_floats(latents), eps)", "ops.standardize(np.asarray(latents), eps)"),
        ("ops", "return (latents - mean) / np", "latents -= mean\n    return latents / np"),
    ),
    numpy_fault(
        "sum for mean",
        "loss-definition",
        ("ops", "np.asarray(1.0 - cosine.mean())", "np.asarray((1.0 - cosine).sum())"),
    ),
    numpy_fault(
        "sign", "loss-definition", ("ops", "np.asarray(1.0 - cosine.mean())", "np.asarray(1.0 + cosine.mean())")
    ),
    numpy_fault(
        "similarity for distance",
        "loss-definition",
        ("ops", "np.asarray(1.0 - cosine.mean())", "np.asarray(cosine.mean())"),
    ),
    numpy_fault(
        "squared distance",
        "loss-scale",
        (
            "ops",
            "(unit_length(prediction) * unit_length(target)).sum(axis=-1)",
            "1.0 - 0.5 * ((prediction - target) ** 2).sum(axis=-1)",
        ),
    ),
]

ARRAYS_EMA_MASKS = [
    numpy_fault(
        "asarray shares memory",
        "arrays-memory",
        ("backend", "return np.array(x, dtype=dtype)", "return np.asarray(x, dtype=dtype)"),
    ),
    numpy_fault(
        "to_numpy shares memory", "arrays-memory", ("backend", "return np.array(x)\n", "return np.asarray(x)\n")
    ),
    numpy_fault(
        "patchify gives a view",
        "arrays-purity",
        (
            "backend",
            "np.array(ops.patchify(np.asarray(images), patch_size))",
            "ops.patchify(np.asarray(images), patch_size)",
        ),
    ),
    numpy_fault(
        "channels last in a patch",
        "patchify-definition",
        ("ops", "grid.transpose(0, 2, 4, 1, 3, 5)", "grid.transpose(0, 2, 4, 3, 5, 1)"),
    ),
    numpy_fault(
        "patches column by column",
        "patchify-definition",
        ("ops", "grid.transpose(0, 2, 4, 1, 3, 5)", "grid.transpose(0, 4, 2, 1, 3, 5)"),
    ),
    numpy_fault(
        "coefficients swapped",
        "ema-reference",
        ("ops", EMA, EMA.replace("momentum * value + (1.0 - momentum)", "(1.0 - momentum) * value + momentum")),
    ),
    numpy_fault(
        "EMA in place on the student",
        "ema-no-aliasing",
        (
            "backend",
            UPDATED,
            "{n: np.multiply(student[n], 1.0 - momentum, out=student[n]) + momentum * teacher[n] for n in teacher}",
        ),
    ),
    numpy_fault(
        "EMA gives the student's arrays",
        "ema-no-aliasing",
        ("backend", UPDATED, "{n: student[n] for n in teacher} if momentum == 0 else " + UPDATED),
    ),
    numpy_fault(
        "EMA keeps the student's further names",
        "ema-reference",
        ("ops", EMA, "dict(student) | " + EMA),
        ("backend", "dtype=np.asarray(teacher[name]).dtype", "dtype=np.asarray(student[name]).dtype"),
    ),
    numpy_fault(
        "momentum in float16",
        "ema-convexity",
        ("ops", EMA, EMA.replace("(1.0 - momentum)", "float(np.float16(1.0 - momentum))")),
    ),
    torch_fault(
        "EMA in the student's dtype",
        "ema-mixed-dtypes",
        "float16",
        (
            "backend",
            "return dict(zip(teacher, updated, strict=True))",
            "return {n: u.to(student[n].dtype) for n, u in zip(teacher, updated, strict=True)}",
        ),
    ),
    numpy_fault("largest noise is visible", "masks-partition", ("ops", SPLIT, SPLIT.replace("noise,", "-noise,"))),
    numpy_fault("noise in float32", "masks-partition", ("ops", SPLIT, SPLIT.replace("noise,", "np.float32(noise),"))),
    numpy_fault(
        "visible ids in order of noise",
        "masks-partition",
        ("ops", "np.sort(order[:, :num_visible], axis=1)", "order[:, :num_visible]"),
    ),
    numpy_fault(
        "first patches seen more often",
        "masks-uniform",
        ("ops", SPLIT, SPLIT.replace("noise,", "noise * (1.0 + np.arange(noise.shape[1])),")),
    ),
    numpy_fault(
        "one split for the whole batch",
        "masks-place",
        ("ops", SPLIT, SPLIT.replace("noise,", "noise * 0.0 + noise[:1],")),
    ),
]

FAULTS = (*SCORES, *SELECTION, *REDUCTION, *STANDARDIZE_LOSS, *ARRAYS_EMA_MASKS)
