"""What a match needs of each surface by itself: eigenfunctions, distances, its shape and its named landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe._threads import together
from geoframe.canonical.surface import Surface
from geoframe.landmarking.inputs import local_shape
from geoframe.landmarking.predict import NOISE_SIZE, without_noise
from geoframe.maps.evidence import named_landmarks
from geoframe.maps.parts import Part, main_part
from geoframe.maps.proxy import Proxy, proxy
from geoframe.maps.starts import PER_FUNCTION, SAMPLES
from geoframe.nearest import lowest_score
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import spread_vertices

MOST = 256  # eigenfunctions by default
PROBES = 100  # vertices of each surface between which distances are compared


def ready(
    parts: Sequence[Part], k: int | None, landmarks: Tensor | None
) -> tuple[list[Proxy], int, list[tuple[str, ...]]]:
    """Proxies of the parts with all computed that needs one surface alone, smoothed where there is noise.

    Args:
        parts: of surface 1 and of surface 2.
        k: number of eigenfunctions, None for the default.
        landmarks: (L, 2) rows (vertex of part 1, vertex of part 2), or None.

    Returns:
        The proxies; how many eigenfunctions both have; and notes on each.
    """
    alone = parts[0].surface is parts[1].surface  # what is kept for one is there for the other
    which = (0,) if alone else (0, 1)
    given = [None if landmarks is None else landmarks[:, i] for i in (0, 1)]
    if alone and landmarks is not None:
        given[0] = landmarks.ravel()
    proxies = together(*(partial(_sampled, parts[i].surface, k) for i in which))
    # the largest first, so that of two threads neither waits long
    longest = sorted(which, key=lambda i: -proxies[i].surface.n_verts)
    shaped = [partial(_shaped, proxies[i], k, f"surface {i + 1}") for i in longest]
    measured = [partial(_measured, proxies[i], given[i]) for i in longest]
    all_done: list[Any] = together(*shaped, _load_loops, *measured)
    done = dict(zip(longest, all_done[: len(longest)], strict=True))
    out = []
    for i in (0, 1):
        mine = 0 if alone else i
        of, notes = done[mine]
        if of.surface is not proxies[mine].surface:  # smoothed
            _measured(of, given[i])
        out.append((of, _size(of.surface, k), notes))
    found, sizes, told = zip(*out, strict=True)
    return list(found), min(sizes), list(told)


def prepare(surface: Surface, *, k: int | None = None, landmarks: Tensor | None = None) -> None:
    """Compute what a `match` needs of a surface by itself, so that the surface keeps it for all its matches.

    Args:
        surface: any surface; the part of it that is matched is what is prepared.
        k: number of eigenfunctions, as in `match`.
        landmarks: (L,) vertices that will be landmarks, or None.

    Raises:
        ValueError: as `match`.
    """
    part = main_part(surface)
    of = _sampled(part.surface, k)
    of.surface.basis(_both(of.surface, k))
    inside = None if landmarks is None else part.number[landmarks]
    _measured(of, None if inside is None else inside[inside >= 0])


def default_size(mesh: Mesh) -> int:
    """How many eigenfunctions `match` takes of a mesh, its partner allowing.

    Raises:
        ValueError: the mesh is too small to be matched.
    """
    n = len(torch.unique(mesh.faces))
    if n < 9:
        raise ValueError(
            f"mesh: expected at least 9 vertices with faces to match, found {n}; subdivide it first"
        )
    return min(MOST, n // 3)


def _size(surface: Surface, k: int | None) -> int:
    """How many eigenfunctions a surface has to have."""
    return default_size(surface) if k is None else check_int(k, "k", low=3)


def _both(surface: Surface, k: int | None) -> int:
    """How many serve the match and the search for noise: the larger first, the smaller is a truncation."""
    return max(_size(surface, k), min(NOISE_SIZE, int((surface.laplacian[1] > 0).sum())))


def _sampled(surface: Surface, k: int | None) -> Proxy:
    """The proxy of a surface, with its Laplacian and samples."""
    of = proxy(surface)
    _both(of.surface, k)
    spread_vertices(of.surface, max(SAMPLES, PER_FUNCTION * _size(of.surface, k)))
    return of


def _shaped(of: Proxy, k: int | None, name: str) -> tuple[Proxy, tuple[str, ...]]:
    """The proxy with its eigenfunctions, its shape and its named landmarks; where noise crumples it with smoothed
    positions, and a note."""
    of.surface.basis(_both(of.surface, k))
    smooth = without_noise(of.surface, NOISE_SIZE)
    notes: tuple[str, ...] = ()
    if smooth is not of.surface:
        smooth.basis(_both(smooth, k))
        notes = (f"{name} is crumpled by noise: it was matched smoothed",)
        of = replace(of, surface=smooth, whole=smooth if of.is_whole else of.whole)
    local_shape(of.surface)
    named_landmarks(of.surface)
    return of, notes


def _load_loops() -> None:
    """Load the compiled search for nearest rows, which takes half a second, while another thread computes."""
    lowest_score(torch.zeros(1, 1), torch.zeros(1, 1))


def _measured(of: Proxy, landmarks: Tensor | None) -> None:
    """The proxy with distances from its probes and from landmarks (L,), vertices of what it stands for."""
    of.surface.distances(spread_vertices(of.surface, PROBES))
    if landmarks is not None and len(landmarks):
        of.surface.distances(of.cell[landmarks])
