"""What of a surface is matched, and the way back to the vertices of its file.

A map needs one connected surface. Files often hold another thing: vertices that are doubled along the seams of a
texture, vertices in no face, vertices very far from all others, several components. The part that is matched is
welded, without loose and far vertices, and the component of most area; the map found there is carried back to all
vertices, and what was done is told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geoframe._types import Ints
from geoframe.canonical.surface import Surface
from geoframe.maps.pieces import lay_pieces
from geoframe.nearest import nearest
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.health import outliers
from geoframe.surface.mesh import Mesh
from geoframe.surface.topology import collapsed_faces, first_equal_rows, vertex_components
from geoframe.transforms import nearest_rotation


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a surface that is matched.

    Attributes:
        whole: the surface, V vertices.
        surface: what is matched, W vertices; `whole` itself where nothing had to be done.
        number: (V,) int64, for every vertex of `whole` its vertex in `surface`, -1 for those left out.
        vertex: (W,) int64, for every vertex of `surface` a vertex of `whole`.
        notes: what was done, in sentences, each a reason to look twice.
    """

    whole: Surface
    surface: Surface
    number: Tensor
    vertex: Tensor
    notes: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the part is all of the surface."""
        return self.surface is self.whole

    def basis(self, basis: Eigenbasis) -> Eigenbasis:
        """The part's eigenbasis on all vertices: doubled vertices share their area, those left out have none."""
        if self.is_whole:
            return basis
        inside = self.number >= 0
        doubled = torch.bincount(self.number[inside], minlength=self.surface.n_verts)
        vecs, mass = (x.new_zeros((self.whole.n_verts, *x.shape[1:])) for x in (basis.vecs, basis.mass))
        vecs[inside] = basis.vecs[self.number[inside]]
        mass[inside] = (basis.mass / doubled)[self.number[inside]]
        return Eigenbasis(basis.vals, vecs, mass)


def main_part(mesh: Surface, name: str = "surface") -> Part:
    """The part of a surface that is matched, found once for a surface.

    Args:
        mesh: any surface.
        name: what notes call it.
    """
    notes: tuple[str, ...]
    part, number, vertex, notes = mesh.once("main part", lambda: _find(mesh))
    return Part(mesh, part, number, vertex, tuple(f"{name} {note}" for note in notes))


def _find(mesh: Surface) -> tuple[Surface, Tensor, Tensor, tuple[str, ...]]:
    """The part, number and vertex of `Part`, and the notes without their subject."""
    n, notes = mesh.n_verts, []
    faces = mesh.faces.cpu().numpy()
    faces = faces[~collapsed_faces(faces)]
    far = outliers(mesh.verts.detach().double().cpu().numpy())
    faces = faces[~np.isin(faces, far).any(1)]
    used = np.zeros(n, bool)
    used[faces] = True
    place = _places(mesh, faces)
    faces = place[faces]
    faces = faces[~collapsed_faces(faces)]
    if merged := int((used & (place != np.arange(n))).sum()):
        notes.append(f"has {merged:,} doubled vertices along seams: it was matched as if they were joined")
    if len(far):
        vertices = f"{len(far):,} vertices" if len(far) > 1 else "1 vertex"
        notes.append(f"has {vertices} very far from all others, first {far[0]}: matched was the rest")
    if loose := int((~used).sum()) - len(far):
        notes.append(f"has {loose:,} vertices in no face: each goes where the nearest vertex with faces goes")
    n_components, label = vertex_components(faces, n)
    if n_components > 1:
        of_face = label[faces[:, 0]]
        area = Mesh(mesh.verts.detach().double(), torch.as_tensor(faces)).face_areas.cpu().numpy()
        areas = np.bincount(of_face, area, minlength=n_components)
        shares = np.sort(areas / max(areas.sum(), 1e-300))[::-1]
        told = ", ".join(f"{s:.0%}" for s in shares[:5]) + (", ..." if n_components > 5 else "")
        notes.append(
            f"has {n_components} components ({told} of the area): the largest was matched, the others follow "
            "by their position"
        )
        faces = faces[of_face == areas.argmax()]
    if not notes:
        same = torch.arange(n, device=mesh.device)
        return mesh, same, same, ()
    kept = np.unique(faces)
    number = np.full(n, -1)
    number[kept] = np.arange(len(kept))
    new_faces, at, number_of = (
        torch.as_tensor(x).to(mesh.device) for x in (number[faces], kept, np.where(used, number[place], -1))
    )
    return Surface(mesh.verts[at], new_faces), number_of, at, tuple(notes)


