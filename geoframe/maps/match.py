"""`match`: from two surfaces to a map between them, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from geoframe._check import as_tensor
from geoframe.canonical.surface import Surface
from geoframe.maps.candidates import ranked
from geoframe.maps.carry import carried, last_rows
from geoframe.maps.clouds import THIN, as_surface, is_ragged
from geoframe.maps.convert import p2p_to_fmap
from geoframe.maps.evidence import Evidence
from geoframe.maps.initial import check_landmark_pairs
from geoframe.maps.parts import Part, carried_back, main_part
from geoframe.maps.precise import BarycentricMap, at_corners, lies_at_corners, points_near
from geoframe.maps.proxy import Proxy
from geoframe.maps.ready import ready
from geoframe.maps.refine import FINE, Refined
from geoframe.maps.search import TRIED, Found, begun, by_landmarks, judged, surest
from geoframe.maps.starts import Pair, gaps
from geoframe.maps.verdict import astray, doubts
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh, PointCloud

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Match:
    """A map between two surfaces, both ways, and how good it looks without knowing the truth.

    Attributes:
        p2p_21: (V2,) int64, for every vertex of surface 2 a vertex of surface 1.
        p2p_12: (V1,) int64, the other way.
        precise_21: for every vertex of surface 2 a point in a triangle of surface 1; None if it was not asked for.
        C_12: (K, K) functional map from 1 to 2 that belongs to p2p_21.
        C_21: (K, K) the other way.
        basis1: the eigenbasis of surface 1.
        basis2: the eigenbasis of surface 2.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2), each once, or None.
        energies: `dirichlet` (see `dirichlet_energy`), `coverage` of surface 1 in [0, 1], `cycle_error` (mean
            distance 2 -> 1 -> 2 over sqrt(area), along edges, of the vertices that come back to their component),
            `flipped_triangles` in [0, 1], `orthogonality` of C_12 at equal areas, and those of
            `geoframe.maps.evidence.Evidence.measures`: `distortion`, `distortion_spread`, `shape_correlation`,
            `handedness_correlation` and, on humans and animals, `named_landmark_error`.
        confidence: the chance in [0, 1] that the mean geodesic error is below 0.1 sqrt(area); see
            `geoframe.maps.verdict.confidence`.
        candidates: the maps that were compared, best first, each with its `start`, `energy` and terms.
        warnings: what makes the map doubtful or was done to the surfaces first, in sentences; empty where nothing is.
        settings: what was computed with, by name; `refinement` is "all functions", "landmark coordinates", "bent" or
            "distances" (see `match`).
    """

    p2p_21: Tensor
    p2p_12: Tensor
    C_12: Tensor
    C_21: Tensor
    basis1: Eigenbasis
    basis2: Eigenbasis
    landmarks: Tensor | None
    energies: dict[str, float]
    confidence: float
    candidates: list[dict[str, Any]]
    warnings: tuple[str, ...]
    settings: dict[str, Any]
    precise_21: BarycentricMap | None = None

    @property
    def verdict(self) -> str:
        """ "good", or "doubtful" where there are reasons for doubt (`geoframe.maps.verdict.doubts`)."""
        return "doubtful" if doubts(self.energies, self.confidence) else "good"


def match(
    mesh1: Mesh | PointCloud,
    mesh2: Mesh | PointCloud,
    landmarks: Tensor | None = None,
    *,
    k: int | None = None,
    orientation: float = 1.0,
    precise: bool = False,
    progress: Progress | None = None,
) -> Match:
    """Match two surfaces: every vertex of each gets a vertex of the other.

    1. Starts. With landmarks: a 12 x 12 functional map fitted to them, and one of 30 x 30 fitted to descriptors (heat
       seen from the landmarks, wave kernel); where these change distances much or turn left to right, or landmarks
       lie in a plane, or one is taken elsewhere, also those of landmarks that a network names, and one of 20 x 20
       fitted to the descriptors with an orientation term (of twelve landmarks and more only where they lie in a
       plane). Without: the orientation term, and all signs of the first 6 eigenfunctions that are not constant; and on
       humans and animals, landmarks that a network names on both (`geoframe.landmarking`), as they are and with left
       and right exchanged. Surfaces should then be roughly isometric.
    2. Each is refined both ways together by `zoomout` to k / 4 functions, on 1,500 samples of each surface. The
       one that changes geodesic distances least is kept (`GeodesicDistortion`). Without landmarks, `orientation`
       times what speaks against it is added: flipped triangles, a low handedness correlation, named landmarks that it
       takes elsewhere. For a left-right flip is as good an isometry as the true map, and a person turned by half a
       circle nearly so.
       Where a surface is cut open, maps are also refined from it to the other alone, and what has no counterpart
       does not count.
    3. The kept one goes on in up to three ways: to all k functions by `zoomout`, landmarks being rows of the
       least squares with three times the weight of the surface; if the map becomes much rougher
       (`dirichlet_energy`), the high functions do not correspond, as between species, and this way is dropped. If it
       has 128 functions or more, changes distances by less than 8 %, as between poses of one body, and keeps the
       outside outside, it is bent finely and nothing else is tried.
       By bending each surface onto the other (`shell_refine`). And with landmarks, given or named by the network, from
       `landmark_coordinates` of every vertex alone, bent with them: surfaces of very different proportions have no
       eigenfunctions in common, but they do correspond between the same landmarks, and a back faces up on all of
       them. Of the two bent maps the one that changes distances less goes on (with named landmarks there is only the
       second); it and the first are bent once more, finely.
       Where a surface is cut open, one more way goes by distances, which the cut does not change: each vertex is
       placed by those to landmarks and then to vertices around it (`geoframe.maps.placing`); it is left out where
       distances change much, as between species.
    4. Kept is the map with the least Dirichlet energy over coverage, times the square of its distortion; maps that
       turn more than a quarter of the surface inside out only if all do. If without landmarks its confidence is low,
       up to two of the next candidates that are different are taken as far, and the surest map is returned.

    Surfaces of more than 12,000 vertices are matched by proxies of 8,000 (`geoframe.maps.proxy`); the map is then
    carried to all vertices, and the eigenfunctions are those of the proxies, improved.

    No landmark is enforced: they are clicked by hand. What is matched is one connected surface without doubled
    vertices; where a file holds another thing, the map is carried back to its own vertices and `warnings` tell
    (see `geoframe.maps.parts`).

    Args:
        mesh1: surface 1, V1 vertices. A `geoframe.Surface` keeps what is computed of it here, for the next match. A
            cloud of points gets triangles between neighbours (`geoframe.maps.clouds`), and `warnings` tell.
        mesh2: surface 2, V2 vertices, any connectivity, scale and pose.
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2); None to go without.
        k: number of eigenfunctions; by default 256, or a third of the vertices with faces where these are fewer.
        orientation: without landmarks, weight in the ranking of what tells a map from its mirror image and from one
            turned by half a circle; 0 turns it off.
        precise: also find `precise_21`, points inside triangles; corners of them where the vertices of both surfaces
            are found to be the same places, as in poses of one mesh.
        progress: called with the name of a step and the share of all that is done, in [0, 1].

    Raises:
        TypeError: not meshes or clouds, or landmarks that are not integers.
        ValueError: batches, fewer than 9 vertices, k too large, landmarks out of range or empty, NaN; `precise` where
            surface 1 is not one piece without seams or is a cloud.
    """
    return _matched((mesh1, mesh2), landmarks, k, orientation, precise, progress, both=False)[0]


def match_both_ways(
    mesh1: Mesh | PointCloud,
    mesh2: Mesh | PointCloud,
    landmarks: Tensor | None = None,
    *,
    k: int | None = None,
    orientation: float = 1.0,
    progress: Progress | None = None,
) -> tuple[Match, Match]:
    """`match` from surface 2 to 1 and from surface 1 to 2 by one search, in little more than the time of one.

    The same starts, candidates and refined maps serve both; of the refined maps each direction keeps what is best for
    it (step 4 of `match`), measures it and judges it. Two calls of `match` would also rank and refine with the
    surfaces exchanged, which need not end in the same maps. Without landmarks the maps are those of the candidate that
    is surest from surface 2 to 1. The `candidates` of both are those of the one search, their energies from 2 to 1.

    Args:
        mesh1: surface 1, as in `match`.
        mesh2: surface 2.
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2); None to go without.
        k: number of eigenfunctions, as in `match`.
        orientation: as in `match`.
        progress: called with the name of a step and the share of all that is done, in [0, 1].

    Returns:
        The match of (mesh1, mesh2), which is what `match` returns, and that of (mesh2, mesh1), whose surface 1 is
        `mesh2`.

    Raises:
        TypeError, ValueError: as `match`.
    """
    one, two = _matched((mesh1, mesh2), landmarks, k, orientation, False, progress, both=True)
    return one, two


def _matched(
    meshes: tuple[Mesh | PointCloud, Mesh | PointCloud],
    landmarks: Tensor | None,
    k: int | None,
    orientation: float,
    precise: bool,
    progress: Progress | None,
    *,
    both: bool,
) -> list[Match]:
    """The match of two surfaces, and where asked for that with the surfaces exchanged, from the same refined maps."""
    tell = progress or (lambda step, done: None)
    surfaces, made = _surfaces(*meshes)
    parts = [main_part(s, f"surface {i}") for i, s in enumerate(surfaces, 1)]
    if landmarks is not None:
        landmarks = as_tensor(landmarks, "landmarks", like=parts[0].surface.verts)
    pairs = None if landmarks is None else _landmark_pairs(landmarks, *parts)
    if precise:
        _check_whole(parts, meshes[0])
    tell("eigenbases and distances", 0.0)
    proxies, k, notes = ready(parts, k, pairs)
    small = None if pairs is None else torch.stack([p.cell[pairs[:, i]] for i, p in enumerate(proxies)], 1)
    tell("starts", 0.3)
    pair = Pair.of(proxies[0].surface, proxies[1].surface, k)
    evidence, starts, more = begun(pair, small)
    tell("candidates", 0.4)
    candidates = ranked(
        pair, starts, evidence, orientation if small is None else 0.0, landmarks=small, more=more
    )
    tell("refinement", 0.5)
    if small is None:
        found = surest(pair, candidates, evidence, TRIED if orientation else 1)
    else:
        found = by_landmarks(pair, candidates, small, evidence)
    tell("all vertices", 0.9)
    told = tuple((*m, *part.notes, *n) for m, part, n in zip(made, parts, notes, strict=True))
    bases = proxies[0].basis(pair.basis1), proxies[1].basis(pair.basis2)
    tasks = [(_Task(parts, proxies, told, bases, pair, evidence, landmarks, pairs, small), found)]
    if both:
        back = tasks[0][0].exchanged()
        tasks.append((back, judged(back.pair, [m.exchanged() for m in found.maps], back.evidence)))
    trust = THIN if any(map(is_ragged, surfaces)) else 1.0
    rest: dict[str, Any] = {
        "candidates": [
            {"rank": i, "start": c.start, "energy": c.energy, **c.terms} for i, c in enumerate(candidates, 1)
        ],
        "settings": {} if landmarks is not None else {"orientation": orientation},
    }
    out = [_told(task, replace(f, confidence=trust * f.confidence), precise, **rest) for task, f in tasks]
    tell("done", 1.0)
    return out


@dataclass(frozen=True, eq=False)
class _Task:
    """What is matched.

    Attributes:
        parts: of surface 1 and of surface 2.
        proxies: of the parts.
        notes: what was done to each surface, in sentences.
        bases: of all vertices of the parts.
        pair: the proxies' surfaces.
        evidence: of these.
        landmarks: (L, 2) as given, pairs those on the parts, small those on the proxies; or None.
    """

    parts: list[Part]
    proxies: list[Proxy]
    notes: tuple[tuple[str, ...], ...]
    bases: tuple[Eigenbasis, Eigenbasis]
    pair: Pair
    evidence: Evidence
    landmarks: Tensor | None
    pairs: Tensor | None
    small: Tensor | None

    def exchanged(self) -> _Task:
        """The same with surface 2 as surface 1."""
        pair = Pair.of(self.pair.two, self.pair.one, self.pair.basis1.k)
        return _Task(
            self.parts[::-1],
            self.proxies[::-1],
            (
                tuple(note.replace("surface 2", "surface 1", 1) for note in self.notes[1]),
                tuple(note.replace("surface 1", "surface 2", 1) for note in self.notes[0]),
            ),
            self.bases[::-1],
            pair,
            Evidence.of(pair.one, pair.two, self.evidence.distortion.exchanged()),
            *(None if x is None else x.flip(1) for x in (self.landmarks, self.pairs, self.small)),
        )


def _told(
    task: _Task, found: Found, precise: bool, candidates: list[dict[str, Any]], settings: dict[str, Any]
) -> Match:
    """The match of a task, on all vertices of the user's surfaces."""
    named = task.evidence.named_gaps(found.best.p2p_21).tolist()
    return Match(
        **_in_the_file(task, found.best, precise),
        landmarks=None if task.landmarks is None else _each_once(task.landmarks),
        energies=found.energies,
        confidence=found.confidence,
        candidates=[dict(c) for c in candidates],
        warnings=(
            *task.notes[0],
            *task.notes[1],
            *doubts(found.energies, found.confidence, dict(zip(task.evidence.names, named, strict=True))),
            *_astray(task, found.best.p2p_21),
        ),
        settings={**_settings(task, found.best), **settings},
    )


