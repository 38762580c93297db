"""Masks: noise splits each image's patches into visible and masked ones. Letters: B, N patches, V visible."""

from __future__ import annotations

import numpy as np
from scipy import stats

from pcae_conformance import definitions, strategies
from pcae_conformance.cases import MaskCase
from pcae_conformance.check import ONCE, check
from pcae_conformance.compare import require
from pcae_conformance.dtypes import Floats
from pcae_conformance.selections import Ids
from pcae_conformance.subject import Subject
from pcae_conformance.token_cases import ScoresCase
from pcae_core.randomness import mask_noise

DRAWS = 400
"""Number of masks in the uniformity test."""
SMALLEST_P = 1e-9
"""Significance: a uniform split fails once in a billion runs. A biased split has far smaller p values."""


def _split(subject: Subject, noise: Floats, visible: int) -> tuple[Ids, Ids]:
    batch, patches = noise.shape
    seen, masked = subject.training_backend.split_by_noise(noise, visible)
    return (
        subject.ids("visible ids", seen, (batch, visible), patches),
        subject.ids("masked ids", masked, (batch, patches - visible), patches),
    )


@check(
    "masks-partition",
    statement="each patch is either visible or masked; visible are the V of smallest noise, ties to the lower index",
    strategy=strategies.noise(),
    examples=[
        ScoresCase(batch=2, length=8, k=2),
        ScoresCase(length=8, k=3, kind="all_equal"),
        ScoresCase(batch=2, length=13, k=6, kind="near_ties"),
        ScoresCase(length=2, k=1),
        ScoresCase(batch=2, length=196, k=49, kind="few"),
    ],
    dtypes=ONCE,
    training=True,
)
def partition(subject: Subject, case: ScoresCase) -> None:
    """Noise is float64 for every dtype of the model: rounding it would change the run of a seed."""
    noise = case.scores("float64")
    seen, masked = _split(subject, noise, case.k)
    expected = definitions.lowest_of_each(noise, case.k)
    subject.near(f"visible ids for the noise {noise.tolist()}", seen, expected, 0)
    both = np.sort(np.concatenate([seen, masked], axis=1), axis=1)
    subject.near("visible and masked ids together", both, np.broadcast_to(np.arange(case.length), case.shape), 0)


@check(
    "masks-place",
    statement="a split depends on its seed, step and sample alone, not on the batch that it is drawn in",
    strategy=strategies.masks(),
    examples=[MaskCase(count=6, patches=49, visible=12), MaskCase(step=10**6, first=5000, count=2, patches=9)],
    dtypes=ONCE,
    training=True,
)
def place(subject: Subject, case: MaskCase) -> None:
    """Single samples have the noise of the batch. Another step, seed or sample has other noise."""
    noise = mask_noise(case.seed, case.step, case.first, case.count, case.patches)
    seen, _ = _split(subject, noise, case.visible)
    for i in range(case.count):
        alone = mask_noise(case.seed, case.step, case.first + i, 1, case.patches)
        subject.near("visible ids of one sample alone", _split(subject, alone, case.visible)[0], seen[i : i + 1], 0)
    others = [
        mask_noise(case.seed + 1, case.step, case.first, case.count, case.patches),
        mask_noise(case.seed, case.step + 1, case.first, case.count, case.patches),
        mask_noise(case.seed, case.step, case.first + case.count, case.count, case.patches),
    ]
    require(not any(np.isin(other, noise).any() for other in others), "two places in a run share their noise")


@check(
    "masks-uniform",
    statement="every patch is visible equally often (chi-square over many draws)",
    strategy=strategies.masks(),
    examples=[MaskCase(patches=49, visible=12), MaskCase(patches=4, visible=3)],
    dtypes=ONCE,
    training=True,
)
def uniform(subject: Subject, case: MaskCase) -> None:
    """Draws without replacement: the statistic over `n V/N (1 - V/N)`, times (N - 1)/N, is chi-square with N - 1."""
    noise = mask_noise(case.seed, case.step, case.first, DRAWS, case.patches)
    seen, _ = _split(subject, noise, case.visible)
    share = case.visible / case.patches
    counts = np.bincount(seen.ravel(), minlength=case.patches)
    deviation = ((counts - DRAWS * share) ** 2).sum() / (DRAWS * share * (1.0 - share))
    p = float(stats.chi2.sf(deviation * (case.patches - 1) / case.patches, case.patches - 1))
    require(p > SMALLEST_P, f"visible counts {counts.tolist()} of {DRAWS} draws are not uniform, p = {p:.3g}")
