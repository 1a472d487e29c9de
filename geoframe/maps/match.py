"""`match`: from two surfaces to a map between them, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_int
from geoframe.canonical.surface import Surface
from geoframe.maps.convert import p2p_to_fmap
from geoframe.maps.initial import check_landmark_pairs
from geoframe.maps.landmark_coordinates import landmark_coordinates
from geoframe.maps.parts import Part, carried_back, main_part
from geoframe.maps.quality import (
    GeodesicDistortion,
    coverage,
    cycle_error,
    dirichlet_energy,
    flipped_triangles,
    orthogonality,
)
from geoframe.maps.shells import shell_refine
from geoframe.maps.starts import (
    Pair,
    Start,
    spectral_energy,
    starts_from_landmarks,
    starts_from_named_landmarks,
    starts_from_shape,
)
from geoframe.maps.verdict import doubts
from geoframe.maps.zoomout import zoomout
from geoframe.nearest import nearest
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import farthest_points

Progress = Callable[[str, float], None]

MOST = 256  # eigenfunctions by default
COARSE = 4  # the candidates are compared with k / COARSE functions
FLIPPED = 0.25  # share of flipped triangles from which a map is taken for a mirror image, or partly one
DOUBTED = 1.1  # factor of the distortion of the oriented start: landmarks that tell are to be believed
ROUGHER = 1.5  # factor by which the Dirichlet energy may grow with all k functions; else they are dropped
HELD = 3.0  # weight of all landmarks together where they are rows of the fit, the surface having 1
PROBES = 100  # vertices of each surface between which distances are compared
RETURNS = 500  # vertices whose way to the other surface and back is measured
# The last bending. Where all functions correspond, more intrinsic coordinates and finer displacements: chosen on half
# of the FAUST and TOSCA meshes. Of a bent map, the last steps on all vertices: chosen on cat to lion,
# among four ways, so that its figures there flatter.
FINE: dict[str, Any] = {"sizes": (60, 100, 150, 200), "intrinsic": 128, "normals": (0.5, 0.2), "polish": 1}
LAST: dict[str, Any] = {"sizes": (80, 100, 100), "normals": (0.4, 0.2), "polish": 2}


@dataclass(frozen=True, eq=False)
class Match:
    """A map between two surfaces, both ways, and how good it looks without knowing the truth.

    Attributes:
        p2p_21: (V2,) int64, for every vertex of surface 2 a vertex of surface 1.
        p2p_12: (V1,) int64, the other way.
        C_12: (K, K) functional map from 1 to 2 that belongs to p2p_21.
        C_21: (K, K) the other way.
        basis1: the eigenbasis of surface 1.
        basis2: the eigenbasis of surface 2.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2), each once, or None.
        energies: `dirichlet` (see `dirichlet_energy`), `coverage` of surface 1 in [0, 1], `cycle_error` (mean
            distance 2 -> 1 -> 2 over sqrt(area), along edges, of the vertices that come back to their component),
            `flipped_triangles` in [0, 1], `orthogonality` of C_12 at equal areas, `distortion` (see
            `GeodesicDistortion`).
        candidates: the maps that were compared, best first, each with its `start`, `energy` and terms.
        ambiguity: without landmarks, energy of the best candidate over that of the best really different one,
            in [0, 1]: near 1 the choice (say, of left and right) is a toss-up. None with landmarks.
        warnings: what makes the map doubtful or was done to the surfaces first, in sentences; empty where nothing is.
        settings: what was computed with, by name; `refinement` is "all functions", "landmark coordinates", "bent",
            or "none" (see `match`).
    """

    p2p_21: Tensor
    p2p_12: Tensor
    C_12: Tensor
    C_21: Tensor
    basis1: Eigenbasis
    basis2: Eigenbasis
    landmarks: Tensor | None
    energies: dict[str, float]
    candidates: list[dict[str, Any]]
    ambiguity: float | None
    warnings: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def verdict(self) -> str:
        """ "good", or "doubtful" where a measure is outside what right maps were measured at (`doubts`)."""
        return "doubtful" if doubts(self.energies, self.ambiguity) else "good"


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A pair of functional maps and how it compares with others."""

    start: str
    C_12: Tensor
    C_21: Tensor
    energy: float
    terms: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Refined:
    """A pair of vertex maps and the way it was refined."""

    how: str
    p2p_21: Tensor
    p2p_12: Tensor


