"""Faults of arrays in and out, and of patches."""

from __future__ import annotations

from faults.mutation import numpy_fault

FAULTS = (
    numpy_fault(
        "changes its input",
        "arrays-purity",
        ("backend", "ops.standardize(_floats(latents), eps)", "ops.standardize(np.asarray(latents), eps)"),
        ("ops", "return (latents - mean) / np", "latents -= mean\n    return latents / np"),
    ),
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
)
