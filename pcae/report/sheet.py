"""Figures as PNG images that contain their titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pcae.report.figure import Figure, Panel
from pcae.report.panels import SCALE

_MARGIN, _TITLE, _TEXT, _BAR = 12, 15, 12, 10
_INK, _FAINT, _PAPER = (20, 22, 26), (96, 100, 108), (255, 255, 255)
_BELOW, _SCALE = _TEXT + 6, _TEXT + 4 + _BAR  # room for the text below a panel, and for a scale below that
_MOST_LINES = 3  # of a text in place of a picture
_NARROWEST = 240  # least width of a panel with its text


def whole(figure: Figure) -> Image.Image:
    """All rows of a figure, mode "RGB"."""
    return _paint(figure.name, [("", row) for row in figure.rows])


def contact_sheet(figures: Sequence[Figure], title: str) -> Image.Image:
    """The first row of every figure, one below the other, mode "RGB"."""
    return _paint(title, [(figure.name, figure.rows[0]) for figure in figures])


def _paint(title: str, rows: Sequence[tuple[str, Sequence[Panel]]]) -> Image.Image:
    side = max(panel.image.width for _, row in rows for panel in row if panel.image)
    width = max(side, _NARROWEST) + _MARGIN
    names = [_TEXT + 6 if name else 0 for name, _ in rows]
    heights = [_height(row, side) for _, row in rows]
    columns = max(len(row) for _, row in rows)
    size = (_MARGIN + columns * width, 2 * _MARGIN + _TITLE + sum(heights) + sum(names))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_MARGIN, _MARGIN), title, _TITLE, _INK, size[0] - 2 * _MARGIN)
    top = 2 * _MARGIN + _TITLE
    for (name, row), room, height in zip(rows, names, heights, strict=True):
        _write(draw, (_MARGIN, top), name, _TEXT, _FAINT, size[0] - 2 * _MARGIN)
        top += room
        for column, panel in enumerate(row):
            _panel(sheet, draw, (_MARGIN + column * width, top), panel, width - _MARGIN, side)
        top += height
    return sheet


def _height(row: Sequence[Panel], side: int) -> int:
    """Height of a row of panels."""
    drawn = side if any(panel.image for panel in row) else 0
    below = _BELOW if drawn else _MOST_LINES * (_TEXT + 4)
    return _TITLE + drawn + below + (_SCALE if any(panel.scale for panel in row) else 0) + 2 * _MARGIN


def _panel(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], panel: Panel, width: int, side: int
) -> None:
    left, top = corner
    _write(draw, corner, panel.title, _TITLE, _INK, width)
    top += _TITLE + 6
    if panel.image is not None:
        rgba = panel.image.convert("RGBA")
        sheet.paste(rgba, (left, top), rgba)
        top += side
    if panel.image is None:  # the text takes the rest of the row
        _write(draw, (left, top + 4), panel.text, _TEXT, _FAINT, sheet.width - left - _MARGIN, _MOST_LINES)
        return
    _write(draw, (left, top + 4), panel.text, _TEXT, _FAINT, width)
    if panel.scale is not None:
        _scale(sheet, draw, (left, top + 10 + _TEXT), panel.scale, side)


def _scale(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], scale: tuple[float, float], side: int
) -> None:
    """Draw a bar of colours with the lowest and the highest score below its ends."""
    stops = np.linspace(0, side, len(SCALE))
    bar = np.stack([np.interp(np.arange(side), stops, channel) for channel in zip(*SCALE, strict=True)], axis=-1)
    left, top = corner
    sheet.paste(Image.fromarray(np.tile(bar.astype(np.uint8), (_BAR, 1, 1))), corner)
    low, high = (f"{value:.3f}" for value in scale)
    font = ImageFont.load_default(_TEXT)
    draw.text((left, top + _BAR + 1), low, _FAINT, font)
    draw.text((left + side - draw.textlength(high, font), top + _BAR + 1), high, _FAINT, font)


def _write(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    size: int,
    ink: tuple[int, int, int],
    width: int,
    most_lines: int = 1,
) -> None:
    """Draw text in lines of at most `width` pixels. The last line is cut off if the text does not fit."""
    font = ImageFont.load_default(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if len(lines) < most_lines and draw.textlength(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if draw.textlength(lines[-1], font) > width:
        while lines[-1] and draw.textlength(f"{lines[-1]}…", font) > width:
            lines[-1] = lines[-1][:-1].rstrip()
        lines[-1] += "…"
    draw.multiline_text(corner, "\n".join(lines), ink, font)