def match(
    mesh1: Mesh,
    mesh2: Mesh,
    landmarks: Tensor | None = None,
    *,
    k: int | None = None,
    orientation: float = 1.0,
    progress: Progress | None = None,
) -> Match:
    """Match two surfaces: every vertex of each gets a vertex of the other.

    1. Starts. With landmarks: a 12 x 12 functional map fitted to them, one of 30 x 30 fitted to descriptors
       (heat seen from the landmarks, wave kernel), and one of 20 x 20 fitted to these with an orientation term,
       which tells left from right where the landmarks do not. Without: the last one, and all signs of the first
       6 eigenfunctions that are not constant; and on humans and animals, landmarks that a network names on both
       (`geoframe.landmarking`), as they are and with left and right exchanged. Surfaces should then be roughly
       isometric.
    2. Each is refined both ways together by `zoomout` to k / 4 functions, on 1,500 samples of each surface. The
       one that changes geodesic distances least is kept (`GeodesicDistortion`). Without landmarks, `orientation`
       times the share of flipped triangles is added: a left-right flip is as good an isometry as the true
       map, but turns the surface inside out.
    3. The kept one goes on in up to three ways: to all k functions by `zoomout`, landmarks being rows of the
       least squares with three times the weight of the surface; if the map becomes much rougher
       (`dirichlet_energy`), the high functions do not correspond, as between species, and this way is dropped.
       By bending each surface onto the other (`shell_refine`). And with landmarks, from `landmark_coordinates`
       of every vertex alone, bent with them: surfaces of very different proportions have no eigenfunctions in
       common, but they do correspond between the same landmarks, and a back faces up on all of them. Of the two
       bent maps the one that changes distances less goes on; it and the first are bent once more, finely.
    4. Returned is the map with the least Dirichlet energy over coverage, times the square of its distortion;
       maps that turn more than a quarter of the surface inside out only if all do.

    No landmark is enforced: they are clicked by hand. What is matched is one connected surface without doubled
    vertices; where a file holds another thing, the map is carried back to its own vertices and `warnings` tell
    (see `geoframe.maps.parts`).

    Args:
        mesh1: surface 1, V1 vertices. A `geoframe.Surface` keeps what is computed of it here, for the next match.
        mesh2: surface 2, V2 vertices, any connectivity, scale and pose.
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2); None to go without.
        k: number of eigenfunctions; by default 256, or a third of the vertices with faces where these are fewer.
        orientation: without landmarks, weight of the share of flipped triangles in the ranking; 0 turns it off.
        progress: called with the name of a step and the share of all that is done, in [0, 1].

    Raises:
        TypeError: not meshes, or landmarks that are not integers.
        ValueError: batches, fewer than 9 vertices, k too large, landmarks out of range or empty, NaN.
    """
    tell = progress or (lambda step, done: None)
    part1, part2 = (main_part(s, f"surface {i}") for i, s in enumerate(_surfaces(mesh1, mesh2), 1))
    one, two = part1.surface, part2.surface
    own = [default_size(m) if k is None else check_int(k, "k", low=3) for m in (one, two)]
    if landmarks is not None:
        landmarks = as_tensor(landmarks, "landmarks", like=one.verts)
    pairs = None if landmarks is None else _landmark_pairs(landmarks, part1, part2)
    tell("eigenbasis of surface 1", 0.0)
    one.basis(own[0])
    tell("eigenbasis of surface 2", 0.15)
    two.basis(own[1])
    tell("starts", 0.3)
    pair = Pair.of(one, two, min(own))
    distortion = GeodesicDistortion(one, two, n=PROBES)
    if pairs is not None:
        starts = starts_from_landmarks(pair, pairs)
    else:
        starts = [*starts_from_named_landmarks(pair), *starts_from_shape(pair)]
    tell("candidates", 0.4)
    candidates = _ranked(pair, starts, distortion, orientation if pairs is None else 0.0)
    tell("refinement", 0.5)
    maps = _refined(pair, candidates[0], pairs, distortion)
    tell("choice", 0.85)
    best = _chosen(pair, maps, distortion)
    tell("measures", 0.9)
    settings: dict[str, Any] = {
        "k": min(own),
        "samples": [len(pair.samples1), len(pair.samples2)],
        "refinement": best.how,
    }
    if pairs is None:
        settings["orientation"] = orientation
    energies = _energies(pair, best, distortion)
    ambiguity = _ambiguity(pair, candidates) if pairs is None else None
    found = Match(
        p2p_21=carried_back(part1, part2, best.p2p_21),
        p2p_12=carried_back(part2, part1, best.p2p_12),
        C_12=p2p_to_fmap(best.p2p_21, pair.basis1, pair.basis2),
        C_21=p2p_to_fmap(best.p2p_12, pair.basis2, pair.basis1),
        basis1=part1.basis(pair.basis1),
        basis2=part2.basis(pair.basis2),
        landmarks=None if landmarks is None else _each_once(landmarks),
        energies=energies,
        candidates=[
            {"rank": i, "start": c.start, "energy": c.energy, **c.terms} for i, c in enumerate(candidates, 1)
        ],
        ambiguity=ambiguity,
        warnings=(*part1.notes, *part2.notes, *doubts(energies, ambiguity)),
        settings=settings,
    )
    tell("done", 1.0)
    return found


