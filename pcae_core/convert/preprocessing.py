"""Settings for Hugging Face's image processors that match evaluation in PCAE to within half a pixel."""

from __future__ import annotations

from collections.abc import Sequence


def image_processor(size: int, in_chans: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, object]:
    """Settings of a `preprocessor_config.json`: resize the shorter side to `size` pixels, bicubic, then centre crop.

    For images that are not square, the crop may be shifted by up to half a pixel from that of `resize_center_crop`.

    Args:
        mean, std: one number per channel, for pixel values in [0, 1].
    """
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_convert_rgb": in_chans == 3,
    }
