"""An image's answer is the same alone and in a batch, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import CONFIG, exported, pixels
from PIL import Image

from pcae.report.exported import DrawnExport
from pcae_core import registry
from pcae_onnx.serving.batching import Batcher
from pcae_onnx.session import InferenceSession, images_together

BATCH = 7
MODELS = {
    "cls": CONFIG,
    "mean": CONFIG.model_copy(update={"pooling": "mean"}),
    # Rows of attention that fill no vector register, so that an image's place in the batch could round otherwise
    "odd": CONFIG.model_copy(update={"embed_dim": 20, "num_heads": 5}),
}


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_alone_equals_in_a_batch(tmp_path, config, dtype, opset):
    exported(tmp_path, config, keep=None, dtype=dtype, opset=opset)
    for threads in (1, 3):
        session = InferenceSession(tmp_path, threads=threads)
        for keep in (1.0, 0.6):
            together = session.run(pixels(BATCH), keep)
            for i, image in enumerate(pixels(BATCH)):
                alone = session.run(image[None], keep)
                np.testing.assert_array_equal(alone.kept_ids[0], together.kept_ids[i])
                np.testing.assert_array_equal(alone.last_hidden_state[0], together.last_hidden_state[i])
                np.testing.assert_array_equal(alone.logits[0], together.logits[i])


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_watched_alone_equals_in_a_batch(tmp_path, dtype):
    """Scores too, of which near ones choose by their last bits."""
    exported(tmp_path, keep=0.7, dtype=dtype)
    encoder = DrawnExport(tmp_path)
    together, warnings = encoder.stages(pixels(BATCH))
    assert warnings == []
    for i, image in enumerate(pixels(BATCH)):
        for stage, whole in zip(encoder.stages(image[None])[0], together, strict=True):
            np.testing.assert_array_equal(stage.scores[0], whole.scores[i])
            np.testing.assert_array_equal(stage.kept_ids[0], whole.kept_ids[i])


@pytest.mark.parametrize("center", ["unit", "raw"])
def test_scores_alone_equal_those_in_a_batch(center):
    backend = registry.create("onnx")
    tokens = np.random.default_rng(0).normal(size=(BATCH, 37, 48)).astype(np.float32)
    together = backend.similarity_scores(tokens, center)
    for i in range(BATCH):
        np.testing.assert_array_equal(backend.similarity_scores(tokens[i : i + 1], center)[0], together[i])


def test_predictions_alone_equal_those_in_a_batch(tmp_path):
    exported(tmp_path, keep=None, dtype="int8")
    session = InferenceSession(tmp_path)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(4)]
    for picture, whole in zip(pictures, session.predict(pictures, 0.6), strict=True):
        (alone,) = session.predict([picture], 0.6)
        assert alone.classes == whole.classes
        np.testing.assert_array_equal(alone.last_hidden_state, whole.last_hidden_state)


def test_requests_that_a_service_gathers_get_what_they_get_alone(tmp_path):
    exported(tmp_path, keep=None, dtype="int8")
    session, gathered = InferenceSession(tmp_path), []
    batcher = Batcher(session.run, BATCH, 60.0, BATCH, lambda images, seconds: gathered.append(images))
    answers = [batcher.submit(image[None], 0.6) for image in pixels(BATCH)]
    for image, answer in zip(pixels(BATCH), answers, strict=True):
        alone, found = session.run(image[None], 0.6), answer.result()
        np.testing.assert_array_equal(alone.kept_ids, found.kept_ids)
        np.testing.assert_array_equal(alone.logits, found.logits)
    batcher.close()
    assert gathered == [BATCH]


@pytest.mark.parametrize(
    ("dtype", "provider", "part"), [("int8", "cuda", 1), ("fp16", "cuda", None), ("fp16", "cpu", 1)]
)
def test_images_that_are_computed_together(tmp_path, dtype, provider, part):
    assert images_together(exported(tmp_path, keep=0.7, dtype=dtype).info, provider) == part
