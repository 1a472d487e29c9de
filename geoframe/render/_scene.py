"""From vertices and a view to triangles on the screen: batches packed one after another, near plane clipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import check_finite, check_float, check_index, check_int, check_shape
from geoframe.camera import Camera, Pinhole, WeakPerspective

Size = tuple[int, int]
Verts = Tensor | Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class Scene:
    """The triangles of all images of a batch, image after image.

    Attributes:
        screen: (P, 3) pixel x, pixel y, depth; differentiable. faces: (T, 3) int64 into it.
        starts: B + 1 numbers; image b owns the triangles starts[b] .. starts[b + 1] - 1.
        face_id: (T,) int64, the triangle's face in its own mesh; None where the triangles are the faces of one mesh.
        corners: None, or (T, 3, 3): barycentric coordinates of each triangle's corners in the face from which
            the near plane cut it. size: (H, W). batch: leading shape of the result.
        perspective: attributes are linear in space, not on the screen.
    """

    screen: Tensor
    faces: Tensor
    starts: tuple[int, ...]
    face_id: Tensor | None
    corners: Tensor | None
    size: Size
    batch: tuple[int, ...]
    perspective: bool


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
        TypeError, ValueError: shapes, dtypes, devices or indices that do not fit; NaN in `verts`.
    """
    points, tri, counts, batch = _pack(verts, faces, view)
    if isinstance(view, tuple):
        size = check_int(view[0], "size", low=1), check_int(view[1], "size", low=1)
        screen, corners, image = points, None, _image_of(counts, points.device)
        face_id = torch.cat([torch.arange(n, device=points.device) for n in counts])
        if perspective:
            seen = (screen[tri][..., 2] > (0.0 if near is None else near)).all(1)
            tri, image, face_id = tri[seen], image[seen], face_id[seen]
    else:
        size, perspective = view.size, isinstance(view, Pinhole)
        image = _image_of(counts, points.device)
        face_id = torch.cat([torch.arange(n, device=points.device) for n in counts])
        corners = None
        if isinstance(view, Pinhole):
            screen, tri, image, face_id, corners = _project_clipped(
                points, tri, image, face_id, view, batch, near
            )
        else:
            screen = points
    keep = _worth_drawing(screen.detach()[:, :2], tri, cull, least_area * (min(size) / 2) ** 2)
    if keep is not None:
        tri, image, face_id = tri[keep], image[keep], face_id[keep]
        corners = None if corners is None else corners[keep]
    if len(tri) == sum(counts):
        per_image = counts
    else:
        per_image = torch.bincount(image, minlength=len(counts)).tolist()
    starts = [0]
    for n in per_image:
        starts.append(starts[-1] + n)
    same = len(counts) == 1 and len(tri) == counts[0] and corners is None
    return Scene(screen, tri, tuple(starts), None if same else face_id, corners, size, batch, perspective)


def _worth_drawing(xy: Tensor, tri: Tensor, cull: bool, least_area: float) -> Tensor | None:
    """(T,) whether a triangle has enough area and, with `cull`, is seen from its front; None if all are."""
    if not cull and not least_area:
        return None
    a, b, c = xy.double()[tri].unbind(1)
    twice = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]  # negative: counter-clockwise seen
    keep = -twice > 2 * least_area if cull else twice.abs() > 2 * least_area
    return None if bool(keep.all()) else keep


def _image_of(counts: list[int], device: torch.device) -> Tensor:
    return torch.arange(len(counts), device=device).repeat_interleave(torch.tensor(counts, device=device))


def _pack(
    verts: Verts, faces: Verts, view: Camera | Size
) -> tuple[Tensor, Tensor, list[int], tuple[int, ...]]:
    """(P, 3) points (camera axes for a pinhole, else screen), (T, 3) faces, faces an image, batch shape."""
    if isinstance(verts, Tensor) != isinstance(faces, Tensor):
        raise TypeError(
            "verts, faces: expected two tensors, or two lists for meshes of different connectivity; found one of each"
        )
    if isinstance(verts, Tensor) and isinstance(faces, Tensor):
        points = _placed(verts, view)
        _check_faces(faces, verts)
        batch = tuple(points.shape[:-2])
        B, V = math.prod(batch), points.shape[-2]
        offset = torch.arange(B, device=verts.device)[:, None, None] * V
        return points.reshape(-1, 3), (faces.long() + offset).reshape(-1, 3), [len(faces)] * B, batch
    if len(verts) != len(faces) or not len(verts):
        raise ValueError(
            f"faces: expected one tensor for each of {len(verts)} verts (at least one), found {len(faces)}"
        )
    cameras = [view] * len(verts)
    if not isinstance(view, tuple) and view.batch_shape:
        if view.batch_shape != (len(verts),):
            raise ValueError(
                f"view: expected batch ({len(verts)},) as verts, found {tuple(view.batch_shape)}"
            )
        cameras = [view[i] for i in range(len(verts))]
    placed, tri, first = [], [], 0
    for v, f, camera in zip(verts, faces, cameras, strict=True):
        check_shape(check_float(v, "verts"), "V 3", "verts")
        _check_faces(f, v)
        placed.append(_placed(v, camera))
        tri.append(f.long() + first)
        first += len(v)
    return torch.cat(placed), torch.cat(tri), [len(f) for f in faces], (len(verts),)


