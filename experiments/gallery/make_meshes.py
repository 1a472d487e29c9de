"""Make the animals of `meshes/`: `python -m experiments.gallery.make_meshes [--out meshes]`, one minute."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from geoframe import zoo
from geoframe._files import atomic_path
from geoframe.surface import health, save

N_VERTS = 5000

README = """# meshes

Closed, manifold surfaces with named landmarks and mirror maps, made by geoframe itself; free to use under its
licence. They are installed with the package: `geoframe.templates()` lists them, `geoframe.template(name)` loads one,
`geoframe.template_landmarks(name)` gives its landmarks.

![thirteen animals, at rest and in a pose](../experiments/gallery/animals.png)

All look along +x, y is up, their left is at -z; lengths are in metres. They are triangulated independently: equal
vertex numbers mean nothing, equal landmark names mark corresponding places. Each is `geoframe.zoo.animal(name)`,
rounded to 6 decimals: other sizes (500 to 50,000 vertices), individuals (`seed`), poses (`pose`), coats and the exact
correspondence (`geoframe.zoo.correspondence(a, b)`) come from there. A bird's wings are its forelegs, an elephant's
trunk is its muzzle, and a human has a tail: a spot at the coccyx.

`NAME.json` holds `landmarks` (name -> vertex, 0-based) and `symmetry` (for each vertex the one on the other side).

| name | V | F | area | landmarks |
|---|---|---|---|---|
{rows}

Landmarks, shared by all: {names}.

How to regenerate: `python -m experiments.gallery.make_meshes`, and the picture:
`python -m experiments.gallery.contact_sheet`.
"""


def main() -> None:
    """Write NAME.obj and NAME.json for each surface, and the README with its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("meshes"))
    out = parser.parse_args().out
    rows: list[str] = []
    for name in zoo.species():
        made = zoo.animal(name, N_VERTS)
        mesh = made.mesh.with_verts(made.mesh.verts.round(decimals=6))
        save(mesh, out / f"{name}.obj")
        with atomic_path(out / f"{name}.json") as path:
            landmarks = json.dumps(made.landmarks, indent=1)
            path.write_text(f'{{"landmarks": {landmarks},\n"symmetry": {made.symmetry.tolist()}}}\n')
        problems = health(mesh).problems
        print(f"{name}: V={mesh.n_verts} F={mesh.n_faces} problems: {', '.join(problems) or 'none'}")
        rows.append(
            f"| {name} | {mesh.n_verts} | {mesh.n_faces} | {float(mesh.area):.3f} | {len(made.landmarks)} |"
        )
    readme = out / "README.md"
    rest = readme.read_text(encoding="utf-8").partition("<!--") if readme.is_file() else ("", "", "")
    with atomic_path(readme) as path:
        text = README.format(rows="\n".join(rows), names=", ".join(zoo.landmark_names()))
        path.write_text(
            text + ("\n" + "".join(rest[1:]) if rest[1] else "")
        )  # the rigid surfaces' part stays


if __name__ == "__main__":
    main()
