"""What the shipped animals say of unseen renders, in the README: `python -m experiments.gallery.pixels [--out FILE]`.

Column i is render i of its species, of seed 9001, none chosen; seconds of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from geoframe._files import atomic_path
from geoframe.data.rendered import render_set
from geoframe.models.surface_embedding import load
from geoframe.pixels import PixelMap

SPECIES = ("horse", "horse", "cow", "dog", "cat", "lion", "giraffe", "elephant", "bear", "zebra", "sheep")
SIZE, SHOWN, SEED = 128, 96, 9001


def main() -> None:
    """Draw image, map and truth below each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("pixels.png"))
    args = parser.parse_args()
    predictor = load("animals")
    columns = []
    for i, species in enumerate(SPECIES):
        pictures = render_set(species, i + 1, size=SIZE, seed=SEED)
        batch, verts = pictures[i], pictures.surfaces()[0].verts.numpy()
        places = (verts - verts.min(0)) / np.ptp(verts, axis=0)
        found: PixelMap = predictor.predict(batch.image[0], category=species)[0]
        rows = [batch.image[0].movedim(0, -1).numpy()]
        for vertex, mask in ((found.vertex, found.mask), (batch.vertex[0], batch.vertex[0] >= 0)):
            rows.append(np.where(mask.numpy()[..., None], places[vertex.numpy()], 1.0))
        columns.append(np.concatenate(rows))
    sheet = Image.fromarray((np.concatenate(columns, 1) * 255).round().astype(np.uint8))
    sheet = sheet.resize((SHOWN * len(SPECIES), 3 * SHOWN), Image.Resampling.LANCZOS).quantize(160)
    with atomic_path(args.out) as temporary:
        sheet.save(temporary, optimize=True)


if __name__ == "__main__":
    main()
