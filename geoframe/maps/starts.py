"""First maps between two surfaces: from landmarks, from descriptors, from the signs of eigenfunctions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe.canonical.surface import Surface
from geoframe.maps.evidence import KNOWN, SURE, named_landmarks
from geoframe.maps.initial import fmap_from_descriptors, fmap_from_landmarks, fmaps_from_descriptors
from geoframe.maps.shells import rim_length
from geoframe.maps.signs import refined_signs
from geoframe.nearest import lowest_score
from geoframe.spectral.basis import Eigenbasis
from geoframe.spectral.signatures import hks, wks
from geoframe.surface.health import numpy_pose, patch_facing
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import spread_vertices

# Sizes and weights were chosen on cat to lion and on poses of the cat.
SAMPLES = 1_500  # vertices of each surface that functional maps are refined on
PER_FUNCTION = 3  # samples a function, at least: fewer would not tell the functions apart
FIRST = 12  # functions of the first functional map from landmarks alone: what a handful of them can tell
DESCRIBED = 30  # functions of the first functional map from descriptors seen from the landmarks
ORIENTED = 20  # functions of the one with the orientation term: its system has the square of it as unknowns
REGULARISATION, COMMUTATIVITY, ORIENTATION = 0.01, 0.1, 0.1  # weights of `fmap_from_descriptors`
SIGNED = 6  # moving eigenfunctions whose signs are tried without landmarks: 2^6 starts
FEW, LAST = 400, 40  # samples and functions that these are refined to before they are compared
KEPT = 4  # of these starts, those that are refined further
MANY = 12  # landmarks from which on other starts are not needed: of 30 pairs of species from 32 none gained by them
FLAT = 0.1  # thickness of landmarks over their extent below which they lie in a plane
NAMED_LEAST = 5  # named landmarks from which on they are used
APART = 0.05  # mean distance of places over sqrt(area) from which two maps are different ones


class Start(NamedTuple):
    """A first pair of functional maps.

    Attributes:
        name: where it comes from.
        C_12: (k, k), C_21: (k, k).
        landmarks: (L, 2) rows (vertex of 1, vertex of 2) that a network named and that it comes from, or None.
    """

    name: str
    C_12: Tensor
    C_21: Tensor
    landmarks: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """Two surfaces with what all candidate maps share.

    Attributes:
        one: surface 1.
        two: surface 2.
        basis1: the k lowest eigenpairs of surface 1.
        basis2: the k lowest eigenpairs of surface 2.
        samples1: (N1,) vertices of surface 1, far from each other.
        samples2: (N2,) vertices of surface 2, likewise.
        turned2: surface 2 with its outside where surface 1 has it.
        rims: lengths of the rims of surface 1 and of surface 2 over sqrt(area); 0 where they are closed.
    """

    one: Surface
    two: Surface
    basis1: Eigenbasis
    basis2: Eigenbasis
    samples1: Tensor
    samples2: Tensor
    turned2: Mesh
    rims: tuple[float, float]

    @classmethod
    def of(cls, one: Surface, two: Surface, k: int) -> Pair:
        """Compute, or take from the surfaces, what is shared."""
        n = max(SAMPLES, PER_FUNCTION * k)
        samples1, samples2 = (spread_vertices(m, n) for m in (one, two))
        alike = _facing(one) * _facing(two) >= 0
        turned2 = two if alike else Mesh(two.verts, two.faces.flip(1))
        rims = rim_length(one), rim_length(two)
        return cls(one, two, one.basis(k), two.basis(k), samples1, samples2, turned2, rims)

    @property
    def scale(self) -> Tensor:
        """Factor of a functional map C_12 at unit areas to one at the surfaces' own areas."""
        return (self.basis2.mass.sum() / self.basis1.mass.sum()).sqrt()

    def sampled(self, n: int | None = None) -> tuple[Eigenbasis, Eigenbasis]:
        """Both bases as seen from the samples, or the first n of them, which share the area evenly."""
        return _at(self.basis1, self.samples1[:n]), _at(self.basis2, self.samples2[:n])

    def places_21(self, C_12: Tensor, at: Tensor) -> Tensor:
        """Vertices of surface 1 that the vertices `at` (N,) of surface 2 are sent to."""
        k = len(C_12)
        return lowest_score(self.basis2.vecs[at, :k] @ C_12, self.basis1.vecs[:, :k])

    def places_12(self, C_21: Tensor, at: Tensor) -> Tensor:
        """Vertices of surface 2 that the vertices `at` (N,) of surface 1 are sent to."""
        k = len(C_21)
        return lowest_score(self.basis1.vecs[at, :k] @ C_21, self.basis2.vecs[:, :k])

    def differ(self, C: Tensor, D: Tensor) -> bool:
        """Whether two functional maps C_12 send samples of surface 2 to places that are on average far apart."""
        k = min(len(C), len(D))
        places = [self.one.verts[self.places_21(X[:k, :k], self.samples2[:100])] for X in (C, D)]
        return float((places[0] - places[1]).norm(dim=-1).mean() / self.one.area.sqrt()) > APART


