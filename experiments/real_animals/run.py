"""Accuracy of `match` on real animals, beside pyFM on the same landmarks.

GEOFRAME_DATA=DIR python -m experiments.real_animals.run --out OUT [--quick] [--seed S]

Writes OUT/results.json: the mean exact geodesic distance on the cat between the predicted and the true vertex, over
the square root of the cat's area. pyFM gets its row where it is installed (`make bench-env`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import geoframe
from geoframe import Mesh
from geoframe._files import atomic_path
from geoframe.maps import geodesic_error

FIVE = torch.tensor([2653, 7179, 3804, 190, 5819])  # cat vertices of the five landmarks


def main() -> None:
    """Run all rows and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="cat to lion only, without pyFM")
    parser.add_argument("--seed", type=int, default=0, help="of the vertex order and the flipped edges")
    args = parser.parse_args()
    if "GEOFRAME_DATA" not in os.environ:
        raise SystemExit("GEOFRAME_DATA: expected the folder with animals/, found it unset")
    folder = Path(os.environ["GEOFRAME_DATA"]) / "animals"
    results: dict[str, float] = {}
    for row in rows(folder, args.seed, args.quick):
        run_row(row, results, peer=not args.quick)
    args.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {args.out / 'results.json'}")


def rows(folder: Path, seed: int, quick: bool) -> list[dict[str, Any]]:
    """What is measured: name, meshes, landmarks (or None), truth (N, 2)."""
    cat, lion = (_load(folder / "cat_lion" / f"{n}.off") for n in ("cat-00", "lion-00"))
    pairs, markers = (
        torch.as_tensor(np.loadtxt(folder / "cat_lion" / f"{n}.txt", dtype=np.int64))
        for n in ("landmarks", "markers_55")
    )
    start = (markers[:, :1] == FIVE).any(1)
    five = {"landmarks": markers[start], "truth": markers[~start]}
    out = [
        {"name": "lion_all", "mesh2": lion, "landmarks": pairs, "truth": markers},
        {"name": "lion_13", "mesh2": lion, "landmarks": pairs[:13], "truth": markers},
        {"name": "lion_5", "mesh2": lion, **five},
    ]
    for name in () if quick else ("cat-03", "cat-07"):
        other, order = disguise(_load(folder / "poses" / f"{name}.off"), seed)
        truth = torch.stack([order, torch.arange(len(order))], 1)[:: max(1, len(order) // 100)]
        place = torch.argsort(order)
        dots = torch.stack([FIVE, place[FIVE]], 1)
        out.append({"name": f"{name}_5", "mesh2": other, "landmarks": dots, "truth": truth})
        out.append({"name": f"{name}_none", "mesh2": other, "landmarks": None, "truth": truth})
    return [{"mesh1": cat, **row} for row in out]


def run_row(row: dict[str, Any], results: dict[str, float], *, peer: bool) -> None:
    """Match, measure, and print ours beside pyFM's."""
    name, mesh1, mesh2 = row["name"], row["mesh1"], row["mesh2"]
    begin = time.perf_counter()
    found = geoframe.match(mesh1, mesh2, row["landmarks"])
    results[f"{name}/seconds"] = time.perf_counter() - begin
    results[f"{name}/error"] = float(geodesic_error(mesh1, found.p2p_21, row["truth"]).mean())
    results |= {f"{name}/{key}": float(value) for key, value in found.energies.items()}
    line = f"{name:12s} geoframe {results[f'{name}/error']:.4f} ({results[f'{name}/seconds']:.0f} s)"
    results[f"{name}/confidence"] = found.confidence
    line += f", confidence {found.confidence:.2f}"
    marks = row["landmarks"]
    if peer and marks is not None and (p2p := pyfm(mesh1, mesh2, marks)) is not None:
        results[f"{name}/pyfm_error"] = float(geodesic_error(mesh1, p2p, row["truth"]).mean())
        line += f", pyFM {results[f'{name}/pyfm_error']:.4f}"
    print(line, flush=True)


def pyfm(mesh1: Mesh, mesh2: Mesh, landmarks: Tensor) -> Tensor | None:
    """(V2,) pyFM's map: wave kernel and landmark wave kernel, 30 functions, ZoomOut to 256 in steps of 2."""
    try:
        from pyFM.functional import FunctionalMapping
        from pyFM.mesh import TriMesh
    except ImportError:
        return None
    one, two = (
        TriMesh(m.verts.double().numpy(), m.faces.numpy(), area_normalize=True) for m in (mesh1, mesh2)
    )
    model = FunctionalMapping(one, two)
    model.preprocess(n_descr=100, descr_type="WKS", landmarks=landmarks.numpy(), k_process=256)
    model.fit(K=(30, 30), w_descr=1e-1, w_lap=1e-3, w_dcomm=1, w_orient=0)
    model.zoomout_refine(nit=113, step=2)
    return torch.as_tensor(model.get_p2p())


def disguise(mesh: Mesh, seed: int) -> tuple[Mesh, Tensor]:
    """The mesh with another vertex order and many edges flipped, and `order`: new vertex i was order[i].

    An edge is flipped if its two triangles have not changed yet, form a convex quad and give no sliver.
    """
    rng = np.random.default_rng(seed)
    v, f = mesh.verts.double().numpy(), mesh.faces.numpy().copy()
    beside = {(t[i], t[(i + 1) % 3]): n for n, t in enumerate(f.tolist()) for i in range(3)}
    edges = [e for e in beside if e[0] < e[1] and e[::-1] in beside]
    present, changed = {tuple(sorted(e)) for e in beside}, set()
    for a, b in (edges[i] for i in rng.permutation(len(edges))):
        n, m = beside[a, b], beside[b, a]
        c, d = (sum(f[t]) - a - b for t in (n, m))
        if n in changed or m in changed or tuple(sorted((c, d))) in present:
            continue
        old = np.cross(v[b] - v[a], v[c] - v[a])
        new = np.cross(v[d] - v[a], v[c] - v[a]), np.cross(v[c] - v[b], v[d] - v[b])
        if min(old @ new[0], old @ new[1]) <= 0.2 * (old @ old):
            continue
        f[n], f[m] = [a, d, c], [b, c, d]
        changed |= {n, m}
        present.add(tuple(sorted((c, d))))
    order = torch.as_tensor(rng.permutation(len(v)))
    return Mesh(mesh.verts[order], torch.argsort(order)[torch.as_tensor(f)]), order


def _load(path: Path) -> Mesh:
    mesh = geoframe.load(path)
    assert isinstance(mesh, Mesh)
    return mesh


if __name__ == "__main__":
    main()
