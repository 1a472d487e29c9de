"""Pictures of a rendered set and their truth, in the README: `python -m experiments.gallery.renders [--out FILE]`.

Minutes of one core when surfaces are made for the first time, seconds afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from geoframe._files import atomic_path
from geoframe.data.rendered import render_set

ROWS = (
    ("horse", "dog", "human", "cow", "elephant", "cat", "bird", "chimp"),
    ("car", "human", "head", "zebra", "chair", "human", "lion", "sheep"),
)
SIZE = 96


def cell(category: str, number: int) -> np.ndarray:
    """(2 S, S, 3) in [0, 1]: a picture, and the place on the category's surface at every pixel as a colour."""
    pictures = render_set(category, number + 1, size=SIZE, seed=20)
    batch, verts = pictures[number], pictures.surfaces()[0].verts.numpy()
    places = (verts - verts.min(0)) / np.ptp(verts, axis=0)
    image = batch.image[0].movedim(0, -1).numpy()
    truth = np.where((batch.vertex[0] >= 0).numpy()[..., None], places[batch.vertex[0].numpy()], 1.0)
    return np.concatenate([image, truth])


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("renders.png"))
    args = parser.parse_args()
    rows = [np.concatenate([cell(c, 3 * i + j) for j, c in enumerate(row)], 1) for i, row in enumerate(ROWS)]
    sheet = Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).quantize(128)
    with atomic_path(args.out) as temporary:
        sheet.save(temporary, optimize=True)


if __name__ == "__main__":
    main()
