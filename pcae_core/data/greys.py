"""16-bit images: find the number of bits in use, and scale greys to 8 bits.

Cameras and scanners store 12 bits in 16. Such images look nearly black when all 16 bits are taken as the range.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcae_core.errors import ImageError

if TYPE_CHECKING:
    from pcae_core.data.images import AnyImage
    from pcae_core.data.sources.base import Source

_logger = logging.getLogger("pcae")

_INFO = "pcae.deep"  # in an image's `info`
_LOOKED_AT = 8  # images of a source to inspect
_STRIP_PIXELS = 2**20
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # of TIFF
_PNG_SIGNATURE_SIZE = 8


class Deep(NamedTuple):
    """Content of a 16-bit file.

    Attributes:
        kind: "greys" or "colours".
        bits: number of bits that are taken as the range.
        brightest: largest value.
    """

    kind: str
    bits: int
    brightest: int


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Horizontal strips of an image: first row and pixels of each. They save memory for very large images."""
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(image.height, top + rows)))


def to_8_bits(image: Image.Image, bits: int) -> Image.Image:
    """Scale greys of `bits` bits to 8; Pillow's own conversion would clip them. Raises ValueError for larger values."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} beyond 16-bit integers are not supported")
    full = 2**bits - 1
    if values.max() > full:
        raise ValueError(f"a grey of {values.max()} is more than grey_bits {bits} hold")
    return Image.fromarray(((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8))


def has_16_bits(image: Image.Image) -> bool:
    """Whether the file of an image that is not loaded yet has 16 bits per channel."""
    tiles = getattr(image, "tile", ()) if image.format in ("PNG", "TIFF") else ()  # BMP's 16 bits hold three colours
    return image.mode.startswith("I") or any(";16" in str(tile.args) for tile in tiles)


def is_scaled(image: Image.Image) -> bool:
    """Whether Pillow itself will scale an image that is not loaded yet to 16 bits, by the largest value in a PGM."""
    return image.format == "PPM" and any(tile.codec_name != "raw" for tile in getattr(image, "tile", ()))


def examine(image: Image.Image, stream: BinaryIO, otherwise: int | None) -> Deep:
    """Inspect a loaded 16-bit image.

    Args:
        stream: the file.
        otherwise: number of bits if the file does not tell.
    """
    if not image.mode.startswith("I"):  # Pillow keeps the upper 8 bits of colours
        return Deep("colours", 16, 257 * max(int(np.asarray(strip.convert("L")).max()) for _, strip in strips(image)))
    brightest = int(max(np.asarray(strip).max() for _, strip in strips(image)))
    said = _bits_of_png(image, stream, brightest) if image.format == "PNG" else _bits_of_tiff(image, brightest)
    return Deep("greys", said or otherwise or 16, brightest)


def remember(image: Image.Image, found: Deep) -> None:
    """Store the content of its file with a decoded image."""
    image.info[_INFO] = found


def announce(source: Source) -> None:
    """Log once how 16-bit images of a source are scaled, with advice if they look nearly black.

    This inspects a few images, spread over the source.
    """
    found = []
    for index in np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int):
        try:
            found.append(remembered(source.load(int(index))))
        except ImageError:
            continue
    say(found)


def announce_pictures(pictures: Sequence[AnyImage]) -> None:
    """As `announce`, for images that `images.read` returned."""
    say([remembered(picture) for picture in pictures])


def remembered(picture: AnyImage) -> Deep | None:
    """The content that `remember` stored with an image of `images.read`, if any."""
    deep: Deep | None = getattr(picture, "info", {}).get(_INFO)
    return deep


def say(found: Sequence[Deep | None]) -> None:
    """Log the lines of `describe` about several images."""
    for line in describe([deep for deep in found if deep]):
        _logger.warning("%s", line)


def describe(found: list[Deep]) -> list[str]:
    """One line about greys and one about colours, if there are any."""
    lines = []
    for kind in ("greys", "colours"):
        group = [deep for deep in found if deep.kind == kind]
        if not group:
            continue
        brightest = max(deep.brightest for deep in group)
        bits = sorted({deep.bits for deep in group})
        dark = brightest.bit_length() <= max(bits) - 2
        advice = {
            "greys": f"if they hold fewer bits, such as {max(8, brightest.bit_length())}, say so with grey_bits",
            "colours": "if they hold fewer bits, write them anew with 8",
        }[kind]
        found_so = f"; the brightest of {len(group)} images looked at is only {brightest}: {advice}" if dark else ""
        if kind == "greys" or dark:
            lines.append(f"16-bit {kind} are scaled from {' and '.join(map(str, bits))} bits to 8{found_so}")
    return lines


def _bits_of_tiff(image: Image.Image, brightest: int) -> int | None:
    """Number of bits according to a TIFF's width or largest value. A largest value of another form is a statistic."""
    tags = getattr(image, "tag_v2", {})
    width = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if width < 16:
        return int(width)
    largest = tags.get(_MAX_SAMPLE_VALUE, (0,))
    largest = int(largest[0] if isinstance(largest, tuple) else largest)
    bits = largest.bit_length()
    return bits if 8 <= bits <= 16 and largest == 2**bits - 1 and brightest <= largest else None


def _bits_of_png(image: Image.Image, stream: BinaryIO, brightest: int) -> int | None:
    """Significant bits of a grey PNG whose writer did not scale its values to 16 bits, as the format requires.

    Scaled values have zeros, or a one by rounding, below their significant bits.
    """
    bits = _significant_bits(stream)
    if bits is None or not 8 <= bits < 16 or brightest >= 2**bits:
        return None
    step = 2 ** (16 - bits)
    low = any(_has_low_bits(np.asarray(strip), step) for _, strip in strips(image))
    return bits if low else None


def _has_low_bits(values: NDArray[np.integer[Any]], step: int) -> bool:
    return bool((values % step > 1).any())


def _significant_bits(stream: BinaryIO) -> int | None:
    """The first number in a PNG's chunk sBIT, which comes before its pixels."""
    stream.seek(_PNG_SIGNATURE_SIZE)
    while len(header := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"sBIT":
            return next(iter(stream.read(1)), None)
        if kind == b"IDAT":
            return None
        stream.seek(length + 4, 1)
    return None
