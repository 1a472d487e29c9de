"""Make the rigid surfaces and the head of `meshes/`: `python -m experiments.gallery.make_rigid_meshes [--out meshes]`.

Two minutes on one core; run it after `make_meshes`, whose README it extends. `--sheet` draws the picture instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.gallery.contact_sheet import turned
from geoframe import zoo
from geoframe._files import atomic_path
from geoframe.surface import health, save
from geoframe.viz.surfaces import draw_surface
from geoframe.zoo.template import draft

N_VERTS = 5000
SEEDS = {"aeroplane": 4, "car": 10, "chair": 1, "motorbike": 1, "table": 1}
ROW = {
    "chair": (0, 1, 15, 4, 6, 39, 16),
    "table": (1, 2, 6, 9, 14, 16, 18),
    "aeroplane": (4, 8, 0, 1, 6, 11, 15),
    "car": (10, 0, 1, 6, 24, 16, 9),
    "motorbike": (1, 0, 11, 2, 3, 13, 8),
}
FACES: tuple[Mapping[str, float], ...] = (
    *({}, {"smile": 1.0}, {"open_mouth": 1.0}, {"raised_brows": 1.0, "open_mouth": 0.4}),
    *({"frown": 1.0}, {"closed_eyes": 1.0}, {"pucker": 1.0}),
)
MARK = "<!-- rigid categories and the head, by experiments.gallery.make_rigid_meshes -->"
README = """{mark}

## Rigid categories and a head

![chairs, tables, aeroplanes, cars, motorbikes and heads](../experiments/gallery/rigid.png)

One member of each category with named parts; others, of any size, with exact correspondence between any two, come
from `zoo.surface_mesh(zoo.sample(category, seed), n_verts)` and `zoo.sample_head(seed, expression)`.
`NAME.json` also holds `labels` (names of the parts of the category), `vertex_part` and `face_part` (numbers of these).

| name | V | F | area | landmarks |
|---|---|---|---|---|
{rows}

