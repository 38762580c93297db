"""Reading pages and the pictures in them."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image


class Elements(HTMLParser):
    """Every element's name with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def assert_self_contained(page: str) -> Elements:
    """No script, no handler, nothing that is fetched."""
    elements = Elements(page)
    for tag, attributes in elements.found:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base", "a"), tag
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"https?:|url\(|@import", page)
    return elements


def pictures(elements: Elements) -> dict[str, np.ndarray]:
    """Pixels (S, S, 3) of a page's pictures by their title; of pictures of the same title the first."""
    found: dict[str, np.ndarray] = {}
    for tag, attributes in elements.found:
        if tag == "img":
            content = base64.b64decode(attributes["src"].partition(",")[2])
            title = attributes["alt"].partition(":")[0]
            found.setdefault(title, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int))
    return found


def bright_tokens(picture: np.ndarray, image: np.ndarray, grid_size: int) -> list[int]:
    """The patches of a picture that look as in the image: those that are not dimmed."""
    cell = len(picture) // grid_size
    found = []
    for token in range(grid_size**2):
        row, column = (cell * place + 4 for place in divmod(token, grid_size))
        inside = np.s_[row : row + cell - 8, column : column + cell - 8]
        if np.array_equal(picture[inside], image[inside]):
            found.append(token)
    return found
