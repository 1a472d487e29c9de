"""The README's picture: two of geoframe's own animals and the map between them.

python -m experiments.gallery.readme [--out FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geoframe
from geoframe.viz.surfaces import save_picture


def main() -> None:
    """Match two template animals from their landmarks and draw the map."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("match.png"))
    out = parser.parse_args().out
    a, b = "dog", "horse"
    mesh1, mesh2 = geoframe.template(a), geoframe.template(b)
    dots1, dots2 = geoframe.template_landmarks(a), geoframe.template_landmarks(b)
    landmarks = geoframe.pair_landmarks(dots1, dots2)
    found = geoframe.match(mesh1, mesh2, landmarks)
    picture = geoframe.draw_match(mesh1, mesh2, found.p2p_21, landmarks=landmarks, titles=(a, b))
    save_picture(picture, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
