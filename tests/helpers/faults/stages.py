"""Faults of `encode_stages`."""

from __future__ import annotations

import dataclasses

import numpy as np

from faults.fault import numpy_override, torch_edit, torch_override

TORCH_SCORES = "score(scored[:, num_prefix_tokens:])"


def of_scores(change):
    """`encode_stages` of which the scores are changed."""
    return of_stages(lambda stage: dataclasses.replace(stage, scores=change(stage.scores)))


def of_stages(change):
    """`encode_stages` of which each stage is changed."""

    def encode_stages(self, config, parameters, images, keep=1.0):
        trace = self.right.encode_stages(config, parameters, images, keep)
        return dataclasses.replace(trace, stages=tuple(map(change, trace.stages)))

    return encode_stages


def places_for_ids(stage):
    kept = [np.searchsorted(ids, kept) for ids, kept in zip(stage.ids, stage.kept_ids, strict=True)]
    return dataclasses.replace(stage, kept_ids=np.stack(kept))


def from_every_patch(self, config, parameters, images, keep=1.0):
    trace = self.right.encode_stages(config, parameters, images, keep)
    every = np.tile(np.arange(config.num_patches), (len(images), 1))
    return dataclasses.replace(trace, stages=tuple(dataclasses.replace(stage, ids=every) for stage in trace.stages))


def another_share(self, config, parameters, images, keep=1.0):
    return self.right.encode_stages(config, parameters, images, 0.9 * keep)


FAULTS = (
    numpy_override(
        "a stage gives the distances for scores", "stages-output", encode_stages=of_scores(lambda scores: 1.0 - scores)
    ),
    numpy_override(
        "a stage gives its scores in order",
        "stages-reference",
        encode_stages=of_scores(lambda scores: np.sort(scores, axis=1)),
    ),
    numpy_override(
        "a stage gives scores around 0",
        "stages-reference",
        encode_stages=of_scores(lambda scores: scores - scores.mean(axis=1, keepdims=True)),
    ),
    numpy_override("a stage gives places for ids", "stages-output", encode_stages=of_stages(places_for_ids)),
    numpy_override("every stage starts from all patches", "stages-output", encode_stages=from_every_patch),
    numpy_override("stages by another share", "stages-output", encode_stages=another_share),
    numpy_override("NaN scores hidden", "stages-nan", encode_stages=of_scores(np.nan_to_num)),
    torch_override(
        "scores of the tokens that stay come first",
        "stages-reference",
        "float64",
        encode_stages=of_scores(lambda scores: scores.sort(dim=1).values),
    ),
    torch_edit(
        "scores with CLS among the tokens",
        "stages-reference",
        "float64",
        ("model", TORCH_SCORES, "score(scored)[:, num_prefix_tokens:]"),
    ),
)
