"""Make the canonical surfaces of `meshes/`: `python -m experiments.gallery.make_meshes [--out meshes]`, 20 seconds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from geoframe._files import atomic_path
from geoframe.surface import health, save
from geoframe.surface.creatures import creature

# name: vertices, seed of the triangulation
MESHES = {"dog": (3000, 1), "giraffe": (2500, 2)}

README = """# meshes

Closed, manifold surfaces with named landmarks, made by geoframe itself; free to use under its licence. They are
installed with the package: `geoframe.templates()` lists them, `geoframe.template(name)` loads one,
`geoframe.template_landmarks(name)` gives its landmarks (`NAME.json`: name -> vertex, 0-based).

Both look along +x, y is up, their left is at -z. They are triangulated independently: equal vertex numbers mean
nothing, equal landmark names mark corresponding places.

| name | V | F | area | landmarks |
|---|---|---|---|---|
{rows}

Landmarks: {names}.

How to regenerate: `python -m experiments.gallery.make_meshes`
"""


def main() -> None:
    """Write NAME.obj and NAME.json for each surface, and the README with its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("meshes"))
    out = parser.parse_args().out
    rows: list[str] = []
    names: dict[str, int] = {}
    for name, (n_verts, seed) in MESHES.items():
        mesh, landmarks = creature(name, n_verts, seed=seed)
        mesh = mesh.with_verts(mesh.verts.round(decimals=6))
        save(mesh, out / f"{name}.obj")
        with atomic_path(out / f"{name}.json") as path:
            path.write_text(json.dumps(landmarks, indent=1) + "\n")
        problems = health(mesh).problems
        print(f"{name}: V={mesh.n_verts} F={mesh.n_faces} problems: {', '.join(problems) or 'none'}")
        rows.append(
            f"| {name} | {mesh.n_verts} | {mesh.n_faces} | {float(mesh.area):.3f} | {len(landmarks)} |"
        )
        names |= landmarks
    with atomic_path(out / "README.md") as path:
        path.write_text(README.format(rows="\n".join(rows), names=", ".join(names)))


if __name__ == "__main__":
    main()
