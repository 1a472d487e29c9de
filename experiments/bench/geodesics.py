"""Geodesic distances beside potpourri3d, libigl and pygeodesic, on the real cat or a procedural surface.

The heat method and the exact distances are theirs underneath: the question is what our doors cost (components,
bounds, units) and gain (exact pairs stop at Dijkstra's distance). Errors are mean relative ones against the
exact distance.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.bench._harness import Row, compare, data_folder, installed, main, peak_memory, peer_label
from geoframe.surface import HeatGeodesics, Mesh, geodesic_distances, geodesic_pairs, load, subdivide
from geoframe.surface.shapes import torus


def surface(steps: int = 0) -> tuple[Mesh, str]:
    """The cat (7,207 vertices) when GEOFRAME_DATA names it, else a torus of as many; subdivided `steps` times."""
    folder = data_folder()
    path = folder / "animals/cat_lion/cat-00.off" if folder else None
    if path is not None and path.is_file():
        loaded = load(path)
        assert isinstance(loaded, Mesh)
        mesh, name = loaded.to(torch.float64), "cat"
    else:
        mesh, name = torus(n_around=120, n_tube=60).to(torch.float64), "torus"
    return subdivide(mesh, steps)[0], name


def _arrays(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    return mesh.verts.numpy(), mesh.faces.numpy()


def _sources(mesh: Mesh, n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(mesh.n_verts, n, replace=False)


def _error(found: Any, exact: np.ndarray) -> str:
    far = exact > 0
    return f"{100 * (np.abs(np.asarray(found) - exact)[far] / exact[far]).mean():.2f} %"


def heat(steps: int, n: int) -> Callable[[], list[Row]]:
    """Factor and solve for n sources; the peer is potpourri3d's solver as it comes."""

    def case() -> list[Row]:
        mesh, name = surface(steps)
        v, f = _arrays(mesh)
        s = _sources(mesh, n)
        exact = None
        if installed("pygeodesic"):
            exact = geodesic_distances(mesh, s[:4].tolist(), method="exact").numpy()

        def theirs() -> np.ndarray:
            import potpourri3d

            solver = potpourri3d.MeshHeatMethodDistanceSolver(v, f)
            return np.stack([solver.compute_distance(i) for i in s])

        def check(a: torch.Tensor, b: np.ndarray | None) -> str:
            if exact is None:
                return f"{name}, {len(v)} vertices"
            errors = "/".join(_error(x[:4], exact) for x in (a, b) if x is not None)
            return f"{name}, {len(v)} vertices, {n} sources, error {errors}"

        peer = theirs if installed("potpourri3d") else None
        return [
            compare(
                f"heat-{n}x{len(v) // 1000}k",
                lambda: HeatGeodesics(mesh).rows(s.tolist()),
                peer,
                peer_name=peer_label("potpourri3d"),
                check=check,
                repeats=3,
            )
        ]

    return case


def exact_rows() -> list[Row]:
    """Exact distances of 4 sources to all vertices, beside libigl's."""
    mesh, name = surface()
    v, f = _arrays(mesh)
    s = _sources(mesh, 4)
    label = peer_label("libigl")
    if not installed("pygeodesic"):
        return [Row("exact-4x7k", None, peer=label, note="pygeodesic (extra geometry) not installed")]

    def theirs() -> np.ndarray:
        import igl

        none = np.zeros(0, dtype=np.int64)
        return np.stack([igl.exact_geodesic(v, f, np.array([i]), none, np.arange(len(v)), none) for i in s])

    def check(a: torch.Tensor, b: np.ndarray | None) -> str:
        agree = "" if b is None else f", largest difference {np.abs(a.numpy() - b).max():.1g}"
        return f"{name}, {len(v)} vertices{agree}"

    def ours() -> torch.Tensor:
        return geodesic_distances(mesh, s.tolist(), method="exact")

    peer = theirs if installed("igl") else None
    return [compare("exact-4x7k", ours, peer, peer_name=label, check=check, warmup=0, repeats=3)]


def exact_pairs() -> list[Row]:
    """Exact distances of 300 close pairs, as a measure of error asks for them, beside plain pygeodesic."""
    mesh, name = surface()
    v, f = _arrays(mesh)
    label = peer_label("pygeodesic")
    a = _sources(mesh, 300)
    order = geodesic_distances(mesh, a.tolist(), method="dijkstra").argsort(dim=1)
    b = order[torch.arange(300), torch.arange(300) % 60].numpy()  # one of the 60 nearest
    if not installed("pygeodesic"):
        return [Row("exact-pairs-300", None, peer=label, note="pygeodesic (extra geometry) not installed")]
    few = slice(0, 20)

    def theirs() -> np.ndarray:
        import pygeodesic.geodesic as pygeodesic

        solver = pygeodesic.PyGeodesicAlgorithmExact(v, f)
        one = [solver.geodesicDistances(a[[i]], b[[i]])[0][0] for i in range(few.start, few.stop)]
        return np.array(one)

    def ours() -> torch.Tensor:
        return geodesic_pairs(mesh, a.tolist(), b.tolist(), method="exact")

    row = compare("exact-pairs-300", ours, theirs, peer_name=label, warmup=0, repeats=3)
    scale = len(a) / few.stop  # the peer is measured on 20 of the 300: it takes a minute on all
    peer_s = (row.peer_s or 0.0) * scale
    gap = np.abs(ours().numpy()[few] - theirs()).max()
    note = f"{name}, {len(v)} vertices, largest difference {gap:.1g}; peer's seconds: {scale:.0f} x those of 20 pairs"
    return [Row(row.case, row.ours_s, peer_s, peer_s / (row.ours_s or 1.0), label, note)]


def matrix() -> list[Row]:
    """The full heat matrix of the 7k surface in float32: time without the cache, and memory."""
    mesh, name = surface()
    before = os.environ.get("GEOFRAME_CACHE")
    os.environ["GEOFRAME_CACHE"] = "off"
    try:
        start = time.perf_counter()
        D, mib = peak_memory(lambda: geodesic_distances(mesh, dtype=torch.float32))
        seconds = time.perf_counter() - start
    finally:
        if before is None:
            del os.environ["GEOFRAME_CACHE"]
        else:
            os.environ["GEOFRAME_CACHE"] = before
    result = D.numel() * 4 / 2**20
    return [
        Row("heat-matrix-7k", seconds, note=f"{name}; result {result:.0f} MiB, peak {mib:.0f} MiB, no peer")
    ]


CASES = {
    "matrix": matrix,
    "heat-7k": heat(0, 50),
    "heat-28k": heat(1, 20),
    "exact-rows": exact_rows,
    "exact-pairs": exact_pairs,
}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