def _astray(task: _Task, p2p_21: Tensor) -> tuple[str, ...]:
    """Sentences about given landmarks that the map, of the proxies, takes elsewhere."""
    if task.pairs is None or task.small is None:
        return ()
    told = gaps(task.pair.one, task.small[:, 0], p2p_21[task.small[:, 1]])
    given = [[int(part.vertex[v]) for v in task.pairs[:, i]] for i, part in enumerate(task.parts)]
    return tuple(
        f"landmark {given[0][i]} {given[1][i]} lies {told[i]:.2f} from where the map takes it (half of the landmarks: "
        f"below {median(told):.2f}): is it the same place on both surfaces?"
        for i in astray(told)
    )


def _check_whole(parts: list[Part], mesh1: Mesh | PointCloud) -> None:
    """Points inside triangles need triangles of the user's, and surfaces of which nothing was left out or joined."""
    if isinstance(mesh1, PointCloud):
        raise ValueError("precise: expected triangles on surface 1, found a cloud of points; leave it out")
    if not all(part.is_whole for part in parts):
        notes = "; ".join(note for part in parts for note in part.notes)
        raise ValueError(
            f"precise: expected surfaces of one piece without seams, found: {notes}; repair them first "
            "(geoframe.repair)"
        )


def _in_the_file(task: _Task, best: Refined, precise: bool) -> dict[str, Any]:
    """The maps and bases of a `Match` on all vertices, from those of the parts and proxies that were matched."""
    parts, proxies, landmarks = task.parts, task.proxies, task.landmarks
    p2p_21, p2p_12, points = _on_all_vertices(proxies, task.pair, best, precise)
    basis1, basis2 = task.bases
    return {
        "p2p_21": carried_back(parts[0], parts[1], p2p_21, landmarks),
        "p2p_12": carried_back(parts[1], parts[0], p2p_12, None if landmarks is None else landmarks.flip(1)),
        "C_12": p2p_to_fmap(p2p_21, basis1, basis2),
        "C_21": p2p_to_fmap(p2p_12, basis2, basis1),
        "basis1": parts[0].basis(basis1),
        "basis2": parts[1].basis(basis2),
        "precise_21": points,
    }


