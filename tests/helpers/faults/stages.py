"""Faults of `encode_stages`."""

from __future__ import annotations

from faults.mutation import numpy_fault, torch_fault

STAGE = "StageOutput(block, stage.ids, stage.scores, stage.kept_ids)"
TRACE = "return model.encode(config, model.Widened(parameters), _floats(images), keep)"
OTHER_KEEP = "trace = " + TRACE.removeprefix("return ").replace("keep)", "0.9 * keep)")
TORCH_SCORES = "scores = ops.similarity_scores(scored[:, num_prefix_tokens:], center)"

FAULTS = (
    numpy_fault(
        "a stage gives the distances for scores",
        "stages-output",
        ("model", STAGE, STAGE.replace("stage.scores", "1.0 - stage.scores")),
    ),
    numpy_fault(
        "a stage gives its scores in order",
        "stages-reference",
        ("model", STAGE, STAGE.replace("stage.scores", "np.sort(stage.scores, axis=1)")),
    ),
    numpy_fault(
        "a stage gives scores around 0",
        "stages-reference",
        (
            "model",
            STAGE,
            STAGE.replace("stage.scores", "stage.scores - stage.scores.mean(axis=1, keepdims=True)"),
        ),
    ),
    numpy_fault(
        "a stage gives places for ids",
        "stages-output",
        ("model", STAGE, STAGE.replace("stage.kept_ids", "stage.kept")),
    ),
    numpy_fault(
        "every stage starts from all patches",
        "stages-output",
        ("model", STAGE, STAGE.replace("stage.ids", "every_patch(config, len(images))")),
    ),
    numpy_fault("stages by another share", "stages-output", ("backend", TRACE, f"{OTHER_KEEP}\n        return trace")),
    numpy_fault(
        "NaN scores hidden",
        "stages-nan",
        ("model", STAGE, STAGE.replace("stage.scores", "np.nan_to_num(stage.scores)")),
    ),
    torch_fault(
        "scores of the tokens that stay come first",
        "stages-reference",
        "float64",
        ("model", TORCH_SCORES, TORCH_SCORES + ".sort(dim=1).values"),
    ),
    torch_fault(
        "scores with CLS among the tokens",
        "stages-reference",
        "float64",
        ("model", TORCH_SCORES, "scores = ops.similarity_scores(scored, center)[:, num_prefix_tokens:]"),
    ),
)