def starts_from_landmarks(pair: Pair, landmarks: Tensor) -> list[Start]:
    """First maps from pairs of landmarks: from these alone, and from what is seen from them.

    Args:
        pair: the surfaces.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2).
    """
    one, two, flipped = pair.basis1, pair.basis2, landmarks.flip(1)
    k = min(FIRST, one.k)
    plain = fmap_from_landmarks(landmarks, one, two, k), fmap_from_landmarks(flipped, two, one, k)
    f1, f2 = (_descriptors(basis, landmarks[:, i]) for i, basis in enumerate((one, two)))
    k = min(DESCRIBED, one.k)
    described = fmaps_from_descriptors(f1, f2, one, two, k, regularisation=REGULARISATION)
    return [Start("landmarks", *plain), Start("descriptors", *described)]


def in_a_plane(pair: Pair, landmarks: Tensor) -> bool:
    """Whether landmarks lie in a plane on one of the surfaces, so that they may not tell left from right.

    Args:
        pair: the surfaces.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2).
    """
    for mesh, at in zip((pair.one, pair.two), landmarks.T, strict=True):
        x = mesh.verts.detach().double()[at]
        size = torch.linalg.svdvals(x - x.mean(0))
        if len(size) < 3 or size[2] < FLAT * size[0]:
            return True
    return False


def oriented_start(pair: Pair, landmarks: Tensor) -> Start:
    """A first map from what is seen from landmarks with its orientation, which is slow.

    Args:
        pair: the surfaces.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2).
    """
    sides = ((pair.basis1, landmarks[:, 0]), (pair.basis2, landmarks[:, 1]))
    every_fourth = slice(100, None, 4)  # of the functions of heat
    f1, f2 = (torch.cat([_descriptors(b), _descriptors(b, at)[:, every_fourth]], 1) for b, at in sides)
    return _oriented(pair, f1, f2)