def _placed(verts: Tensor, view: Camera | Size) -> Tensor:
    check_shape(check_float(verts, "verts"), "... V 3", "verts")
    check_finite(verts.detach(), "verts")
    if isinstance(view, Pinhole):
        return view.to_camera(verts)
    if isinstance(view, WeakPerspective):
        return view.project(verts)
    if not isinstance(view, tuple) or len(view) != 2:
        raise TypeError(f"view: expected a camera or a tuple (H, W), found {type(view).__name__}")
    return verts


def _check_faces(faces: Tensor, verts: Tensor) -> None:
    check_index(faces, verts.shape[-2], "faces", what="vertices")
    check_shape(faces, "F 3", "faces")
    if faces.device != verts.device:
        raise ValueError(f"faces: expected device {verts.device} as verts, found {faces.device}; use .to()")


def _project_clipped(
    points: Tensor,
    tri: Tensor,
    image: Tensor,
    face_id: Tensor,
    view: Pinhole,
    batch: tuple[int, ...],
    near: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Screen (P', 3), triangles, their image and face, corners: what is nearer than the near plane is cut off."""
    focal, principal = (x.expand(*batch, 2).reshape(-1, 2) for x in (view.focal, view.principal))
    B = len(focal)
    z = points.detach()[:, 2]
    owner = torch.zeros_like(z, dtype=torch.int64)
    owner[tri] = image[:, None].expand_as(tri)
    if near is None:  # a thousandth of the farthest depth of each picture: any unit will do
        deepest = z.new_zeros(B).scatter_reduce_(0, owner, z, "amax")
        plane = (1e-3 * deepest).clamp_min(torch.finfo(z.dtype).tiny)
    else:
        if not near > 0:
            raise ValueError(f"near: expected a positive depth, found {near}")
        plane = z.new_full((B,), near)
    outside = z < plane[owner]
    corners = None
    if bool(outside.any()):
        points, owner, tri, image, face_id, corners = _clip(points, owner, tri, image, face_id, plane)
    depth = torch.where(points[:, 2:] < plane[owner, None], plane[owner, None], points[:, 2:])
    xy = points[:, :2] / depth * focal[owner] + principal[owner]
    return torch.cat([xy, depth], 1), tri, image, face_id, corners


def _clip(
    points: Tensor, owner: Tensor, tri: Tensor, image: Tensor, face_id: Tensor, plane: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Triangles cut at ``z = plane``: one with one corner beyond becomes two, with two corners beyond smaller."""
    inside = points.detach()[tri][..., 2] >= plane[image, None]
    n_in = inside.sum(1)
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    whole = n_in == 3
    parts = [(tri[whole], whole.nonzero()[:, 0], eye.expand(int(whole.sum()), 3, 3))]
    new_points, new_owner, n = [points], [owner], len(points)
    for alone_in in (True, False):
        rows = (n_in == (1 if alone_in else 2)).nonzero()[:, 0]
        k = (inside[rows] == alone_in).int().argmax(1)  # the corner that differs from the two others
        order = (k[:, None] + torch.arange(3, device=k.device)) % 3
        a, b, c = tri[rows].gather(1, order).unbind(1)
        E = eye[order]  # (n, 3, 3): barycentric coordinates of a, b, c in the face
        cuts = []
        for other, e in ((b, E[:, 1]), (c, E[:, 2])):
            start, end, e_start, e_end = (a, other, E[:, 0], e) if alone_in else (other, a, e, E[:, 0])
            p, q, z = points[start], points[end], plane[image[rows]]
            s = ((p[:, 2] - z) / (p[:, 2] - q[:, 2]))[:, None]
            cut = p + s * (q - p)
            new_points.append(torch.cat([cut[:, :2], z[:, None]], 1))
            new_owner.append(image[rows])
            cuts.append((n + torch.arange(len(rows), device=k.device), e_start + s * (e_end - e_start)))
            n += len(rows)
        (ab, e_ab), (ac, e_ac) = cuts
        corners = [(a, E[:, 0]), (ab, e_ab), (ac, e_ac)]
        if alone_in:
            triangles = [corners]
        else:
            triangles = [[corners[1], (b, E[:, 1]), (c, E[:, 2])], [corners[1], (c, E[:, 2]), corners[2]]]
        for t in triangles:
            parts.append((torch.stack([i for i, _ in t], 1), rows, torch.stack([e for _, e in t], 1)))
    tri, rows, weights = (torch.cat(x) for x in zip(*parts, strict=True))
    order = rows.argsort(stable=True)  # images stay one after another
    rows = rows[order]
    return (
        *(torch.cat(new_points), torch.cat(new_owner), tri[order]),
        *(image[rows], face_id[rows], weights[order]),
    )
