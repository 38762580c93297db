"""Transforms of an image between its source and a batch.

To add an augmentation, write a file here, a line in `pipeline.training_pipeline`, and a setting.
"""

from __future__ import annotations

from pcae_core.data.transforms.crop import resize_center_crop, stack
from pcae_core.data.transforms.mixing import soft_targets
from pcae_core.data.transforms.pipeline import TrainingPipeline, training_pipeline

__all__ = ["TrainingPipeline", "resize_center_crop", "soft_targets", "stack", "training_pipeline"]
