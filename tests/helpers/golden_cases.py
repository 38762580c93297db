"""Backends against the recorded cases of the conformance suite, closer than the suite itself compares."""

from __future__ import annotations

import numpy as np
import pytest

from pcae_conformance.golden import GoldenCase
from pcae_core import ConfigError, ModelConfig, ShapeError, TrainingBackend, parameters


def assert_forward_equals(backend, golden: GoldenCase) -> None:
    arrays = golden.arrays
    out = backend.pretraining_forward(
        golden.config, golden.group("student"), golden.group("teacher"), arrays["images"], arrays["noise"]
    )
    for name in ("visible_ids", "target_ids"):
        np.testing.assert_array_equal(backend.to_numpy(getattr(out, name)), arrays[name])
    for name in ("target", "prediction"):
        np.testing.assert_allclose(backend.to_numpy(getattr(out, name)), arrays[name], rtol=0, atol=1e-12)
    assert abs(float(out.loss) - float(arrays["loss"])) < 1e-12


def assert_gradients_equal(backend, golden: GoldenCase) -> None:
    arrays = golden.arrays
    _, gradients = backend.pretraining_loss_and_gradients(
        golden.config, golden.group("student"), golden.group("teacher"), arrays["images"], arrays["noise"]
    )
    recorded = golden.group("grad")
    assert set(gradients) == set(recorded)
    for name, expected in recorded.items():
        np.testing.assert_allclose(backend.to_numpy(gradients[name]), expected, rtol=0, atol=1e-10, err_msg=name)


def assert_images_are_checked(backend) -> None:
    """Images of another size, and no images, raise ShapeError, and a share of nothing ConfigError."""
    config = ModelConfig(
        image_size=8, patch_size=4, embed_dim=8, depth=3, num_heads=2,
        decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2, mask_ratio=0.5,
    )  # fmt: skip
    student = parameters.initial_parameters(config, 0)
    noise = np.random.default_rng(0).random((1, config.num_patches))
    for shape in ((1, 3, 16, 16), (1, 3, 4, 16), (1, 1, 8, 8), (3, 8, 8), (0, 3, 8, 8)):
        images = np.zeros(shape, np.float32)
        with pytest.raises(ShapeError, match=r"images must be \(B, 3, 8, 8\)"):
            backend.encode(config, student, images)
        if isinstance(backend, TrainingBackend):
            with pytest.raises(ShapeError, match=r"images must be \(B, 3, 8, 8\)"):
                backend.pretraining_forward(config, student, student, images, noise)
    with pytest.raises(ConfigError, match="keep must be in"):
        backend.encode(config, student, np.zeros((1, 3, 8, 8), np.float32), 0.0)
