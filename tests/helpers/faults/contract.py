"""Faults in what a backend says of itself and in what it refuses."""

from __future__ import annotations

from faults.fault import numpy_edit

CHECK_KEEP = "        check_keep(keep)\n"
CHECK_IMAGES = "check_images(np.shape(images), config.in_chans, config.image_size)"

FAULTS = (
    numpy_edit(
        "another default",
        "contract-signatures",
        ("backend", "num_prefix_tokens: int = 0, center", "num_prefix_tokens: int = 1, center"),
    ),
    numpy_edit(
        "another name of an argument",
        "contract-signatures",
        (
            "backend",
            "def patchify(self, images: Array, patch_size: int)",
            "def patchify(self, images: Array, size: int, patch_size: int = 1)",
        ),
    ),
    numpy_edit(
        "an unknown dtype", "contract-capabilities", ("__init__", 'dtypes=("float64",)', 'dtypes=("float64", "double")')
    ),
    numpy_edit("trains although it says not", "contract-no-training", ("__init__", "training=True", "training=False")),
    numpy_edit("any share to keep", "contract-refusals", ("backend", CHECK_KEEP, "")),
    numpy_edit(
        "NaN to keep",
        "contract-refusals",
        ("backend", CHECK_KEEP, CHECK_KEEP.replace("keep)", "np.nan_to_num(keep, nan=1.0))")),
    ),
    numpy_edit(
        "images of any size to encode",
        "contract-refusals",
        ("backend", f"{CHECK_KEEP}        {CHECK_IMAGES}", CHECK_KEEP),
    ),
    numpy_edit(
        "images of any size to pre-train on",
        "contract-refusals",
        ("backend", f"{CHECK_IMAGES}\n        scales", "scales"),
    ),
    numpy_edit(
        "images of any size in a step",
        "contract-refusals",
        ("pretraining", "check_images(np.shape(images), config.model.in_chans, config.model.image_size)", "pass"),
    ),
    numpy_edit(
        "no images to encode",
        "contract-refusals",
        ("backend", f"{CHECK_KEEP}        ", f"{CHECK_KEEP}        len(images) and "),
    ),
)
