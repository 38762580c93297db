"""Data: sources of images, augmentation, and batches."""

from __future__ import annotations

from pcae_core.data.corrupt import CorruptLog
from pcae_core.data.loader import Batch, TrainLoader, eval_batches, normalize
from pcae_core.data.source import Source
from pcae_core.data.sources import open_scored, open_source

__all__ = ["Batch", "CorruptLog", "Source", "TrainLoader", "eval_batches", "normalize", "open_scored", "open_source"]
