"""Small pictures of an image's tokens.

Letters: C channels, H = W pixels of an image, S pixels of a panel's side, G patches along a side, N = G * G patches,
n and k of these patches.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcae.report.stages import Ids
from pcae_core.contract import Floats

Pixels = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)

SIDE = 224
"""Images smaller than this are enlarged by an integer factor, so that pixels stay square."""
EDGE = (255, 122, 0)
"""Colour of the line between tokens that stay and tokens that are dropped."""
SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Colours from the lowest to the highest score, evenly spaced. Their brightness differs too, not only the hue."""
_GREY = 128
_DIMMED = 0.82  # share of grey in a dropped token


def picture(pixels: Pixels) -> Pixels:
    """An image, uint8 (C, H, W), as RGB uint8 (S, S, 3). It is grey unless it has 3 channels."""
    channels = pixels if len(pixels) == 3 else np.repeat(pixels.mean(axis=0, keepdims=True), 3, axis=0)
    zoom = max(1, SIDE // pixels.shape[1])
    return np.repeat(np.repeat(channels.transpose(1, 2, 0).astype(np.uint8), zoom, axis=0), zoom, axis=1)


def on_grid(ids: Ids, grid_size: int) -> NDArray[np.bool_]:
    """Whether each patch (G, G) is among ids (k,)."""
    found = np.zeros(grid_size * grid_size, dtype=bool)
    found[ids] = True
    return found.reshape(grid_size, grid_size)


def tokens(image: Pixels, shown: NDArray[np.bool_], framed: NDArray[np.bool_] | None = None) -> Image.Image:
    """An image, uint8 (S, S, 3), with the grid, and with all patches dimmed that are not `shown` (G, G).

    Args:
        framed: patches (G, G) to draw a line around, where other patches are next to them. Default: `shown`.
    """
    cell = len(image) // len(shown)
    stays = _enlarge(shown, cell)[:, :, None]
    mixed = np.where(stays, image, (1 - _DIMMED) * image + _DIMMED * _GREY)
    lines = _grid_lines(len(shown), cell)
    mixed[lines] = 0.6 * mixed[lines] + 0.4 * _GREY
    mixed[_edges(shown if framed is None else framed, cell)] = EDGE
    return Image.fromarray(mixed.astype(np.uint8))


def heat_map(ids: Ids, scores: Floats, grid_size: int, side: int) -> Image.Image:
    """Scores (n,) of the patches at ids (n,), in colours from the lowest to the highest. Other patches are transparent.

    Returns:
        Mode "RGBA", `side` pixels wide and high.
    """
    colours = np.zeros((grid_size * grid_size, 4), dtype=np.uint8)
    colours[ids, :3] = colour(scores)
    colours[ids, 3] = 255
    cell = side // grid_size
    enlarged = _enlarge(colours.reshape(grid_size, grid_size, 4), cell)
    lines = _grid_lines(grid_size, cell)
    enlarged[lines, :3] = (0.75 * enlarged[lines, :3]).astype(np.uint8)
    return Image.fromarray(enlarged)


def colour(scores: Floats) -> Pixels:
    """Colours (n, 3) of scores (n,): the first of `SCALE` for the lowest, the last for the highest and for NaN."""
    finite = scores[np.isfinite(scores)]
    spread = np.ptp(finite) if len(finite) else 0.0
    share = (scores - finite.min()) / spread if spread > 0 else np.zeros(len(scores))
    share = np.where(np.isfinite(scores), share, 1.0)
    stops = np.linspace(0.0, 1.0, len(SCALE))
    channels = [np.interp(share, stops, channel) for channel in zip(*SCALE, strict=True)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def _enlarge(values: NDArray[T], factor: int) -> NDArray[T]:
    return np.repeat(np.repeat(values, factor, axis=0), factor, axis=1)


def _grid_lines(grid_size: int, cell: int) -> NDArray[np.bool_]:
    """Mask (S, S) of the first row and column of every patch but the first."""
    starts = np.arange(grid_size * cell) % cell == 0
    starts[0] = False
    lines: NDArray[np.bool_] = starts[:, None] | starts[None, :]
    return lines


def _edges(inside: NDArray[np.bool_], cell: int) -> NDArray[np.bool_]:
    """Mask (S, S) of lines, two pixels wide, between patches that are `inside` (G, G) and other patches."""
    large = np.pad(_enlarge(inside, cell), 1, mode="edge")
    centre = large[1:-1, 1:-1]
    neighbours = (large[:-2, 1:-1], large[2:, 1:-1], large[1:-1, :-2], large[1:-1, 2:])
    lines = np.zeros(centre.shape, dtype=bool)
    for neighbour in neighbours:
        lines |= centre != neighbour
    return lines