def _settings(task: _Task, best: Refined) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "k": task.pair.basis1.k,
        "samples": [len(task.pair.samples1), len(task.pair.samples2)],
        "refinement": best.how,
    }
    if not all(p.is_whole for p in task.proxies):
        settings["proxies"] = [p.surface.n_verts for p in task.proxies]
    return settings


def _on_all_vertices(
    proxies: list[Proxy], pair: Pair, best: Refined, precise: bool
) -> tuple[Tensor, Tensor, BarycentricMap | None]:
    """The maps p2p_21 and p2p_12 between all vertices, and where asked for the one to points inside triangles."""
    one, two = proxies
    maps = best.p2p_21, best.p2p_12
    if one.is_whole and two.is_whole and not precise:
        return *maps, None
    options = {}
    if best.how == "all functions":
        options = {"intrinsic": FINE[0]["intrinsic"], "size": FINE[0]["sizes"][-1]}
    rows1, rows2 = last_rows(one, two, *maps, pair.basis1, pair.basis2, **options)
    if not (one.is_whole and two.is_whole):
        maps = carried(one, two, *maps, rows1, rows2)
    if not precise:
        return *maps, None
    query, points = (torch.as_tensor(x, device=maps[0].device).double() for x in (rows2, rows1))
    found = points_near(maps[0], query, points, one.whole)
    return *maps, at_corners(maps[0], one.whole) if lies_at_corners(found) else found


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


def _surfaces(
    mesh1: Mesh | PointCloud, mesh2: Mesh | PointCloud
) -> tuple[tuple[Surface, Surface], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Both as surfaces, and of each what was made of points, in sentences."""
    for mesh, name in ((mesh1, "mesh1"), (mesh2, "mesh2")):
        if not isinstance(mesh, Mesh | PointCloud):
            raise TypeError(f"{name}: expected a Mesh or a PointCloud, found {type(mesh).__name__}")
        if isinstance(mesh, Mesh) and mesh.verts.ndim != 2:
            raise ValueError(f"{name}: expected one pose, verts (V, 3), found {tuple(mesh.verts.shape)}")
    if mesh1.device != mesh2.device or mesh1.dtype != mesh2.dtype:
        raise ValueError(
            f"mesh2: expected {mesh1.dtype} on {mesh1.device}, found {mesh2.dtype} on {mesh2.device}; use .to()"
        )
    (one, made1), (two, made2) = as_surface(mesh1, "surface 1"), as_surface(mesh2, "surface 2")
    return (one, two), (made1, made2)