def _places(mesh: Surface, faces: Ints) -> Ints:
    """(V,) the vertex that stands for each: the first at its position, if joining these closes seams.

    It does if fewer edges have one face and no more have three or more, so that sheets that only touch stay apart.
    """
    apart = np.arange(mesh.n_verts)
    first = first_equal_rows(mesh.verts.detach().double().cpu().numpy())
    used = np.unique(faces)
    if (first[used] == used).all():
        return apart
    before, after = _edge_counts(faces), _edge_counts(first[faces])
    joins = (after == 1).sum() < (before == 1).sum() and (after > 2).sum() <= (before > 2).sum()
    return first if joins else apart


def _edge_counts(faces: Ints) -> Ints:
    """Number of faces at each edge."""
    proper = faces[~collapsed_faces(faces)]
    ij = np.sort(np.concatenate([proper[:, [0, 1]], proper[:, [1, 2]], proper[:, [2, 0]]]), axis=1)
    return np.unique(ij, axis=0, return_counts=True)[1]


def carried_back(onto: Part, of: Part, p2p: Tensor, landmarks: Tensor | None = None) -> Tensor:
    """The map (V,) from all vertices of one surface to vertices of another, from that (W,) between their parts.

    Vertices outside the part go with the vertex of the part nearest to them: rotated as the whole part is, and moved
    as that vertex is, to the nearest vertex there. Where the other surface has other parts than the one matched,
    those are what they may go to. Vertices of a component that has landmarks move as the nearest of these does. Where
    the other surface is in one piece and free in places, components that are large or have a landmark are laid on these
    rigidly (`geoframe.maps.pieces`).

    Args:
        onto: the surface that the map goes to.
        of: the surface that it comes from.
        p2p: (W,) vertices of ``onto.surface``, one a vertex of ``of.surface``.
        landmarks: (L, 2) rows (vertex of ``onto.whole``, vertex of ``of.whole``), or None.
    """
    if onto.is_whole and of.is_whole:
        return p2p
    there = onto.vertex[p2p]
    out = torch.empty(of.whole.n_verts, dtype=torch.int64, device=p2p.device)
    inside = of.number >= 0
    out[inside] = there[of.number[inside]]
    outside = torch.nonzero(~inside).ravel()
    outside = outside[torch.isfinite(of.whole.verts[outside]).all(1)]
    out[~inside] = there[0]
    if not len(outside):
        return out
    x, y = of.surface.verts.double(), onto.whole.verts.double()[there]
    scale = (onto.surface.area / of.surface.area).sqrt().double()
    middle_x, middle_y = x.mean(0), y.mean(0)
    R = scale * nearest_rotation((y - middle_y).T @ (x - middle_x))
    rest = of.whole.verts.double()[outside]
    near = nearest(rest, x)[0]
    target = y[near] + (rest - x[near]) @ R.T
    has_faces = [torch.zeros(p.whole.n_verts, dtype=torch.bool, device=p2p.device) for p in (onto, of)]
    for has, p in zip(has_faces, (onto, of), strict=True):
        has[p.whole.faces] = True
    others = torch.nonzero(has_faces[0] & (onto.number < 0)).ravel()
    goals = others if len(others) else onto.vertex
    out[outside] = goals[nearest(target, onto.whole.verts.double()[goals])[0]]
    far = outliers(of.whole.verts.detach().double().cpu().numpy())
    has_faces[1][torch.as_tensor(far, device=p2p.device)] = False  # they go with their neighbour, too
    loose = ~has_faces[1][outside]
    out[outside[loose]] = there[near[loose]]
    goals = torch.nonzero(has_faces[0]).ravel()
    if landmarks is not None:
        _follow_landmarks(out, onto.whole, of.whole, outside[~loose], goals, R, landmarks.long())
    if onto.is_whole:
        lay_pieces(out, onto.whole, of.whole, of.surface, there, outside[~loose], landmarks)
    return out


def _follow_landmarks(
    out: Tensor, onto: Mesh, of: Mesh, which: Tensor, goals: Tensor, R: Tensor, landmarks: Tensor
) -> None:
    """Send the vertices `which` to the nearest goals where the nearest landmark of their component takes them.

    Vertices of components without a landmark keep what `out` (V,) has. R (3, 3) turns and scales.
    """
    label = torch.as_tensor(vertex_components(of.faces.cpu().numpy(), of.n_verts)[1]).to(out.device)
    start, goal = of.verts.double(), onto.verts.double()
    for c in torch.unique(label[landmarks[:, 1]]).tolist():
        mine = which[label[which] == c]
        if c < 0 or not len(mine):
            continue
        to, at = landmarks[label[landmarks[:, 1]] == c].T
        first = nearest(start[mine], start[at])[0]
        target = goal[to[first]] + (start[mine] - start[at[first]]) @ R.T
        out[mine] = goals[nearest(target, goal[goals])[0]]