def starts_from_shape(pair: Pair) -> list[Start]:
    """Without landmarks: from descriptors with their orientation, and the best different ones of all signs."""
    one, two = pair.basis1, pair.basis2
    starts = [_oriented(pair, _descriptors(one), _descriptors(two))]
    n = min(SIGNED, one.k - 1)
    few1, few2 = pair.sampled(FEW)
    last = max(n + 1, min(LAST, one.k, few1.n_verts // PER_FUNCTION, few2.n_verts // PER_FUNCTION))
    signs, C_12, C_21 = refined_signs(few1, few2, n, sorted({*range(n + 5, last, 4), last}))
    energies = [spectral_energy(*maps, one, two) for maps in zip(C_12, C_21, strict=True)]
    chosen: list[Tensor] = []
    for i in sorted(range(len(energies)), key=energies.__getitem__):
        if len(chosen) < KEPT and all(pair.differ(C_12[i], other) for other in chosen):
            chosen.append(C_12[i])
            name = "signs " + "".join("+" if s > 0 else "-" for s in signs[i])
            starts.append(Start(name, C_12[i], C_21[i]))
    return starts


def starts_from_named_landmarks(pair: Pair) -> list[Start]:
    """From landmarks that a network names on both surfaces, and from the same with left and right of one exchanged.

    None where one of the surfaces is not taken for a human or an animal, or where fewer than `NAMED_LEAST` landmarks
    are sure on both.
    """
    one, two = named_landmarks(pair.one), named_landmarks(pair.two)
    if min(one.known, two.known) < KNOWN:
        return []
    sure = torch.minimum(one.confidence, two.confidence)
    places: list[dict[str, int]] = [{}, {}]
    for i in torch.argsort(-sure, stable=True).tolist():
        new = [int(found.vertices[i]) for found in (one, two)]
        if sure[i] < SURE:
            break
        if all(v not in place.values() for v, place in zip(new, places, strict=True)):
            for v, place in zip(new, places, strict=True):
                place[one.names[i]] = v
    if len(places[0]) < NAMED_LEAST:
        return []
    partner = {a: b for left, right in two.mirrored for a, b in ((left, right), (right, left))}
    mirrored = {name: places[1].get(partner.get(name, name)) for name in places[0]}
    out = []
    for label, there in (("named landmarks", places[1]), ("named landmarks, mirrored", mirrored)):
        rows = [(v, there[name]) for name, v in places[0].items() if there[name] is not None]
        if len(rows) < NAMED_LEAST:
            continue
        landmarks = torch.tensor(rows, device=pair.one.device)
        out += [
            Start(f"{label}: {s.name}", s.C_12, s.C_21, landmarks)
            for s in starts_from_landmarks(pair, landmarks)
        ]
    return out


def gaps(one: Surface, true: Tensor, found: Tensor) -> list[float]:
    """Distances over sqrt(area) on surface 1 from each true vertex (L,) to where a map takes its partner (L,)."""
    return (one.distances(true).gather(1, found[:, None])[:, 0] / one.area.sqrt()).tolist()


def spectral_energy(C_12: Tensor, C_21: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> float:
    """How far the maps are from an isometry: not inverse to each other, not commuting with the Laplacians."""
    C_12, C_21 = C_12.double(), C_21.double()
    k = len(C_12)
    area1, area2 = basis1.mass.double().sum(), basis2.mass.double().sum()
    C = C_12 * (area1 / area2).sqrt()
    lam1, lam2 = basis1.vals[:k].double() * area1, basis2.vals[:k].double() * area2
    commute = (C * lam1 - lam2[:, None] * C).square().sum() / lam1.square().sum()
    eye = torch.eye(k, dtype=C.dtype, device=C.device)
    inverse = ((C_21 @ C_12 - eye).square().sum() + (C_12 @ C_21 - eye).square().sum()) / (2 * k)
    return float(commute + inverse)


def _oriented(pair: Pair, f1: Tensor, f2: Tensor) -> Start:
    """C_12 and C_21, orthogonal, from descriptors with their orientation."""
    C = fmap_from_descriptors(
        f1,
        f2,
        pair.basis1,
        pair.basis2,
        min(ORIENTED, pair.basis1.k),
        regularisation=REGULARISATION,
        commutativity=COMMUTATIVITY,
        orientation=ORIENTATION,
        meshes=(pair.one, pair.turned2),
    )
    U, _, Vh = torch.linalg.svd(C)  # the commutativity terms pull C to zero; its rotation is what counts
    C = U @ Vh * pair.scale
    return Start("oriented", C, C.T / pair.scale**2)


def _facing(mesh: Mesh) -> int:
    """-1 for a surface with the inside out, 0 for a flat one, else 1; an open one may be told wrongly."""
    verts, faces = numpy_pose(mesh)
    return int(patch_facing(verts, faces, np.zeros(len(faces), np.int64))[0])


def _at(basis: Eigenbasis, at: Tensor) -> Eigenbasis:
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
