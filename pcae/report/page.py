"""HTML pages in one file, without scripts or network, light and dark, readable on a phone. All text is escaped here."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from pcae.report.figure import Figure, Panel
from pcae.report.panels import SCALE
from pcae_core.errors import ConfigError
from pcae_core.storage import atomic

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f6f8;--ink:#16181d;--faint:#5a606b;--line:#d5d9e0;
--c0:#0b63c5;--c1:#b4470a;--c2:#0b7a4b;--c3:#7a3fb0}
@media(prefers-color-scheme:dark){:root{--paper:#14161a;--card:#1e2127;--ink:#eceef2;--faint:#a3aab6;--line:#3a3f49;
--c0:#6cb0ff;--c1:#ffa15e;--c2:#5fd6a0;--c3:#cda2f5}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:16px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0 .4em}h2{font-size:1.2rem;margin:1.8em 0 .6em}
h3{font-size:1rem;margin:0 0 .5em}p{margin:.4em 0;max-width:75ch}.faint,figcaption{color:var(--faint)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:12px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;min-width:0}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px}
.numbers b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(46%,210px),1fr));gap:12px}
.panels+.panels{margin-top:14px}.panels.small{grid-template-columns:repeat(auto-fill,minmax(min(30%,92px),1fr))}
.single{grid-template-columns:minmax(0,1fr)}
.pairs{grid-template-columns:repeat(auto-fit,minmax(min(100%,560px),1fr))}
figure{margin:0;min-width:0}figcaption{font-size:.82rem;line-height:1.35}figcaption b{color:var(--ink);display:block}
.panels img{width:100%;height:auto;display:block;border-radius:3px;margin-bottom:4px}
.alone{grid-column:1/-1;padding:10px;border:1px dashed var(--line);border-radius:6px}
.bar{height:8px;border-radius:2px;margin:4px 0 1px}.ends{display:flex;justify-content:space-between;
font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}
th,td{overflow-wrap:normal;padding:4px 10px 4px 0;text-align:right}
tr>*{border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
pre{margin:0;font:13px/1.45 ui-monospace,monospace;overflow-x:auto}code{font-family:ui-monospace,monospace}
svg{width:100%;height:auto;display:block;color:var(--faint)}svg text{fill:currentColor;font-size:11px}
.legend{font-size:.85rem;display:flex;flex-wrap:wrap;gap:2px 14px}.legend i{display:inline-block;width:18px;height:0;
border-top:3px solid;margin-right:5px;vertical-align:middle}
.warn{border-left:4px solid var(--c1);padding-left:10px}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page. `body` is HTML, `title` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def escape(text: object) -> str:
    """Text escaped for HTML, also in attribute values."""
    return html.escape(str(text))


def section(heading: str, *parts: str) -> str:
    """A heading over HTML."""
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts)


def paragraph(text: str, kind: str = "") -> str:
    """Text as a paragraph of a CSS class."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def warnings(lines: Iterable[str]) -> list[str]:
    """A marked paragraph for each line."""
    return [paragraph(f"Warning: {line}", "warn") for line in lines]


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text. A wide table scrolls on its own."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def numbers(found: dict[str, str]) -> str:
    """Large numbers with their names; `found` is name -> number."""
    cells = (f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in found.items())
    return f'<div class="card numbers">{"".join(cells)}</div>'


def cards(parts: Iterable[str], kind: str = "") -> str:
    """HTML of cards side by side; at most two for the kind "pairs"."""
    return f'<div class="cards {kind}">{"".join(parts)}</div>'


def card(heading: str, *parts: str) -> str:
    """A frame with a heading; `parts` are HTML."""
    return f'<div class="card"><h3>{escape(heading)}</h3>{"".join(parts)}</div>'


def figures(found: Iterable[Figure], small: bool = False) -> str:
    """A card for each figure with its panels, row by row. Small figures are side by side."""
    kind = "panels small" if small else "panels"
    drawn = (
        card(figure.name, *(f'<div class="{kind}">{"".join(map(_panel, row))}</div>' for row in figure.rows))
        for figure in found
    )
    return cards(drawn, "pairs" if small else "single")


def _panel(panel: Panel) -> str:
    caption = f"<figcaption><b>{escape(panel.title)}</b>{escape(panel.text)}{_scale(panel.scale)}</figcaption>"
    if panel.image is None:
        return f'<figure class="alone">{caption}</figure>'
    alt = escape(f"{panel.title}: {panel.text}")
    return f'<figure><img src="{data_uri(panel.image)}" alt="{alt}">{caption}</figure>'


def _scale(scale: tuple[float, float] | None) -> str:
    if scale is None:
        return ""
    colours = ",".join(f"rgb{stop}".replace(" ", "") for stop in SCALE)
    low, high = (f"{value:.3f}" for value in scale)
    return (
        f'<div class="bar" style="background:linear-gradient(90deg,{colours})"></div>'
        f'<div class="ends"><span>{low}</span><span>{high}</span></div>'
    )


def data_uri(image: Image.Image) -> str:
    """An image as a PNG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write(path: Path, text: str) -> None:
    """Write a page, whole or not at all. Raises ConfigError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.whole_file(path) as writing:
            writing.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose another --out") from None
