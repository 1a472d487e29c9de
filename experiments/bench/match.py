"""`match` beside pyFM's whole way from two meshes and landmarks to a map by ZoomOut to 256.

GEOFRAME_CACHE=off GEOFRAME_DATA=DIR python -m experiments.bench.match [--json FILE] [--case CASE ...]

Both get the same meshes and landmarks, nothing that was computed before, and compute their eigenbases themselves. pyFM
has wave kernel and landmark wave kernel descriptors, 30 functions, ZoomOut in steps of 2. The note gives the mean error
of both, at the 55 markers, over the square root of the cat's area.

cat-lion-13     7,207 and 5,000 vertices, the first 13 landmarks
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch

from experiments.bench._harness import Row, compare, data_folder, installed, main, peer_label
from experiments.real_animals.run import pyfm
from geoframe import Mesh, load_mesh, match
from geoframe.maps import geodesic_error

PEER = peer_label("pyfmaps")


def case(name: str, *, n_landmarks: int) -> Callable[[], list[Row]]:
    """A function that runs one comparison."""

    def run() -> list[Row]:
        folder = data_folder()
        if folder is None:
            return [Row(name, None, peer=PEER, note="GEOFRAME_DATA is not set")]
        os.environ["GEOFRAME_CACHE"] = "off"  # an eigenbasis from the disk would be no whole way
        animals = folder / "animals/cat_lion"
        cat, lion = (load_mesh(animals / f"{n}-00.off") for n in ("cat", "lion"))
        landmarks, markers = (
            torch.as_tensor(np.loadtxt(animals / f"{n}.txt", dtype=np.int64))
            for n in ("landmarks", "markers_55")
        )
        landmarks = landmarks[:n_landmarks]

        def ours() -> torch.Tensor:
            return match(_fresh(cat), _fresh(lion), landmarks).p2p_21

        def peer() -> torch.Tensor:
            found = pyfm(cat, lion, landmarks)
            assert found is not None
            return found

        def check(p2p: torch.Tensor, theirs: torch.Tensor | None) -> str:
            errors = [float(geodesic_error(cat, p, markers).mean()) for p in (p2p, theirs) if p is not None]
            return "error " + " and ".join(f"{e:.4f}" for e in errors)

        runs = peer if installed("pyFM") else None
        return [compare(name, ours, runs, peer_name=PEER, check=check, warmup=0, repeats=1)]

    return run


def _fresh(mesh: Mesh) -> Mesh:
    """The mesh with nothing computed of it."""
    return Mesh(mesh.verts, mesh.faces)


CASES = {"cat-lion-13": case("cat-lion-13", n_landmarks=13)}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
