"""What every page is made of: the skeleton with its style, cards, tables, numbers and pictures as text.

A page is one file that opens offline: style, script, data and pictures are inside it.
"""

from __future__ import annotations

import base64
import html
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from geoframe._files import atomic_path, to_json
from geoframe._types import Array


def write_page(
    path: str | Path,
    title: str,
    body: str,
    *,
    heading: str = "",
    lead: str = "",
    scripts: Sequence[str] = (),
    data: Any = None,
) -> None:
    """Write a page, whole or not at all.

    Args:
        path: the HTML file.
        title: what the browser's tab says; plain text.
        body: what stands below the heading; HTML already.
        heading: the first line of the page, plain text; by default the title.
        lead: a sentence or two below the heading; plain text.
        scripts: names of JavaScript files beside this module, run one after the other when the body stands.
        data: what the scripts read, as JSON in the element with the id "data".

    Raises:
        ValueError: the file cannot be written.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{_resource('page.css')}</style></head>",
        f"<body>\n<h1>{html.escape(heading or title)}</h1>",
        f'<p class="dim">{html.escape(lead)}</p>' if lead else "",
        body,
    ]
    if data is not None:
        text = to_json(data, indent=None).strip().replace("</", "<\\/")
        parts.append(f'<script type="application/json" id="data">{text}</script>')
    parts += [f"<script>\n{_resource(script)}</script>" for script in scripts]
    parts.append("</body></html>\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(p for p in parts if p), encoding="utf-8")


def _resource(name: str) -> str:
    return resources.files("geoframe.viz").joinpath(name).read_text(encoding="utf-8")


def cards(boxes: Iterable[str]) -> str:
    """Boxes of `card` in as many columns as the window is wide."""
    return f'<div class="cards">{"".join(boxes)}</div>'


def card(title: str, body: str, *, wide: bool = False) -> str:
    """A box with a heading, as HTML.

    Args:
        title: plain text.
        body: HTML already.
        wide: take the whole width of the page, for tables of many columns.
    """
    return f'<div class="card{" wide" if wide else ""}"><h2>{html.escape(title)}</h2>{body}</div>'


def table(
    rows: Iterable[Sequence[Any]] | Mapping[str, Any], head: Sequence[str] = (), *, tall: bool = False
) -> str:
    """A table, as HTML: the first column is text, numbers in the others stand at the right.

    A table that is wider than its card scrolls inside it.

    Args:
        rows: cells, or a mapping of names to values.
        head: names of the columns, or none.
        tall: many rows are expected: scroll after a dozen.
    """
    listed = [tuple(row) for row in (rows.items() if isinstance(rows, Mapping) else rows)]

    def line(cells: Sequence[Any], tag: str) -> str:
        marks = (f"<{tag}>" if i == 0 else f'<{tag} class="n">' for i in range(len(cells)))
        return f"<tr>{''.join(f'{m}{number(c)}</{tag}>' for m, c in zip(marks, cells, strict=True))}</tr>"

    text = (line(head, "th") if head else "") + "".join(line(row, "td") for row in listed)
    return f'<div class="scroll{" tall" if tall else ""}"><table>{text}</table></div>'


def number(value: Any) -> str:
    """A value as HTML text; a float with four digits that count."""
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def words(name: str) -> str:
    """A name of the code as a heading: underscores become spaces, the first letter a capital."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def image(picture: Array, alt: str, *, kind: str = "") -> str:
    """A picture (H, W, 3) uint8 inside the page, as HTML.

    Args:
        picture: sRGB.
        alt: what it shows, in words.
        kind: a class of the style sheet, such as "map" for a matrix with one pixel an entry.
    """
    source = base64.b64encode(png(picture)).decode("ascii")
    mark = f' class="{kind}"' if kind else ""
    return f'<img{mark} alt="{html.escape(alt)}" src="data:image/png;base64,{source}">'


def hidden_image(picture: Array, name: str) -> str:
    """A picture (H, W, 3) uint8 inside the page that only its scripts draw, found by its id `name`; as JPEG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=90)
    source = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img hidden alt="" id="{name}" src="data:image/jpeg;base64,{source}">'


def png(picture: Array, *, photograph: bool = False) -> bytes:
    """A picture as the bytes of a PNG file.

    Args:
        picture: (H, W, 3) uint8 sRGB.
        photograph: look for runs of one value only, not for parts that repeat: photographs take half of the time so
            and 6 % less room, drawings up to a third more room.
    """
    from PIL import Image

    way = {"compress_level": 3}  # a third of the time of the usual one, 6 % larger
    if photograph:
        way |= {"compress_type": zlib.Z_RLE}
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", **way)
    return file.getvalue()


def packed(x: Any, dtype: str) -> str:
    """Raw numbers in base64, for a typed array of the page's scripts; `dtype` such as "<f4" (little-endian)."""
    return base64.b64encode(np.ascontiguousarray(x, dtype=dtype).tobytes()).decode("ascii")
