"""Faults in what a backend says of itself and in what it refuses."""

from __future__ import annotations

import math

import numpy as np

from faults.fault import numpy_override
from faults.trainers import pretrainer
from pcae_core.contract import Capabilities, EncoderOutput


def another_default(self, tokens, k, num_prefix_tokens=1, center="unit"):
    return self.right.reduce_tokens(tokens, k, num_prefix_tokens, center)


def another_argument(self, images, size, patch_size=1):
    return self.right.patchify(images, patch_size)


def fitting(config, images):
    """Images of the model's size, cut or repeated where they are not."""
    shape = (config.in_chans, config.image_size, config.image_size)
    return images if np.shape(images)[1:] == shape and len(images) else np.resize(images, (1, *shape))


def any_keep(self, config, parameters, images, keep=1.0):
    return self.right.encode(config, parameters, images, keep if 0.0 < keep <= 1.0 else 1.0)


def nan_to_keep(self, config, parameters, images, keep=1.0):
    return self.right.encode(config, parameters, images, 1.0 if math.isnan(keep) else keep)


def any_images_to_encode(self, config, parameters, images, keep=1.0):
    return self.right.encode(config, parameters, fitting(config, images), keep)


def no_images_to_encode(self, config, parameters, images, keep=1.0):
    if len(images):
        return self.right.encode(config, parameters, images, keep)
    return EncoderOutput(np.zeros((0, 1, config.embed_dim)), np.zeros((0, 0), dtype=np.int64), None)


def any_images_to_pretrain_on(self, config, student, teacher, images, noise):
    return self.right.pretraining_forward(config, student, teacher, fitting(config, images), noise)


def any_images_in_a_step(right, config, images, noise, **rates):
    return right(fitting(config.model, images), noise, **rates)


FAULTS = (
    numpy_override("another default", "contract-signatures", reduce_tokens=another_default),
    numpy_override("another name of an argument", "contract-signatures", patchify=another_argument),
    numpy_override(
        "an unknown dtype",
        "contract-capabilities",
        capabilities=Capabilities(training=True, dtypes=("float64", "double"), devices=("cpu",)),
    ),
    numpy_override(
        "trains although it says not",
        "contract-no-training",
        capabilities=Capabilities(training=False, dtypes=("float64",), devices=("cpu",)),
    ),
    numpy_override("any share to keep", "contract-refusals", encode=any_keep),
    numpy_override("NaN to keep", "contract-refusals", encode=nan_to_keep),
    numpy_override("images of any size to encode", "contract-refusals", encode=any_images_to_encode),
    numpy_override(
        "images of any size to pre-train on", "contract-refusals", pretraining_forward=any_images_to_pretrain_on
    ),
    numpy_override("images of any size in a step", "contract-refusals", **pretrainer(step=any_images_in_a_step)),
    numpy_override("no images to encode", "contract-refusals", encode=no_images_to_encode),
)
