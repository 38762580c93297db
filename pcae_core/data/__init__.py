"""Data sets, augmentation and batches."""

from __future__ import annotations

from pcae_core.data.corrupt import CorruptLog
from pcae_core.data.loader import Batch, EvalBatch, TrainLoader, eval_batches, load_readable, normalize
from pcae_core.data.sources.base import Source
from pcae_core.data.sources.open import open_scored, open_source

__all__ = [
    "Batch",
    "CorruptLog",
    "EvalBatch",
    "Source",
    "TrainLoader",
    "eval_batches",
    "load_readable",
    "normalize",
    "open_scored",
    "open_source",
]
