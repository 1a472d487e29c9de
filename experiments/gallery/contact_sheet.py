"""The picture of all animals in meshes/README.md: `python -m experiments.gallery.contact_sheet [--out FILE] [--plain]`.

One minute on one core: each species in its coat, at rest from the side and in a pose from the front quarter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geoframe import zoo
from geoframe._files import atomic_path
from geoframe.viz.surfaces import draw_surface

SIZE = (300, 330)  # height, width of one view
COLUMNS = 3


def turned(yaw: float, pitch: float) -> np.ndarray:
    """(3, 3) view: right, up and towards the viewer, turned about y and tilted down, in degrees."""
    y, p = np.radians(yaw), np.radians(pitch)
    back = np.array([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])
    right = np.cross([0, 1, 0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back])


def portrait(name: str, n_verts: int, *, plain: bool) -> np.ndarray:
    """(H, W, 3) uint8: one species twice, its name below."""
    rest, posed = zoo.animal(name, n_verts), zoo.animal(name, n_verts, pose=2)
    colors = None if plain else zoo.coat(rest)
    views = [
        draw_surface(rest.mesh, colors=colors, view=turned(8, 6), size=SIZE),
        draw_surface(posed.mesh, colors=colors, view=turned(48, 14), size=SIZE),
    ]
    return captioned(np.concatenate(views, axis=1), name)


def captioned(tile: np.ndarray, name: str) -> np.ndarray:
    """The picture (H, W, 3) uint8 with a name below."""
    picture = Image.fromarray(tile)
    canvas = Image.new("RGB", (picture.width, picture.height + 30), "white")
    canvas.paste(picture, (0, 0))
    font = ImageFont.load_default(20)
    ImageDraw.Draw(canvas).text((picture.width / 2, picture.height + 12), name, "black", font, anchor="mm")
    return np.asarray(canvas)


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("animals.png"))
    parser.add_argument("--plain", action="store_true", help="without colours")
    parser.add_argument("--vertices", type=int, default=5000)
    args = parser.parse_args()
    tiles = [portrait(name, args.vertices, plain=args.plain) for name in zoo.species()]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    sheet = Image.fromarray(np.concatenate(rows)).quantize(192, dither=Image.Dither.NONE)
    with atomic_path(args.out) as path:
        sheet.save(path, optimize=True)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
