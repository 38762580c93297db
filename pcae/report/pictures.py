"""`pcae visualize`: figures of images, as PNG files and as one page.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcae.report import page, sheet
from pcae.report.encoders import DrawnEncoder
from pcae.report.figure import Figure, draw
from pcae.report.panels import Pixels
from pcae_core.config import ModelConfig, Reading
from pcae_core.config.data import USUAL
from pcae_core.data import greys, images, normalize, open_source
from pcae_core.data.sources import kinds
from pcae_core.data.sources.image_folder import EXTENSIONS
from pcae_core.data.transforms import resize_center_crop, stack
from pcae_core.errors import ConfigError, DataError, ImageError, listed

INDEX, CONTACT_SHEET = "index.html", "contact-sheet.png"
_BATCH = 8
_EXPLANATION = (
    "Grey tokens are gone; the orange line surrounds those that stay. A stage drops the tokens with the highest "
    "similarity scores, so dark cells stay and bright cells go. Blank cells were dropped before."
)


@dataclass(frozen=True)
class Shown:
    """Images to draw: names, pixels uint8 (B, C, H, W), and unreadable images with the reasons."""

    names: list[str]
    pixels: Pixels
    unreadable: list[str]


def read_images(paths: Sequence[Path], model: ModelConfig, limit: int, reading: Reading = USUAL) -> Shown:
    """The first `limit` readable images of files, folders and data sets, prepared as for evaluation.

    The images of a data set with splits are those of its test split.

    Args:
        reading: settings of image reading.

    Raises:
        DataError: a data set cannot be read, or there is no image.
    """
    names: list[str] = []
    pixels: list[Pixels] = []
    deep, unreadable = [], []
    for name, load in (image for path in paths for image in _images(path, model.in_chans, reading)):
        if len(names) == limit:
            break
        try:
            image = load()
        except ImageError as error:
            unreadable.append(f"{name} ({error.reason})")
            continue
        names.append(name)
        deep.append(greys.remembered(image))
        pixels.append(resize_center_crop(image, model.image_size))
    if not names:
        why = f": {listed(unreadable)}" if unreadable else f"; name image files, {kinds.words('name')}"
        raise DataError(f"there is no image to draw{why}")
    greys.say(deep)
    return Shown(names, stack(pixels), unreadable)


def _images(path: Path, in_chans: int, reading: Reading) -> Iterator[tuple[str, Callable[[], images.AnyImage]]]:
    """Names of images, and functions that read them or raise ImageError."""
    if not path.exists() and path.suffix.lower() not in EXTENSIONS:
        raise DataError(f"there is no image and no data set at {path}")
    if kinds.recognized(path) is None:
        images.check_file_channels(in_chans)
        how = reading.max_pixels, reading.grey_bits
        yield path.name, functools.partial(images.read, path, str(path), in_chans, *how)
        return
    try:
        source = open_source(path, in_chans, "test", reading)
    except DataError:
        source = open_source(path, in_chans, reading=reading)
    for index in range(len(source)):
        yield source.name(index), functools.partial(source.load, index)


def figures(encoder: DrawnEncoder, shown: Shown) -> tuple[list[Figure], list[str]]:
    """A figure for each image, and warnings without repetition."""
    drawn: list[Figure] = []
    warnings: list[str] = []
    for start in range(0, len(shown.names), _BATCH):
        pixels = shown.pixels[start : start + _BATCH]
        normalized = normalize(pixels, *encoder.normalization)
        stages, said = encoder.stages(normalized)
        splits = encoder.splits(normalized, start)
        warnings += said
        for row, image in enumerate(pixels):
            split = splits if isinstance(splits, str) else splits[row]
            drawn.append(draw(shown.names[start + row], image, encoder.model, stages, row, split))
    return drawn, list(dict.fromkeys(warnings))


def write(folder: Path, title: str, drawn: Sequence[Figure], warnings: Sequence[str]) -> list[Path]:
    """Write a PNG for each image, the contact sheet and the page to a folder. Returns their paths, the page last.

    Raises:
        ConfigError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, figure in enumerate(drawn, 1):
            written.append(folder / f"{number:03d}_{_safe(figure.name)}.png")
            sheet.whole(figure).save(written[-1])
        written.append(folder / CONTACT_SHEET)
        sheet.contact_sheet(drawn, title).save(written[-1])
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from None
    written.append(folder / INDEX)
    intro = [*page.warnings(warnings), page.paragraph(_EXPLANATION, "faint")]
    page.write(written[-1], page.page(f"Kept tokens: {title}", [*intro, page.figures(drawn)]))
    return written


def _safe(name: str) -> str:
    """A file name made from the name of an image."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem if "[" not in name else name).strip("_")[:60] or "image"
