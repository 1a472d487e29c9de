"""`match`: from two meshes to a map between them, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe.maps.convert import p2p_to_fmap
from geoframe.maps.initial import check_landmark_pairs, fmap_from_descriptors, fmap_from_landmarks
from geoframe.maps.landmark_coordinates import landmark_coordinates
from geoframe.maps.quality import (
    GeodesicDistortion,
    coverage,
    cycle_error,
    dirichlet_energy,
    flipped_triangles,
    orthogonality,
)
from geoframe.maps.shells import shell_refine
from geoframe.maps.zoomout import ZoomoutResult, zoomout
from geoframe.nearest.dense import lowest_score, nearest
from geoframe.spectral.basis import Eigenbasis, eigenbasis
from geoframe.spectral.signatures import hks, wks
from geoframe.surface.health import numpy_pose, patch_facing
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import farthest_points

Progress = Callable[[str, float], None]

MOST = 256  # eigenfunctions by default
FIRST = 12  # functions of the first functional map from landmarks alone: what a handful of them can tell
DESCRIBED = 30  # functions of the first functional map from descriptors seen from the landmarks
SAMPLES = 1_500  # vertices of each surface that ZoomOut runs on
LARGE = 20_000  # vertices from which nothing but the last step is done on all of them
INVERTED = 0.25  # share of inverted triangles from which a map is taken for a mirror image, or partly one
DOUBTED = 1.1  # factor of the distortion of the oriented start: landmarks that tell are to be believed
ROUGHER = (
    1.5  # factor by which the map's Dirichlet energy may grow with all k functions; else they are dropped
)
SIGNED = 6  # moving eigenfunctions whose signs are tried without landmarks: 2^6 starts
KEPT = 4  # candidates of these that are refined in full
HELD = 3.0  # weight of all landmarks together where they are rows of the fit, the surface having 1
PROBES = 100  # vertices between which distances are compared
FEWER = 30  # the same on surfaces above LARGE vertices


@dataclass(frozen=True, eq=False)
class Match:
    """A map between two surfaces, both ways, and how good it looks without knowing the truth.

    Attributes:
        p2p_21: (V2,) int64, for every vertex of surface 2 a vertex of surface 1. p2p_12: (V1,), the other way.
        C_12: (K, K) functional map from 1 to 2 that belongs to p2p_21. C_21: the other way.
        basis1, basis2: the eigenbases.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2), each once, or None.
        energies: `dirichlet` (see `dirichlet_energy`), `coverage` of surface 1 in [0, 1], `cycle_error` (mean
            distance 2 -> 1 -> 2 over sqrt(area), along edges, of the vertices that come back to their component),
            `flipped_triangles` in [0, 1], `orthogonality` of C_12 at equal areas, `distortion` (see
            `GeodesicDistortion`).
        candidates: the maps that were compared, best first, each with its `start`, `energy` and terms.
        ambiguity: without landmarks, energy of the best candidate over that of the best really different one,
            in [0, 1]: near 1 the choice (say, of left and right) is a toss-up. None with landmarks.
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
    settings: dict[str, Any]


