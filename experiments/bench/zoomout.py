"""ZoomOut beside pyFM: real cat and lion, from 20 to 256 functions in steps of 4.

python -m experiments.bench.zoomout [--json FILE] [--case CASE ...]

Both start from the same functional map of 20 functions, made from the 13 landmarks, on the same eigenbases of the
surfaces at unit area. The note says for how many vertices of the lion both give the same vertex of the cat.
Ours makes many small parallel sections: on a busy machine compare with OMP_NUM_THREADS=1.

full-7k-5k      7,207 and 5,000 vertices, all used in every step
sampled-7k-5k   1,000 farthest points of each, all vertices in the last step
full-28k-20k    both subdivided once; the peer takes minutes
both-7k-5k      ours only: both directions coupled
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.bench._harness import Row, compare, data_folder, installed, main, peer_label
from geoframe import Eigenbasis, Mesh, eigenbasis, load, zoomout
from geoframe.maps import p2p_to_fmap
from geoframe.nearest.dense import nearest
from geoframe.surface import farthest_points
from geoframe.surface.subdivide import subdivide

K_START, K_FINAL, STEP = 20, 256, 4
PEER = peer_label("pyfmaps")


def surfaces(times: int) -> tuple[Mesh, Mesh] | None:
    """Cat and lion at unit area, subdivided `times` times; None without the data."""
    folder = data_folder()
    if folder is None:
        return None
    meshes = [load(folder / "animals/cat_lion" / f"{name}-00.off") for name in ("cat", "lion")]
    for _ in range(times):
        meshes = [subdivide(m)[0] for m in meshes]
    cat, lion = (m.with_verts(m.verts / m.area.sqrt()).to(torch.float64) for m in meshes)
    return cat, lion


def start(bases: tuple[Eigenbasis, Eigenbasis]) -> torch.Tensor:
    """C_12 (20, 20) from the landmarks: vertices are matched by the heat that reaches them from each landmark."""
    folder = data_folder()
    assert folder is not None
    landmarks = np.loadtxt(folder / "animals/cat_lion/landmarks.txt", dtype=np.int64)
    features = []
    for basis, vertices in zip(bases, landmarks.T, strict=True):
        decay = torch.exp(-torch.logspace(-2.3, -1, 8, dtype=torch.float64)[:, None] * basis.vals)
        heat = torch.einsum("vk,tk,lk->vlt", basis.vecs, decay, basis.vecs[torch.as_tensor(vertices)])
        heat = heat / torch.einsum("v,vlt->lt", basis.mass, heat**2).sqrt()
        features.append(heat.flatten(1))
    p2p_21 = nearest(features[1], features[0])[0]
    return p2p_to_fmap(p2p_21, bases[0].truncate(K_START), bases[1].truncate(K_START))


def case(
    name: str, *, times: int = 0, n_samples: int | None = None, both: bool = False, repeats: int = 3
) -> Callable[[], list[Row]]:
    """A function that runs one comparison."""

    def run() -> list[Row]:
        pair = surfaces(times)
        if pair is None:
            return [Row(name, None, peer=PEER, note="GEOFRAME_DATA is not set")]
        bases = (eigenbasis(pair[0], K_FINAL), eigenbasis(pair[1], K_FINAL))
        init = start(bases)
        samples = None if n_samples is None else tuple(farthest_points(m, n_samples) for m in pair)

        def ours() -> torch.Tensor:
            options: dict[str, Any] = {"k_final": K_FINAL, "step": STEP, "bidirectional": both}
            return zoomout(init, *bases, samples=samples, **options).p2p_21

        def peer() -> np.ndarray:
            from pyFM.refine.zoomout import zoomout_refine

            subsample = None if samples is None else tuple(s.numpy() for s in samples)
            mass = None if subsample else bases[1].mass.numpy()
            U1, U2 = (b.vecs.numpy() for b in bases)
            nit = (K_FINAL - K_START) // STEP
            options: dict[str, Any] = {"A2": mass, "subsample": subsample, "return_p2p": True}
            return zoomout_refine(init.numpy(), U1, U2, nit=nit, step=STEP, **options)[1]

        def check(p2p: torch.Tensor, theirs: np.ndarray | None) -> str:
            if theirs is None:
                return ""
            return f"same vertex for {(p2p.numpy() == theirs).sum()} of {len(theirs)}"

        runs = peer if installed("pyFM") and not both else None
        warmup = 0 if times else 1
        return [compare(name, ours, runs, peer_name=PEER, check=check, warmup=warmup, repeats=repeats)]

    return run


CASES = {
    "full-7k-5k": case("full-7k-5k"),
    "sampled-7k-5k": case("sampled-7k-5k", n_samples=1000, repeats=5),
    "full-28k-20k": case("full-28k-20k", times=1, repeats=1),
    "both-7k-5k": case("both-7k-5k", both=True),
}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
