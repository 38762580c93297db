"""One image of any kind into eight bits per channel and the number of channels that the model wants."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pcae_core.errors import DataError

# A Pillow image of mode "L" or "RGB", or, for other numbers of channels, uint8 (H, W, C).
AnyImage = Image.Image | NDArray[np.uint8]

MODES = {1: "L", 3: "RGB"}

# Pillow would also try formats for which it starts other programs (EPS), whatever the file is called.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_STRIP_PIXELS = 2**20


def read(file: Path | BinaryIO, name: str, in_chans: int, max_pixels: int | None = None) -> Image.Image:
    """Decode an image file: upright (EXIF orientation), on white where it is transparent, first frame only.

    Args:
        file: a path, or the file's content.
        name: what to call it in an error.
        in_chans: 1 for mode "L", 3 for mode "RGB".
        max_pixels: that its header may announce; by default as many as Pillow allows.

    Raises:
        DataError: the file cannot be opened, is damaged or truncated, or holds more pixels than allowed.
    """
    try:
        if isinstance(file, Path):
            if not file.is_file():  # opening a named pipe waits for who writes to it
                raise ValueError("it is no file" if file.exists() else "it does not exist")
            with file.open("rb") as stream:
                return _decode(stream, in_chans, max_pixels)
        return _decode(file, in_chans, max_pixels)
    except UnidentifiedImageError as error:  # whose own text holds the address of an object
        known = ", ".join(_FORMATS)
        raise DataError(f"cannot read the image {name}: cannot identify its format; known: {known}") from error
    except Exception as error:  # Pillow's plug-ins raise about any exception on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read the image {name}: {reason}") from error


def _decode(stream: BinaryIO, in_chans: int, max_pixels: int | None) -> Image.Image:
    image: Image.Image = Image.open(stream, formats=_FORMATS)
    # Pillow itself only warns up to twice its limit; whether that is shown depends on Python's warning filters.
    limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {limit}")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return convert(image, in_chans)


def convert(image: Image.Image, in_chans: int) -> Image.Image:
    """Mode "L" for one channel and "RGB" for three. Raises ValueError for pixels that are not 8 or 16 bits wide."""
    mode = MODES[in_chans]
    if not (image.mode.startswith(("I", "F")) or image.has_transparency_data):
        return image if image.mode == mode else image.convert(mode)
    converted = Image.new(mode, image.size)
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):  # else the largest pictures would be in memory four times
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        converted.paste(_opaque_8_bits(strip).convert(mode), (0, top))
    return converted


def _opaque_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(image)
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greys; Pillow's own conversion would clip them."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} beyond 16-bit integers are not supported")
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def from_array(values: NDArray[np.uint8], in_chans: int) -> AnyImage:
    """An image (H, W) or (H, W, C) whose channels `check_channels` has let through."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 2 or values.shape[2] == 3:
        return convert(Image.fromarray(np.ascontiguousarray(values)), in_chans)
    return np.array(values)  # a copy: `values` may lie in a mapped file


def check_channels(path: Path, channels: int, in_chans: int) -> None:
    """Raises DataError when images of `channels` channels cannot become images of `in_chans` channels."""
    if channels != in_chans and not {channels, in_chans} <= MODES.keys():
        raise DataError(f"the images in {path} have {channels} channels, but the model takes {in_chans}; set in_chans")