How to regenerate: `python -m experiments.gallery.make_rigid_meshes` (after `make_meshes`), and the picture: the same
with `--sheet`.
"""
# the first word that is part of a label decides its colour; the others get one by their number
PAINT = {
    "cabin_windows": (40, 50, 70),
    "window": (45, 55, 75),
    "windscreen": (45, 55, 75),
    "cockpit": (40, 50, 70),
    "screen": (150, 175, 200),
    "tyre": (38, 38, 42),
    "wheel": (38, 38, 42),
    "rim": (200, 200, 206),
    "disc": (150, 150, 155),
    "headlight": (255, 250, 215),
    "taillight": (150, 10, 10),
    "grille": (50, 50, 52),
    "body": (190, 40, 35),
    "cabin": (190, 40, 35),
    "mirror": (60, 60, 64),
    "fuselage": (236, 237, 241),
    "winglet": (45, 95, 190),
    "wing": (176, 182, 192),
    "stabiliser": (176, 182, 192),
    "fin": (45, 95, 190),
    "engine": (110, 115, 125),
    "propeller": (50, 50, 55),
    "spinner": (190, 40, 35),
    "tank": (190, 40, 35),
    "fairing": (190, 40, 35),
    "fender": (190, 40, 35),
    "tail": (190, 40, 35),
    "case": (80, 82, 88),
    "exhaust": (205, 200, 190),
    "frame": (70, 70, 75),
    "fork": (200, 200, 206),
    "swingarm": (120, 120, 125),
    "cylinder": (160, 160, 163),
    "grip": (30, 30, 30),
    "handlebar": (170, 170, 175),
    "iris": (50, 85, 110),
    "eyelid": (226, 176, 150),
    "eye": (248, 248, 248),
    "brow": (70, 46, 32),
    "hair": (70, 46, 32),
    "lip": (190, 95, 90),
    "mouth": (70, 15, 20),
    "ear": (232, 184, 158),
    "skin": (236, 190, 164),
    "neck": (236, 190, 164),
    "nose": (236, 190, 164),
    "seat": (196, 120, 90),
    "top": (176, 122, 78),
    "back": (120, 160, 140),
    "slat": (214, 190, 120),
    "rung": (214, 190, 120),
    "arm": (150, 130, 180),
    "leg": (110, 130, 170),
    "runner": (110, 130, 170),
    "base": (130, 130, 140),
    "column": (130, 130, 140),
}


def paint(labels: tuple[str, ...], category: str) -> np.ndarray:
    """(n, 3) colours in [0, 1] of the parts of a category."""
    own = {"motorbike": {"seat": (58, 50, 46), "left_engine": (140, 140, 145)}}.get(category, {})
    colors = [
        next((c for word, c in (own | PAINT).items() if word in name), (140, 140, 145)) for name in labels
    ]
    return np.array(colors) / 255


def tile(member: zoo.Member, view: tuple[float, float], size: int = 280) -> np.ndarray:
    """(size, size, 3) uint8: one member, coloured by its parts."""
    mesh, part = draft(member)
    structure = member.structure
    colors = paint(structure.labels, structure.name.split("/")[0])[part.numpy()]
    return draw_surface(mesh, colors=colors, view=turned(*view), size=(size, size))


def sheet(path: Path) -> None:
    """A row of members for each category, and heads with expressions."""
    views = {
        "chair": (125, 20),
        "table": (120, 22),
        "aeroplane": (50, 28),
        "car": (48, 20),
        "motorbike": (30, 12),
    }
    rows = []
    for category, seeds in ROW.items():
        rows.append([tile(zoo.sample(category, s), views[category]) for s in seeds])
    rows.append([tile(zoo.sample_head(s, e), (68 if s % 2 else 82, 6)) for s, e in enumerate(FACES)])
    picture = Image.fromarray(np.concatenate([np.concatenate(r, axis=1) for r in rows]))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for i, name in enumerate((*ROW, "head")):
        draw.text((8, i * 280 + 6), name, "black", font)
    with atomic_path(path) as place:
        picture.quantize(200, dither=Image.Dither.NONE).save(place, format="PNG", optimize=True)


def write(name: str, member: zoo.Member, out: Path) -> str:
    """Write NAME.obj and NAME.json; the row of the table."""
    made = zoo.surface_mesh(member, N_VERTS)
    mesh = made.mesh.with_verts(made.mesh.verts.round(decimals=6))
    save(mesh, out / f"{name}.obj")
    entries = {
        "landmarks": made.landmarks,
        "symmetry": made.symmetry.tolist(),
        "labels": list(member.structure.labels),
        "vertex_part": made.vertex_part.tolist(),
        "face_part": made.face_part.tolist(),
    }
    with atomic_path(out / f"{name}.json") as path:
        path.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in entries.items()) + "}\n")
    problems = health(mesh).problems
    print(f"{name}: V={mesh.n_verts} F={mesh.n_faces} problems: {', '.join(problems) or 'none'}")
    return f"| {name} | {mesh.n_verts} | {mesh.n_faces} | {float(mesh.area):.3f} | {len(made.landmarks)} |"


def main() -> None:
    """Write the meshes and their part of the README, or the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("meshes"))
    parser.add_argument("--sheet", action="store_true", help="draw the picture instead")
    args = parser.parse_args()
    if args.sheet:
        return sheet(Path(__file__).with_name("rigid.png"))
    members = {name: zoo.sample(name, seed) for name, seed in SEEDS.items()} | {"head": zoo.sample_head(0)}
    rows = [write(name, member, args.out) for name, member in members.items()]
    readme = args.out / "README.md"
    above = readme.read_text(encoding="utf-8").split(MARK)[0].rstrip() if readme.is_file() else "# meshes"
    with atomic_path(readme) as path:
        path.write_text(f"{above}\n\n{README.format(mark=MARK, rows=chr(10).join(rows))}")


if __name__ == "__main__":
    main()
