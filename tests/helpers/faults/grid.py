"""Faults of `restore_grid`."""

from __future__ import annotations

from faults.mutation import numpy_fault, torch_fault

NEAREST = "np.where(own, np.inf, similarity).argmax(axis=2)"
SORTED = "order = np.argsort(kept_ids, axis=1)"
FILLED = "return gather_tokens(tokens, np.take_along_axis(order, nearest, axis=1))"
TORCH_FILLED = "return gather_tokens(tokens, order.gather(1, nearest))"

FAULTS = (
    numpy_fault(
        "filled from the survivor before",
        "grid-definition",
        ("ops", NEAREST, "((survivors[:, None, :] <= np.arange(num_patches)[:, None]).sum(axis=2) - 1).clip(0)"),
    ),
    numpy_fault(
        "filled from the least similar",
        "grid-definition",
        ("ops", NEAREST, NEAREST.replace("similarity)", "-similarity)")),
    ),
    numpy_fault(
        "similarity of unscaled features", "grid-reference", ("ops", "unit = unit_length(features)", "unit = features")
    ),
    numpy_fault(
        "ties to the first of the ids",
        "grid-definition",
        ("ops", SORTED, "order = np.broadcast_to(np.arange(kept_ids.shape[1]), kept_ids.shape)"),
    ),
    numpy_fault(
        "ties to the higher id",
        "grid-definition",
        ("ops", NEAREST, "survivors.shape[1] - 1 - np.where(own, np.inf, similarity)[:, :, ::-1].argmax(axis=2)"),
    ),
    numpy_fault(
        "NaN is most similar",
        "grid-definition",
        ("ops", "np.where(np.isnan(similarity), -np.inf, similarity)", "np.nan_to_num(similarity, nan=2.0)"),
    ),
    numpy_fault("survivors filled as the others", "grid-survivors", ("ops", NEAREST, "similarity.argmax(axis=2)")),
    numpy_fault("ids taken for ascending", "grid-all", ("ops", FILLED, "return gather_tokens(tokens, nearest)")),
    numpy_fault(
        "fills by a product with 0 and 1",
        "grid-survivors",
        (
            "ops",
            FILLED,
            "chosen = np.take_along_axis(order, nearest, axis=1)\n    return np.eye(order.shape[1])[chosen] @ tokens",
        ),
    ),
    numpy_fault(
        "shapes not checked",
        "grid-shapes",
        ("backend", "num_patches, None if own is None else own.shape)", "num_patches, (1, num_patches, 1))"),
    ),
    torch_fault(
        "gradient stopped",
        "grid-gradient",
        "float64",
        ("ops", TORCH_FILLED, TORCH_FILLED.replace("(tokens,", "(tokens.detach() + 0 * tokens.mean(),")),
    ),
    torch_fault(
        "gradient of the own place only",
        "grid-gradient",
        "float64",
        (
            "ops",
            TORCH_FILLED,
            "filled = gather_tokens(tokens, order.gather(1, nearest))\n"
            "    return torch.where(own.any(dim=2)[:, :, None], filled, filled.detach())",
        ),
    ),
)