def match(
    mesh1: Mesh,
    mesh2: Mesh,
    landmarks: Tensor | None = None,
    *,
    k: int | None = None,
    orientation: float = 1.0,
    progress: Progress | None = None,
) -> Match:
    """Match two meshes: every vertex of each gets a vertex of the other.

    1. Starts. With landmarks: a 12 x 12 functional map fitted to them, one of 30 x 30 fitted to descriptors
       (heat seen from the landmarks, wave kernel), and one of 20 x 20 fitted to these with an orientation term,
       which tells left from right where the landmarks do not. Without: the last one, and all signs of the first
       6 eigenfunctions that are not constant; surfaces should then be roughly isometric.
    2. Each is refined both ways together by `zoomout` to k / 4 functions, on 1,500 samples of each surface. The
       one that changes geodesic distances least is kept (`GeodesicDistortion`). Without landmarks, `orientation`
       times the share of inverted triangles is added: a left-right flip is as good an isometry as the true
       map, but turns the surface inside out. Read `ambiguity` before you trust the choice.
    3. The kept one goes on in up to three ways. To all k functions by `zoomout`, on all vertices, landmarks being
       rows of the least squares with three times the weight of the surface; if the map becomes much rougher
       (`dirichlet_energy`), the high functions do not correspond, as between species, and this way is dropped.
       By bending each surface onto the other (`shell_refine`). And with landmarks, from `landmark_coordinates`
       of every vertex alone, bent with them: surfaces of very different proportions have no eigenfunctions in
       common, but they do correspond between the same landmarks, and a back faces up on all of them.
    4. Returned is the map with the least Dirichlet energy over coverage, times the square of its distortion;
       maps that turn more than a quarter of the surface inside out only if all do.
    Above 20,000 vertices the first way stays with the samples, and there is no other, nor an oriented start.

    No landmark is enforced: they are clicked by hand.

    Args:
        mesh1: V1 vertices. mesh2: V2 vertices, any connectivity, scale and pose.
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2); None to go without.
        k: number of eigenfunctions; by default 256, or a third of the vertices with faces where these are fewer.
        orientation: without landmarks, weight of the share of inverted triangles in the ranking; 0 turns it off.
        progress: called with the name of a step and the share of all that is done, in [0, 1].

    Raises:
        TypeError, ValueError: not meshes, batches, fewer than 9 vertices, k too large, landmarks out of range or empty,
            NaN.
    """
    tell = progress or (lambda step, done: None)
    _check_meshes(mesh1, mesh2)
    own = [default_size(m) if k is None else check_int(k, "k", low=3) for m in (mesh1, mesh2)]
    k = min(own)
    tell("eigenbasis of surface 1", 0.0)
    basis1 = eigenbasis(mesh1, own[0]).truncate(k)
    tell("eigenbasis of surface 2", 0.15)
    basis2 = eigenbasis(mesh2, own[1]).truncate(k)
    if landmarks is not None:
        check_landmark_pairs(landmarks, basis1, basis2)
        landmarks = torch.tensor(list(dict.fromkeys(map(tuple, landmarks.tolist()))), device=mesh1.device)
    pair = _Pair(mesh1, mesh2, basis1, basis2, landmarks)
    tell("candidates", 0.3)
    starts = pair.signed_starts() if landmarks is None else pair.landmark_starts(landmarks)
    found, candidates, ambiguity = pair.best(starts, orientation if landmarks is None else 0.0)
    tell("refinement", 0.5)
    maps = pair.refined(found)
    if landmarks is not None and not pair.large:
        tell("landmark coordinates", 0.7)
        maps.append(pair.anchored(landmarks))
    p2p_21, p2p_12, how = pair.choose(maps)
    tell("measures", 0.9)
    C_12, C_21 = p2p_to_fmap(p2p_21, basis1, basis2), p2p_to_fmap(p2p_12, basis2, basis1)
    some = farthest_points(mesh2, 200) if pair.large else None
    back = cycle_error(mesh2, p2p_21, p2p_12, vertices=some)
    equal_areas = (basis1.mass.sum() / basis2.mass.sum()).sqrt()
    energies = {
        "dirichlet": dirichlet_energy(mesh1, mesh2, p2p_21),
        "coverage": coverage(mesh1, p2p_21),
        "cycle_error": float(back[back.isfinite()].mean()),
        "flipped_triangles": flipped_triangles(mesh1, mesh2, p2p_21),
        "orthogonality": orthogonality(C_12 * equal_areas),
        "distortion": pair.distortion(p2p_21),
    }
    tell("done", 1.0)
    settings: dict[str, Any] = {
        "k": k,
        "samples": [len(s) for s in pair.samples],
        "refinement": how,
    }
    if landmarks is None:
        settings["orientation"] = orientation
    sure = ambiguity if landmarks is None else None
    return Match(p2p_21, p2p_12, C_12, C_21, basis1, basis2, landmarks, energies, candidates, sure, settings)


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


def _check_meshes(mesh1: Mesh, mesh2: Mesh) -> None:
    for mesh, name in ((mesh1, "mesh1"), (mesh2, "mesh2")):
        if not isinstance(mesh, Mesh):
            raise TypeError(f"{name}: expected a Mesh, found {type(mesh).__name__}; load faces too")
        if mesh.verts.ndim != 2:
            raise ValueError(f"{name}: expected one pose, verts (V, 3), found {tuple(mesh.verts.shape)}")
    if mesh1.device != mesh2.device or mesh1.dtype != mesh2.dtype:
        raise ValueError(
            f"mesh2: expected {mesh1.dtype} on {mesh1.device}, found {mesh2.dtype} on {mesh2.device}; use .to()"
        )


