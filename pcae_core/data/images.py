"""Decode one image of any kind to 8 bits per channel and the model's number of channels."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pcae_core.data import greys
from pcae_core.errors import DataError, ImageError

# A Pillow image of mode "L" or "RGB", or uint8 (H, W, C) for other numbers of channels.
AnyImage = Image.Image | NDArray[np.uint8]

Pixels = NDArray[np.uint8]
"""Pixels of an image (C, H, W) or a batch (B, C, H, W)."""

MODES = {1: "L", 3: "RGB"}

# By default Pillow also tries formats for which it starts other programs (EPS), whatever the file is called.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_MOST_CHANNELS = 4  # channels of usual images

_PILLOW = r"PIL\."
_QUIET = ("ignore", None, Warning, re.compile(_PILLOW), 0)


def read(
    file: Path | BinaryIO, name: str, in_chans: int, max_pixels: int | None = None, grey_bits: int | None = None
) -> Image.Image:
    """Decode an image file: first frame, upright (EXIF orientation), transparent parts on white.

    This silences Pillow's warnings in the whole process. Problems that matter are errors here.

    Args:
        file: a path, or the file's content.
        name: name of the image in an error.
        in_chans: 1 for mode "L", 3 for mode "RGB".
        max_pixels: largest number of pixels in the header. Default: Pillow's limit.
        grey_bits: bits in use in 16-bit greys, if the file does not tell. Default: 16.

    Raises:
        ImageError: the file cannot be opened, is damaged or truncated, or has more pixels than allowed.
    """
    try:
        if isinstance(file, Path):
            if not file.is_file():  # opening a named pipe waits for a writer
                raise ValueError("it is no file" if file.exists() else "it does not exist")
            with file.open("rb") as stream:
                return _decode(stream, in_chans, max_pixels, grey_bits)
        return _decode(file, in_chans, max_pixels, grey_bits)
    except UnidentifiedImageError as error:  # its own text holds the address of an object
        known = ", ".join(_FORMATS)
        raise ImageError(name, f"cannot identify its format; known: {known}") from error
    except Image.DecompressionBombError as error:  # beyond twice Pillow's own limit
        raise ImageError(name, f"its pixels are more than max_pixels {_limit(max_pixels)}") from error
    except Exception as error:  # Pillow's plug-ins raise almost any exception for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(name, reason) from error


def _limit(max_pixels: int | None) -> int | None:
    """The largest number of pixels. Pillow's own limit is global; it is only ever raised."""
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS)
    return Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels


def _decode(stream: BinaryIO, in_chans: int, max_pixels: int | None, grey_bits: int | None) -> Image.Image:
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)  # not `catch_warnings`: threads share the state it restores
    limit = _limit(max_pixels)
    image: Image.Image = Image.open(stream, formats=_FORMATS)
    # Up to twice its limit, Pillow itself only warns.
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels are more than max_pixels {limit}")
    deep, scaled = greys.has_16_bits(image), greys.is_scaled(image)
    image.load()
    if not deep:
        ImageOps.exif_transpose(image, in_place=True)
        return convert(image, in_chans)
    found = greys.examine(image, stream, 16 if scaled else grey_bits)
    ImageOps.exif_transpose(image, in_place=True)
    converted = convert(image, in_chans, found.bits)
    greys.remember(converted, found)
    return converted


def convert(image: Image.Image, in_chans: int, grey_bits: int | None = None) -> Image.Image:
    """Convert to mode "L" for one channel, or "RGB" for three.

    Args:
        grey_bits: bits in use in 16-bit greys. Default: 16.

    Raises:
        ValueError: pixels are not 8 or 16 bits wide, or a grey needs more than `grey_bits` bits.
    """
    mode = MODES[in_chans]
    if not (image.mode.startswith(("I", "F")) or image.has_transparency_data):
        return image if image.mode == mode else image.convert(mode)
    converted = Image.new(mode, image.size)
    for top, strip in greys.strips(image):
        converted.paste(_opaque_8_bits(strip, grey_bits or 16).convert(mode), (0, top))
    return converted


def _opaque_8_bits(image: Image.Image, grey_bits: int) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return greys.to_8_bits(image, grey_bits)
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white


def from_array(values: NDArray[np.uint8], in_chans: int) -> AnyImage:
    """An image from an array (H, W) or (H, W, C) that `check_channels` accepted."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 2 or values.shape[2] == 3:
        return convert(Image.fromarray(np.ascontiguousarray(values)), in_chans)
    return np.array(values)  # a copy: `values` may lie in a mapped file


def check_file_channels(in_chans: int) -> None:
    """Raise DataError when image files cannot become images of `in_chans` channels."""
    if in_chans not in MODES:
        raise DataError(f"image files give 1 or 3 channels, not {in_chans}; use a .npz file for other images")


def check_channels(path: Path, shape: tuple[int, ...], in_chans: int) -> None:
    """Raise DataError when images (n, H, W) or (n, H, W, C) cannot become images of `in_chans` channels."""
    channels = shape[3] if len(shape) == 4 else 1
    fits = channels == in_chans or {channels, in_chans} <= MODES.keys()
    first = _are_channels_first(shape, in_chans, sure=fits)
    if fits and not first:
        return
    said = f"the images in {path} have {channels} channels, but the model takes {in_chans} (in_chans)"
    if first:
        said = f"the images in {path} are {shape}, which looks like (n, C, H, W); the channels belong last: save "
        said += "images.transpose(0, 2, 3, 1)"
    raise DataError(said)


def _are_channels_first(shape: tuple[int, ...], in_chans: int, sure: bool) -> bool:
    """Whether images (n, H, W, C) look like (n, C, H, W). With `sure`, only arrays count that are hardly anything else.

    Images of up to four rows and many channels are rare.
    """
    if len(shape) == 3:
        return False
    _, first, height, width = shape
    likely = first <= _MOST_CHANNELS or (not sure and (first == in_chans or height == width))
    return likely and max(first, _MOST_CHANNELS) < min(height, width)
