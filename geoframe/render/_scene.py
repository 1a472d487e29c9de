"""From vertices and a view to triangles on the screen: batches packed one after another, near plane clipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_finite, check_float, check_index, check_int, check_shape
from geoframe.camera import Camera, Pinhole, WeakPerspective

Size = tuple[int, int]
Verts = Tensor | Sequence[Tensor]
NEAR = 1e-9  # of the farthest depth: float64 still places a cut edge to 1e-5 pixels
_DEEP = 1e-3  # nearest over farthest depth below which float32 no longer places an edge to 1e-2 pixels


class Found(NamedTuple):
    """The N crossings of outlines and pairs of neighbouring pixels, sorted by picture: (N,) int64 each.

    Attributes:
        near: the pixel on whose side the surface is that ends there, an index into the B H W pixels.
        far: the other pixel.
        edge: the half-edge 3 t + i where the surface ends, edge i of triangle t, from corner i to the next.
        band: 0, or 1 and 2 for the first and second of two outlines, one after another in these lists, that pass a
            pair, from its left or upper pixel on. Between them is a band in which neither pixel's surface shows.
        middle: a pixel that sees what shows in the band, where that is no surface that ends there; else -1.
    """

    near: Tensor
    far: Tensor
    edge: Tensor
    band: Tensor
    middle: Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """The triangles of all images of a batch, image after image.

    Attributes:
        screen: (P, 3) pixel x, pixel y, depth; differentiable.
        faces: (T, 3) int64 into it.
        starts: B + 1 numbers; image b owns the triangles starts[b] .. starts[b + 1] - 1.
        n_faces: F where the triangles of every image are the F faces of its mesh, one after another; else None.
        face_id: (T,) int64, the triangle's face in its own mesh; None where `n_faces` tells it.
        corners: None, or (T, 3, 3): barycentric coordinates of each triangle's corners in the face from which
            the near plane cut it.
        clipped: (B,) int64, faces of each image that the near plane cut or hid.
        size: (H, W).
        batch: leading shape of the result.
        perspective: attributes are linear in space, not on the screen.
        dtype: of the result; the screen can be more precise.
        shared_faces: (F, 3) the mesh's faces where all images share them.
    """

    screen: Tensor
    faces: Tensor
    starts: tuple[int, ...]
    n_faces: int | None
    face_id: Tensor | None
    corners: Tensor | None
    clipped: Tensor
    size: Size
    batch: tuple[int, ...]
    perspective: bool
    dtype: torch.dtype
    shared_faces: Tensor | None


def build_scene(
    verts: Verts,
    faces: Verts,
    view: Camera | Size,
    *,
    near: float | None,
    perspective: bool,
    cull: bool,
    least_area: float = 0.0,
) -> Scene:
    """Check, project, clip and pack; see `geoframe.render.rasterize` for the arguments.

    Triangles of at most `least_area` (in squares of half the image's shorter side) are left out.

    Raises:
        TypeError, ValueError: shapes, dtypes, devices or indices that do not fit; NaN in `verts` or the camera.
    """
    if near is not None and not near > 0 and not isinstance(view, (tuple, list)):
        raise ValueError(f"near: expected a positive depth, found {near}")
    view = _checked_view(view)
    packed = _pack(verts, faces, view)
    if isinstance(view, Pinhole):
        packed, perspective = _projected(packed, near), True
    elif not isinstance(view, tuple):
        perspective = False
    elif perspective:
        z = packed.points.detach()[:, 2]
        packed = packed.kept((z[packed.tri] > (0.0 if near is None else near)).all(1))
    size = view if isinstance(view, tuple) else view.size
    keep = _worth_drawing(packed.points.detach()[:, :2], packed.tri, cull, least_area * (min(size) / 2) ** 2)
    before = packed.clipped
    packed = packed if keep is None else packed.kept(keep)
    starts = [0]
    for n in packed.counts:
        starts.append(starts[-1] + n)
    return Scene(
        *(packed.points, packed.tri, tuple(starts), packed.n_faces, packed.face_id, packed.corners, before),
        *(size, packed.batch, perspective, packed.dtype, packed.shared_faces),
    )


@dataclass(frozen=True, eq=False)
class _Packed:
    """Points (P, 3) of all images in camera axes or on the screen, with triangles `tri` (T, 3) into them, and the
    fields of `Scene`. The triangle's `image` (T,) and the point's `owner` (P,) are made when asked for."""

    points: Tensor
    tri: Tensor
    counts: list[int]
    n_points: list[int]
    batch: tuple[int, ...]
    clipped: Tensor
    dtype: torch.dtype
    n_faces: int | None
    face_id: Tensor | None = None
    corners: Tensor | None = None
    shared_faces: Tensor | None = None
    lens: tuple[Tensor, Tensor] | None = None  # focal and principal, (B, 2) each

    @property
    def image(self) -> Tensor:
        return _numbered(self.counts, self.tri.device)

    @property
    def owner(self) -> Tensor:
        return _numbered(self.n_points, self.tri.device)

    def faces_told(self) -> Tensor:
        """(T,) the face of each triangle."""
        if self.face_id is not None:
            return self.face_id
        parts = [torch.arange(n, device=self.tri.device) for n in self.counts]
        return torch.cat(parts) if parts else self.tri.new_zeros(0)

    def kept(self, keep: Tensor) -> _Packed:
        """The triangles where `keep` (T,); what goes is told as clipped."""
        if bool(keep.all()):
            return self
        left = torch.bincount(self.image[keep], minlength=len(self.counts))
        gone = torch.tensor(self.counts, device=left.device) - left
        return replace(
            self,
            tri=self.tri[keep],
            counts=left.tolist(),
            face_id=self.faces_told()[keep],
            corners=None if self.corners is None else self.corners[keep],
            clipped=self.clipped + gone,
            n_faces=None,
        )


def _numbered(counts: list[int], device: torch.device) -> Tensor:
    return torch.arange(len(counts), device=device).repeat_interleave(
        torch.tensor(counts, device=device).long()
    )


def _worth_drawing(xy: Tensor, tri: Tensor, cull: bool, least_area: float) -> Tensor | None:
    """(T,) whether a triangle has enough area and, with `cull`, is seen from its front; None if all are."""
    if not cull and not least_area:
        return None
    a, b, c = xy.double()[tri].unbind(1)
    twice = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]  # negative: counter-clockwise seen
    keep = -twice > 2 * least_area if cull else twice.abs() > 2 * least_area
    return None if bool(keep.all()) else keep


def _checked_view(view: Camera | Size) -> Camera | Size:
    if isinstance(view, (tuple, list)) and len(view) == 2:
        return check_int(view[0], "size", low=1), check_int(view[1], "size", low=1)
    if not isinstance(view, (Pinhole, WeakPerspective)):
        raise TypeError(f"view: expected a camera or a tuple (H, W), found {type(view).__name__}")
    for name, x in view.tensors().items():
        check_finite(x.detach(), f"view.{name}", remedy="a pose that did not converge gives such a camera")
    return view


def _pack(verts: Verts, faces: Verts, view: Camera | Size) -> _Packed:
    """Points in camera axes for a pinhole, else on the screen, image after image."""
    like = view.R_wc if isinstance(view, (Pinhole, WeakPerspective)) else None
    several = isinstance(verts, (list, tuple)) and len(verts) > 0 and getattr(verts[0], "ndim", 0) > 0
    if several != (isinstance(faces, (list, tuple)) and len(faces) > 0 and getattr(faces[0], "ndim", 0) > 1):
        raise TypeError(
            "verts, faces: expected two tensors, or two lists for meshes of different connectivity; found one of each"
        )
    if several:
        return _pack_several(
            [as_tensor(v, "verts", like=like) for v in verts], [as_tensor(f, "faces") for f in faces], view
        )
    verts = as_tensor(verts, "verts", like=like)
    points = _placed(verts, view)
    faces = _checked_faces(as_tensor(faces, "faces"), verts)
    batch = tuple(points.shape[:-2])
    B, (V, F) = math.prod(batch), (points.shape[-2], len(faces))
    tri = (
        faces if B == 1 else (faces + torch.arange(0, B * V, max(V, 1), device=faces.device)[:B, None, None])
    )
    return _Packed(
        *(points.reshape(B * V, 3), tri.reshape(B * F, 3), [F] * B, [V] * B, batch),
        *(torch.zeros(B, dtype=torch.int64, device=faces.device), points.dtype, F),
        shared_faces=faces,
        lens=_lens(view, batch),
    )


def _pack_several(verts: list[Tensor], faces: list[Tensor], view: Camera | Size) -> _Packed:
    B = len(verts)
    if len(faces) != B:
        raise ValueError(f"faces: expected one tensor for each of {B} verts, found {len(faces)}")
    cameras = [view] * B
    if not isinstance(view, tuple) and view.batch_shape:
        if view.batch_shape != (B,):
            raise ValueError(f"view: expected batch ({B},) as verts, found {tuple(view.batch_shape)}")
        cameras = [view[i] for i in range(B)]
    placed, tri, first = [], [], 0
    for v, f, camera in zip(verts, faces, cameras, strict=True):
        check_shape(check_float(v, "verts"), "V 3", "verts")
        placed.append(_placed(v, camera))
        tri.append(_checked_faces(f, v) + first)
        first += len(v)
    points = torch.cat(placed)
    return _Packed(
        *(points, torch.cat(tri), [len(f) for f in faces], [len(v) for v in verts], (B,)),
        *(torch.zeros(B, dtype=torch.int64, device=points.device), points.dtype),
        *(None, torch.cat([torch.arange(len(f), device=points.device) for f in faces])),
        lens=_lens(view, (B,)),
    )


def _placed(verts: Tensor, view: Camera | Size) -> Tensor:
    check_shape(check_float(verts, "verts"), "... V 3", "verts")
    check_finite(verts.detach(), "verts")
    if isinstance(view, Pinhole):
        return view.to_camera(verts)
    return verts if isinstance(view, tuple) else view.project(verts)


def _lens(view: Camera | Size, batch: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    if not isinstance(view, Pinhole):
        return None
    B = math.prod(batch)
    return view.focal.expand(*batch, 2).reshape(B, 2), view.principal.expand(*batch, 2).reshape(B, 2)


def _checked_faces(faces: Tensor, verts: Tensor) -> Tensor:
    check_index(faces, verts.shape[-2], "faces", what="vertices")
    check_shape(faces, "F 3", "faces")
    if faces.device != verts.device:
        raise ValueError(f"faces: expected device {verts.device} as verts, found {faces.device}; use .to()")
    return faces.long()


def _projected(packed: _Packed, near: float | None) -> _Packed:
    """Onto the screen; what is nearer than the near plane is cut off first."""
    z = packed.points.detach()[:, 2]
    B = len(packed.counts)
    lowest, highest = (float(z.min()), float(z.max())) if len(z) else (1.0, 1.0)
    if lowest > _DEEP * highest and (
        near is None or lowest >= near
    ):  # nothing is cut: no work on the triangles
        return replace(packed, points=_on_screen(packed.points, packed, None))
    packed = replace(packed, points=packed.points.double())
    z, owner = packed.points.detach()[:, 2], packed.owner
    if near is None:
        used = packed.tri.reshape(-1)
        deepest = z.new_zeros(B).scatter_reduce_(0, owner[used], z[used], "amax")
        plane = (NEAR * deepest).clamp_min(torch.finfo(z.dtype).tiny)
    else:
        plane = z.new_full((B,), near)
    if bool((z < plane[owner]).any()):
        packed = _clip(packed, plane)
    return replace(packed, points=_on_screen(packed.points, packed, plane))


def _on_screen(points: Tensor, packed: _Packed, plane: Tensor | None) -> Tensor:
    """(P, 3) pixel x, pixel y, depth; points before the plane are in no triangle and stay finite."""
    assert packed.lens is not None
    focal, principal = (x.to(points.dtype) for x in packed.lens)
    n = packed.n_points
    depth = points[:, 2:]
    if plane is None and len(set(n)) <= 1:  # images of one size broadcast
        shape = (len(n), n[0] if n else 0, 2)
        xy = (points[:, :2] / depth).view(shape) * focal[:, None] + principal[:, None]
        return torch.cat([xy.view(-1, 2), depth], 1)
    owner = packed.owner
    if plane is not None:
        least = plane[owner, None]
        depth = torch.where(depth < least, least, depth)
    return torch.cat([points[:, :2] / depth * focal[owner] + principal[owner], depth], 1)


def _clip(packed: _Packed, plane: Tensor) -> _Packed:
    """Triangles cut at ``z = plane``: one with one corner beyond becomes two, with two corners beyond smaller.

    Neighbours share the points where their common edge is cut, so the surface stays connected.
    """
    points, tri, image, owner = packed.points, packed.tri, packed.image, packed.owner
    beyond = points.detach()[:, 2] < plane[owner]
    inside = ~beyond[tri]
    n_in = inside.sum(1)
    cut_faces = (n_in == 1) | (n_in == 2)
    p, q = tri[cut_faces], tri[cut_faces].roll(-1, 1)  # edge i of a face leads from corner i to corner i + 1
    key = torch.minimum(p, q) * len(points) + torch.maximum(p, q)
    edges, where = torch.unique(key[beyond[p] != beyond[q]], return_inverse=True)
    a, b = edges // max(len(points), 1), edges % max(len(points), 1)
    share = (points[a, 2] - plane[owner[a]]) / (points[a, 2] - points[b, 2])
    xy = points[a, :2] + share[:, None] * (points[b, :2] - points[a, :2])
    cut_points = torch.cat([xy, plane[owner[a], None].expand(-1, 1)], 1)
    number = torch.full_like(key, -1)
    number[beyond[p] != beyond[q]] = where
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    whole = n_in == 3
    parts = [(tri[whole], whole.nonzero()[:, 0], eye.expand(int(whole.sum()), 3, 3))]
    row_of_cut = cut_faces.nonzero()[:, 0]
    for alone_in in (True, False):
        mine = n_in[row_of_cut] == (1 if alone_in else 2)
        rows, numbers = row_of_cut[mine], number[mine]
        k = (inside[rows] == alone_in).int().argmax(1)  # the corner that differs from the two others
        order = (k[:, None] + torch.arange(3, device=k.device)) % 3
        one, two, three = tri[rows].gather(1, order).unbind(1)
        E = eye[order]  # (n, 3, 3): barycentric coordinates of the three corners in the face
        corners = []
        for edge, other in ((0, 1), (2, 2)):  # the edges one-two and three-one
            at = numbers.gather(1, order[:, edge, None])[:, 0]
            s = torch.where(a[at] == one, share[at], 1 - share[at])[:, None]
            corners.append((len(points) + at, E[:, 0] + s * (E[:, other] - E[:, 0])))
        if alone_in:
            triangles = [[(one, E[:, 0]), corners[0], corners[1]]]
        else:
            second, third = (two, E[:, 1]), (three, E[:, 2])
            triangles = [[corners[0], second, third], [corners[0], third, corners[1]]]
        for t in triangles:
            parts.append((torch.stack([i for i, _ in t], 1), rows, torch.stack([e for _, e in t], 1)))
    tri, rows, weights = (torch.cat(x) for x in zip(*parts, strict=True))
    order = rows.argsort(stable=True)  # images stay one after another
    rows = rows[order]
    B = len(packed.counts)
    # the new points stand behind those of all images; their owner is needed once more, for the projection
    ranks = torch.cat([owner, owner[a]]).argsort(stable=True)
    place = torch.empty_like(ranks)
    place[ranks] = torch.arange(len(ranks), device=ranks.device)
    return replace(
        packed,
        points=torch.cat([points, cut_points])[ranks],
        tri=place[tri[order]],
        counts=torch.bincount(image[rows], minlength=B).tolist(),
        n_points=torch.bincount(torch.cat([owner, owner[a]]), minlength=B).tolist(),
        face_id=packed.faces_told()[rows],
        corners=weights[order],
        clipped=torch.bincount(image[n_in < 3], minlength=B),
        n_faces=None,
    )