Start = tuple[str, Tensor, Tensor]  # name, C_12, C_21
FullMap = tuple[Tensor, Tensor, str]  # p2p_21, p2p_12, how it was refined


class _Pair:
    """Two surfaces with what all candidates share: samples, descriptors, distances."""

    def __init__(
        self, mesh1: Mesh, mesh2: Mesh, basis1: Eigenbasis, basis2: Eigenbasis, landmarks: Tensor | None
    ) -> None:
        self.mesh1, self.mesh2, self.basis1, self.basis2 = mesh1, mesh2, basis1, basis2
        self.k = basis1.k
        self.large = max(mesh1.n_verts, mesh2.n_verts) > LARGE
        n = max(SAMPLES, 3 * self.k)  # fewer would not tell k functions
        samples1, samples2 = (farthest_points(m, min(n, m.n_verts)) for m in (mesh1, mesh2))
        self.landmarks = landmarks
        self.samples = samples1, samples2
        alike = _facing(mesh1) * _facing(mesh2) >= 0
        self.turned2 = (
            mesh2 if alike else Mesh(mesh2.verts, mesh2.faces.flip(1))
        )  # its outside where 1 has it
        self.distortion = GeodesicDistortion(mesh1, mesh2, n=FEWER if self.large else PROBES)

    def landmark_starts(self, landmarks: Tensor) -> list[Start]:
        """From the landmarks alone, and from what is seen from them."""
        k = min(FIRST, self.k)
        one, two = self.basis1, self.basis2
        flipped = landmarks.flip(1)
        plain = (fmap_from_landmarks(landmarks, one, two, k), fmap_from_landmarks(flipped, two, one, k))
        f1, f2 = (_descriptors(basis, landmarks[:, i]) for i, basis in enumerate((one, two)))
        k = min(DESCRIBED, self.k)
        described = (
            fmap_from_descriptors(f1, f2, one, two, k, regularisation=0.01),
            fmap_from_descriptors(f2, f1, two, one, k, regularisation=0.01),
        )
        if self.large:  # the third would take as long as these two
            return [("landmarks", *plain), ("descriptors", *described)]
        f1, f2 = (
            torch.cat([_descriptors(b), f[:, 100::4]], 1) for b, f in ((one, f1), (two, f2))
        )  # fewer, for speed
        return [("landmarks", *plain), ("descriptors", *described), ("oriented", *self._oriented(f1, f2))]

    def _oriented(self, f1: Tensor, f2: Tensor) -> tuple[Tensor, Tensor]:
        """C_12 and C_21 of 20 functions, orthogonal, from descriptors with their orientation."""
        one, two = self.basis1, self.basis2
        C = fmap_from_descriptors(
            f1,
            f2,
            one,
            two,
            min(20, self.k),
            regularisation=0.01,
            commutativity=0.1,
            orientation=0.1,
            meshes=(self.mesh1, self.turned2),
        )
        scale = (two.mass.sum() / one.mass.sum()).sqrt()  # unit functions stay unit functions at unit areas
        U, _, Vh = torch.linalg.svd(C)  # the commutativity terms pull C to zero; its turn is what counts
        C = U @ Vh * scale
        return C, C.T / scale**2

    def signed_starts(self) -> list[Start]:
        """From descriptors with their orientation, and the best that differ of all signs of eigenfunctions."""
        one, two = self.basis1, self.basis2
        scale = (two.mass.sum() / one.mass.sum()).sqrt()
        starts = [("descriptors", *self._oriented(_descriptors(one), _descriptors(two)))]
        n = min(SIGNED, self.k - 1)
        few1, few2 = (_sampled(basis, s[:400]) for basis, s in zip((one, two), self.samples, strict=True))
        all_of = torch.arange(few1.n_verts), torch.arange(few2.n_verts)
        last = max(n + 1, min(40, self.k, few1.n_verts // 3, few2.n_verts // 3))
        found = []
        for signs in product((1.0, -1.0), repeat=n):
            C = torch.diag(one.vecs.new_tensor((1.0, *signs))) * scale
            sizes = sorted({n + 1, *range(n + 1, last, 4), last})
            small = zoomout(C, few1, few2, sizes=sizes, samples=all_of, bidirectional=True)
            name = "signs " + "".join("+" if s > 0 else "-" for s in signs)
            found.append((_spectral_energy(small, one, two), name, small))
        found.sort(key=lambda row: row[0])
        chosen: list[ZoomoutResult] = []
        for _, name, small in found:
            if len(chosen) < KEPT and all(self._differ(small.C_12, other.C_12) for other in chosen):
                assert small.C_21 is not None
                chosen.append(small)
                starts.append((name, small.C_12, small.C_21))
        return starts

    def best(
        self, starts: list[Start], orientation: float
    ) -> tuple[ZoomoutResult, list[dict[str, Any]], float]:
        """Refine all starts to k / 4 functions: (the best, all of them ranked, ambiguity)."""
        ranked = []
        quick = self.large and not orientation  # neither vertices nor triangles, samples tell enough
        for name, C_12, C_21 in starts:
            first, last = len(C_12), max(len(C_12), self.k // 4)
            found = self._both(C_12, C_21, sorted({*range(first, last, 8), last}), quick=quick)
            terms = {
                "distortion": self.distortion.of_probes(self._places(found.C_12, self.distortion.probes)),
                "spectral": _spectral_energy(found, self.basis1, self.basis2),
            }
            if not quick:
                terms["flipped_triangles"] = self.inverted(found.p2p_21)
            energy = terms["distortion"] + orientation * terms.get("flipped_triangles", 0.0)
            ranked.append((energy, name, terms, found))
        ranked.sort(key=lambda row: row[0] * (DOUBTED if row[1] == "oriented" else 1.0))
        best = ranked[0][3]
        other = [row[0] for row in ranked[1:] if self._differ(row[3].C_12, best.C_12)]
        ambiguity = ranked[0][0] / max(other[0], 1e-300) if other else 0.0
        table = [
            {"rank": i + 1, "start": name, "energy": e, **terms}
            for i, (e, name, terms, _) in enumerate(ranked)
        ]
        if quick:
            assert best.C_21 is not None
            best = self._both(best.C_12, best.C_21, [len(best.C_12)])
        return best, table, float(ambiguity)

    def _both(self, C_12: Tensor, C_21: Tensor, sizes: list[int], *, quick: bool = False) -> ZoomoutResult:
        """Refined both ways together on the samples; `quick`: vertices are numbers of samples."""
        bases, samples = (self.basis1, self.basis2), self.samples
        if quick:
            bases = _sampled(bases[0], samples[0]), _sampled(bases[1], samples[1])
            samples = torch.arange(len(samples[0])), torch.arange(len(samples[1]))
        return zoomout(C_12, *bases, sizes=sizes, samples=samples, bidirectional=True, init_21=C_21)

    def refined(self, found: ZoomoutResult) -> list[FullMap]:
        """On to all functions, if the map stays smooth; and bent."""
        one, two, k, first = self.basis1, self.basis2, self.k, len(found.C_12)
        sizes = sorted({first, *range(first, k // 2, 8), *range(max(first, k // 2), k, 32), k})
        held: dict[str, Any] = {}
        flipped: dict[str, Any] = {}
        if self.landmarks is not None:
            held = {"landmarks": self.landmarks, "landmark_weight": HELD}
            flipped = held | {"landmarks": self.landmarks.flip(1)}
        finer = zoomout(found.C_12, one, two, sizes=sizes, samples=self.samples, **held).p2p_21
        maps: list[FullMap] = []
        limit = ROUGHER * dirichlet_energy(self.mesh1, self.mesh2, found.p2p_21)
        assert found.p2p_12 is not None and found.C_21 is not None
        if dirichlet_energy(self.mesh1, self.mesh2, finer) <= limit:
            back = self.samples[::-1] if self.large else None
            p2p_12 = zoomout(found.C_21, two, one, sizes=sizes, samples=back, **flipped).p2p_21
            if not self.large:
                finer = zoomout(found.C_12, one, two, sizes=sizes, **held).p2p_21
            maps.append((finer, p2p_12, "all functions"))
        if self.large:
            return maps or [(found.p2p_21, found.p2p_12, "none")]
        bent = shell_refine(self.mesh1, self.mesh2, found.p2p_21, found.p2p_12, one, two)
        return [*maps, (*bent, "bent")]

    def anchored(self, landmarks: Tensor) -> FullMap:
        """From landmark coordinates alone, bent with them."""
        f1, f2 = (landmark_coordinates(m, landmarks[:, i]) for i, m in enumerate((self.mesh1, self.mesh2)))
        start = nearest(f2, f1)[0], nearest(f1, f2)[0]
        bent = shell_refine(self.mesh1, self.mesh2, *start, self.basis1, self.basis2, functions=(f1, f2))
        return *bent, "landmark coordinates"

    def choose(self, maps: list[FullMap]) -> FullMap:
        """The smoothest that changes distances least, of those that keep the outside outside, if any does."""

        def key(m: FullMap) -> tuple[bool, float]:
            # over coverage, as a map is not smooth for sending much to little
            rough = dirichlet_energy(self.mesh1, self.mesh2, m[0]) / coverage(self.mesh1, m[0])
            return self.inverted(m[0]) > INVERTED, rough * self.distortion(m[0]) ** 2

        return maps[0] if len(maps) == 1 else min(maps, key=key)

    def inverted(self, p2p_21: Tensor) -> float:
        """`flipped_triangles`, as if both surfaces had their outside outside."""
        return flipped_triangles(self.mesh1, self.turned2, p2p_21)

    def _differ(self, C: Tensor, D: Tensor) -> bool:
        """Whether two functional maps send the samples of surface 2 to places that are on average far apart."""
        k = min(len(C), len(D))
        places = [self.mesh1.verts[self._places(X[:k, :k], self.samples[1][:100])] for X in (C, D)]
        return float((places[0] - places[1]).norm(dim=-1).mean() / self.mesh1.area.sqrt()) > 0.05

    def _places(self, C_12: Tensor, at: Tensor) -> Tensor:
        """Vertices of surface 1 that some of surface 2 are sent to."""
        k = len(C_12)
        return lowest_score(self.basis2.vecs[at, :k] @ C_12, self.basis1.vecs[:, :k])


def _facing(mesh: Mesh) -> int:
    """-1 for a surface with the inside out, 0 for a flat one, else 1."""
    verts, faces = numpy_pose(mesh)
    return int(patch_facing(verts, faces, np.zeros(len(faces), np.int64))[0])


def _sampled(basis: Eigenbasis, at: Tensor) -> Eigenbasis:
    """The basis as seen from some vertices, which share the area evenly."""
    mass = basis.mass.sum().expand(len(at)) / len(at)
    return Eigenbasis(basis.vals, basis.vecs[at], mass)


def _descriptors(basis: Eigenbasis, landmarks: Tensor | None = None) -> Tensor:
    """(V, p) wave kernel of the first 100 functions, and heat from each landmark at 20 times."""
    basis = basis.truncate(min(100, basis.k))
    if landmarks is None:
        return wks(basis, 30)
    f = wks(basis, 100)
    times = torch.logspace(-3.2, -0.7, 20, dtype=f.dtype, device=f.device) * basis.mass.sum()
    return torch.cat([f, hks(basis, times, landmarks=landmarks, scaled=False)], 1)


def _spectral_energy(result: ZoomoutResult, basis1: Eigenbasis, basis2: Eigenbasis) -> float:
    """How far the maps are from an isometry: not inverse to each other, not commuting with the Laplacians."""
    assert result.C_21 is not None
    C_12, C_21 = result.C_12.double(), result.C_21.double()
    k = len(C_12)
    area1, area2 = basis1.mass.double().sum(), basis2.mass.double().sum()
    C = C_12 * (area1 / area2).sqrt()
    lam1, lam2 = basis1.vals[:k].double() * area1, basis2.vals[:k].double() * area2
    commute = (C * lam1 - lam2[:, None] * C).square().sum() / lam1.square().sum()
    eye = torch.eye(k, dtype=C.dtype, device=C.device)
    inverse = ((C_21 @ C_12 - eye).square().sum() + (C_12 @ C_21 - eye).square().sum()) / (2 * k)
    return float(commute + inverse)
