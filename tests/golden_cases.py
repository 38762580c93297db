"""The recorded cases of the conformance suite: one forward and backward pass each, float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcae_core import ModelConfig, ReductionConfig

FOLDER = Path(__file__).parents[1] / "conformance" / "pcae_conformance" / "golden"
NAMES = ("case_a", "case_b")


@dataclass(frozen=True)
class GoldenCase:
    config: ModelConfig
    arrays: dict[str, np.ndarray]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.arrays.items() if k.startswith(f"{prefix}/")}


def load(name: str) -> GoldenCase:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    values = {k.removeprefix("config/"): v.item() for k, v in arrays.items() if k.startswith("config/")}
    values.pop("momentum")
    reduction = ReductionConfig(num_stages=values.pop("num_stages"), keep=values.pop("keep_ratio"))
    return GoldenCase(ModelConfig(**values, reduction=reduction), arrays)


def assert_forward_equals(backend, golden: GoldenCase) -> None:
    arrays = golden.arrays
    out = backend.pretraining_forward(
        golden.config, golden.group("student"), golden.group("teacher"), arrays["images"], arrays["noise"]
    )
    order = np.argsort(arrays["target_ids"], axis=1)  # recorded in score order
    np.testing.assert_array_equal(backend.to_numpy(out.visible_ids), np.sort(arrays["visible_ids"], axis=1))
    np.testing.assert_array_equal(backend.to_numpy(out.target_ids), np.sort(arrays["target_ids"], axis=1))
    for ours, recorded in ((out.target, "target"), (out.prediction, "prediction")):
        expected = np.take_along_axis(arrays[recorded], order[:, :, None], axis=1)
        np.testing.assert_allclose(backend.to_numpy(ours), expected, rtol=0, atol=1e-12)
    assert abs(float(out.loss) - float(arrays["loss"])) < 1e-12


def assert_gradients_equal(backend, golden: GoldenCase) -> None:
    arrays = golden.arrays
    _, gradients = backend.loss_and_gradients(
        golden.config, golden.group("student"), golden.group("teacher"), arrays["images"], arrays["noise"]
    )
    recorded = golden.group("grad")
    assert set(gradients) == set(recorded)
    for name, expected in recorded.items():
        np.testing.assert_allclose(backend.to_numpy(gradients[name]), expected, rtol=0, atol=1e-10, err_msg=name)
