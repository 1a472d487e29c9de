"""Eigenbases beside pyFM's, in one process: the same mesh, the same Laplacian, k = 256.

`k256-28k` is the cat (real data) subdivided once, `k256-115k` twice; without GEOFRAME_DATA a bumpy sphere of the
same size stands in. `approximate-115k` and `approximate-460k` compare the approximate basis with our exact one
(the peer here is ourselves) and state its errors. Ours is measured from the mesh on, without the disk cache, and
includes the certificate that no eigenvalue is missing. The default run is `k256-28k` alone; ask for the others
with --case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

from experiments.bench._harness import (
    Row,
    compare,
    data_folder,
    installed,
    main,
    measure,
    peak_memory,
    peer_label,
)
from geoframe.spectral import Eigenbasis, eigenbasis
from geoframe.surface import Mesh, load, subdivide
from geoframe.surface.shapes import icosphere

K = 256


def surface(levels: int) -> tuple[Mesh, str]:
    """The cat subdivided `levels` times, or a bumpy sphere of a similar size; and its name."""
    folder = data_folder()
    if folder is not None:
        mesh = load(folder / "animals" / "cat_lion" / "cat-00.off").to(torch.float64)
        return subdivide(mesh, levels)[0], "cat"
    mesh = icosphere(5)  # 10,242 vertices, with bumps that break the symmetry of the sphere
    x, y, z = mesh.verts.T
    radius = 1 + 0.2 * torch.sin(3 * x + 1) * torch.cos(4 * y) + 0.1 * torch.sin(5 * z + x)
    mesh = mesh.with_verts(mesh.verts * radius[:, None])
    return subdivide(mesh, levels)[0], "bumpy sphere (no GEOFRAME_DATA)"


def exact(levels: int, *, repeats: int) -> Callable[[], list[Row]]:
    """A case: ours beside pyFM's on the surface subdivided `levels` times."""

    def run() -> list[Row]:
        mesh, name = surface(levels)
        peer = None
        if installed("pyFM"):
            from pyFM.mesh import TriMesh

            def peer() -> np.ndarray:
                return TriMesh(mesh.verts.numpy(), mesh.faces.numpy()).process(k=K).eigenvalues

        def check(ours: Eigenbasis, theirs: np.ndarray | None) -> str:
            note = f"{name}, V={mesh.n_verts}"
            if theirs is None:
                return note
            difference = np.abs(ours.vals.numpy()[1:] / np.sort(theirs)[1:] - 1).max()
            return f"{note}, eigenvalues differ by {difference:.1e} at most"

        row = compare(
            f"k256-{round(mesh.n_verts / 1000 - 0.5)}k",
            lambda: eigenbasis(mesh, K, cache=False),
            peer,
            peer_name=peer_label("pyfmaps"),
            check=check,
            warmup=0,
            repeats=repeats,
        )
        return [row]

    return run


def approximate(levels: int) -> Callable[[], list[Row]]:
    """A case: the approximate basis beside our exact one on the surface subdivided `levels` times."""

    def run() -> list[Row]:
        mesh, name = surface(levels)
        ours = measure(
            lambda: peak_memory(lambda: eigenbasis(mesh, K, method="approximate", cache=False)),
            warmup=0,
            repeats=1,
        )
        peer = measure(lambda: peak_memory(lambda: eigenbasis(mesh, K, cache=False)), warmup=0, repeats=1)
        (basis, memory), (reference, memory_exact) = ours.value, peer.value
        error = (basis.vals / reference.vals - 1)[1:]
        weighted = reference.mass[:, None] * basis.vecs
        outside = (1 - (reference.vecs.T @ weighted).square().sum(0)).clamp(min=0).sqrt()
        note = (
            f"{name}, V={mesh.n_verts}, eigenvalues too large by {error.mean():.2%} on average, {error.max():.2%} at "
            f"most; part of a vector outside the exact space: {outside[: K * 4 // 5].max():.3f} at most in the first "
            f"four fifths; peak memory {memory:.0f} against {memory_exact:.0f} MiB"
        )
        seconds, exact_s = ours.median, peer.median
        label = f"approximate-{round(mesh.n_verts / 1000 - 0.5)}k"
        return [Row(label, seconds, exact_s, exact_s / seconds, "geoframe exact", note)]

    return run


CASES = {
    "k256-28k": exact(1, repeats=3),
    "k256-115k": exact(2, repeats=1),
    "approximate-115k": approximate(2),
    "approximate-460k": approximate(3),
}

if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(__doc__, CASES, arguments if "--case" in arguments else [*arguments, "--case", "k256-28k"])