def _each_once(landmarks: Tensor) -> Tensor:
    return torch.tensor(list(dict.fromkeys(map(tuple, landmarks.tolist()))), device=landmarks.device)


def _landmark_pairs(landmarks: Tensor, part1: Part, part2: Part) -> Tensor:
    """(L, 2) the landmarks as vertices of the parts, each once; those outside the parts are left out."""
    landmarks = check_landmark_pairs(landmarks, part1.whole.n_verts, part2.whole.n_verts)
    numbers = [part.number[landmarks[:, i].long()] for i, part in enumerate((part1, part2))]
    pairs = torch.stack(numbers, 1)
    inside = (pairs >= 0).all(1)
    if not inside.any():
        raise ValueError(
            "landmarks: expected some on the largest component of both surfaces, found all of them elsewhere; "
            "match the components one by one"
        )
    return _each_once(pairs[inside])


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
    one = part.surface
    one.basis(default_size(one) if k is None else check_int(k, "k", low=3))
    one.distances(farthest_points(one, min(PROBES, one.n_verts)))
    if landmarks is not None and len(landmarks):
        inside = part.number[landmarks]
        one.distances(inside[inside >= 0])


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


def _surfaces(mesh1: Mesh, mesh2: Mesh) -> tuple[Surface, Surface]:
    for mesh, name in ((mesh1, "mesh1"), (mesh2, "mesh2")):
        if not isinstance(mesh, Mesh):
            raise TypeError(f"{name}: expected a Mesh, found {type(mesh).__name__}; load faces too")
        if mesh.verts.ndim != 2:
            raise ValueError(f"{name}: expected one pose, verts (V, 3), found {tuple(mesh.verts.shape)}")
    if mesh1.device != mesh2.device or mesh1.dtype != mesh2.dtype:
        raise ValueError(
            f"mesh2: expected {mesh1.dtype} on {mesh1.device}, found {mesh2.dtype} on {mesh2.device}; use .to()"
        )
    return Surface.of(mesh1), Surface.of(mesh2)


def _ranked(
    pair: Pair, starts: list[Start], distortion: GeodesicDistortion, orientation: float
) -> list[_Candidate]:
    """All starts refined to k / 4 functions on the samples, the best first."""
    bases = pair.sampled()
    samples = torch.arange(bases[0].n_verts), torch.arange(bases[1].n_verts)
    found = []
    for start in starts:
        first = len(start.C_12)
        last = max(first, pair.basis1.k // COARSE)
        sizes = sorted({*range(first, last, 8), last})
        z = zoomout(start.C_12, *bases, sizes=sizes, samples=samples, bidirectional=True, init_21=start.C_21)
        assert z.C_21 is not None
        places = pair.places_21(z.C_12, distortion.probes2), pair.places_12(z.C_21, distortion.probes1)
        terms = {
            "distortion": distortion.of_probes(*places),
            "spectral": spectral_energy(z, pair.basis1, pair.basis2),
        }
        if orientation:
            every = torch.arange(pair.two.n_verts, device=pair.two.device)
            terms["flipped_triangles"] = flipped_triangles(
                pair.one, pair.turned2, pair.places_21(z.C_12, every)
            )
        energy = terms["distortion"] + orientation * terms.get("flipped_triangles", 0.0)
        found.append(_Candidate(start.name, z.C_12, z.C_21, energy, terms))
    return sorted(found, key=lambda c: c.energy * (DOUBTED if c.start == "oriented" else 1.0))


def _ambiguity(pair: Pair, candidates: list[_Candidate]) -> float:
    """Energy of the best candidate over that of the best really different one; 0 where there is none."""
    best = candidates[0]
    other = [c.energy for c in candidates[1:] if pair.differ(c.C_12, best.C_12)]
    return best.energy / max(other[0], 1e-300) if other else 0.0


def _refined(
    pair: Pair, best: _Candidate, landmarks: Tensor | None, distortion: GeodesicDistortion
) -> list[_Refined]:
    """The candidate's map bent, or that of landmark coordinates, and the one of all functions if it stays smooth."""
    one, two = pair.basis1, pair.basis2
    every1, every2 = (torch.arange(s.n_verts, device=s.device) for s in (pair.one, pair.two))
    start = pair.places_21(best.C_12, every2), pair.places_12(best.C_21, every1)
    finer = _to_all_functions(pair, best, landmarks)
    limit = ROUGHER * dirichlet_energy(pair.one, pair.two, start[0])
    bent = [_Refined("bent", *shell_refine(pair.one, pair.two, *start, one, two, polish=0))]
    if landmarks is not None:
        f1, f2 = (landmark_coordinates(m, landmarks[:, i]) for i, m in enumerate((pair.one, pair.two)))
        start = nearest(f2, f1)[0], nearest(f1, f2)[0]
        found = shell_refine(pair.one, pair.two, *start, one, two, functions=(f1, f2), polish=0)
        bent.append(_Refined("landmark coordinates", *found))
    first = min(bent, key=lambda m: distortion(m.p2p_21, m.p2p_12))
    last = shell_refine(pair.one, pair.two, first.p2p_21, first.p2p_12, one, two, **LAST)
    maps = [_Refined(first.how, *last)]
    if dirichlet_energy(pair.one, pair.two, finer[0]) <= limit:
        maps.insert(0, _Refined("all functions", *shell_refine(pair.one, pair.two, *finer, one, two, **FINE)))
    return maps


def _to_all_functions(pair: Pair, best: _Candidate, landmarks: Tensor | None) -> tuple[Tensor, Tensor]:
    """p2p_21 and p2p_12 of all k functions, refined one way at a time, landmarks held."""
    first, k = len(best.C_12), pair.basis1.k
    sizes = sorted({first, *range(first, k // 2, 8), *range(max(first, k // 2), k, 32), k})
    held: list[dict[str, Any]] = [{}, {}]
    if landmarks is not None:
        held = [{"landmarks": x, "landmark_weight": HELD} for x in (landmarks, landmarks.flip(1))]
    one, two, s1, s2 = pair.basis1, pair.basis2, pair.samples1, pair.samples2
    return (
        zoomout(best.C_12, one, two, sizes=sizes, samples=(s1, s2), **held[0]).p2p_21,
        zoomout(best.C_21, two, one, sizes=sizes, samples=(s2, s1), **held[1]).p2p_21,
    )


def _chosen(pair: Pair, maps: list[_Refined], distortion: GeodesicDistortion) -> _Refined:
    """The smoothest that changes distances least, of those that keep the outside outside, if any does."""

    def key(m: _Refined) -> tuple[bool, float]:
        # over coverage, as a map is not smooth for sending much to little
        rough = dirichlet_energy(pair.one, pair.two, m.p2p_21) / coverage(pair.one, m.p2p_21)
        flipped = flipped_triangles(pair.one, pair.turned2, m.p2p_21) > FLIPPED
        return flipped, rough * distortion(m.p2p_21, m.p2p_12) ** 2

    return maps[0] if len(maps) == 1 else min(maps, key=key)


def _energies(pair: Pair, best: _Refined, distortion: GeodesicDistortion) -> dict[str, float]:
    one, two, p2p_21, p2p_12 = pair.one, pair.two, best.p2p_21, best.p2p_12
    some = farthest_points(two, min(RETURNS, two.n_verts))
    back = cycle_error(two, p2p_21, p2p_12, vertices=some)
    equal_areas = (pair.basis1.mass.sum() / pair.basis2.mass.sum()).sqrt()
    return {
        "dirichlet": dirichlet_energy(one, two, p2p_21),
        "coverage": coverage(one, p2p_21),
        "cycle_error": float(back[back.isfinite()].mean()),
        "flipped_triangles": flipped_triangles(one, two, p2p_21),
        "orthogonality": orthogonality(p2p_to_fmap(p2p_21, pair.basis1, pair.basis2) * equal_areas),
        "distortion": distortion(p2p_21, p2p_12),
    }
