"""Rigid poses of a template whose silhouettes are the given masks: a search over all rotations, then refinement.

A silhouette often has several explanations: a mirror-symmetric animal seen half from the front has exactly the
outline of the same animal seen half from behind. So the search returns candidates with their energies, not one pose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, normalize, pad

from geoframe.camera import Camera, Pinhole, WeakPerspective
from geoframe.render import rasterize, sample_image
from geoframe.solve.pose import solve_pose
from geoframe.surface.mesh import Mesh
from geoframe.transforms import rotation_angle, rotvec_to_rotation

GRID_SIDE = 48  # pixels: images of the grid of directions
ROLLS = 36  # turns about the viewing direction that are compared, ten degrees apart
FRAME_SIDE = 40  # samples a side of a mask moved to the middle and scaled to one area
FRAME_HALF = 2.2  # half that side, in square roots of the mask's area: an animal's length
APART = math.radians(25)  # two starts nearer to each other end in one pose
SAME = math.radians(8)  # refined poses nearer to each other are one
# side in pixels, blur in pixels, Levenberg-Marquardt steps, energy above the best where a candidate is dropped
LEVELS = ((32, 2.0, 6, 0.2), (56, 1.0, 5, 0.12), (96, 0.5, 6, 0.12))


DIFFERENCE = 1 / 24  # radians, and radii: about a pixel of the small images
LONGEST = 0.35  # radians and radii: a step of the refinement


class Poses(NamedTuple):
    """P rigid poses ``x -> scale * R (x - centre) + middle`` of a template with the middle `centre`.

    Attributes:
        R: (P, 3, 3). scale: (P,).
        middle: (P, 2) pixels, where the centre lands in one view by weak perspective, whose scale is in pixels;
            or (P, 3), where the centre lies in the world of given cameras.
    """

    R: Tensor
    middle: Tensor
    scale: Tensor

    def take(self, rows: Tensor) -> Poses:
        """Some of them."""
        return Poses(*(x[rows] for x in self))

    def camera(self, centre: Tensor, size: tuple[int, int]) -> WeakPerspective:
        """The weak perspective cameras of poses in pixels."""
        t = self.middle - self.scale[:, None] * (self.R @ centre)[:, :2]
        return WeakPerspective(self.R, t, self.scale, size)


Residuals = Callable[[Poses], Tensor]


class Marks(NamedTuple):
    """2D landmarks: points (N, L, 2) in pixels, weights (N, L), their places (L, V) as weights of the template's
    vertices, and how much they count: the energy of a mean squared distance, in units of the root of the masks' area.
    """

    points: Tensor
    weights: Tensor
    places: Tensor
    strength: float


class Scene(NamedTuple):
    """What a pose is to explain: template, masks (N, H, W) with weights (N, H, W), landmarks, given cameras."""

    mesh: Mesh
    masks: Tensor
    weights: Tensor
    marks: Marks | None
    cameras: Camera | None

    def view(self, i: int) -> Scene:
        """The i-th mask alone."""
        marks = self.marks
        if marks is not None:
            marks = marks._replace(points=marks.points[i : i + 1], weights=marks.weights[i : i + 1])
        return self._replace(masks=self.masks[i : i + 1], weights=self.weights[i : i + 1], marks=marks)


def ball(verts: Tensor) -> tuple[Tensor, Tensor]:
    """Middle of the bounding box (3,) and the largest distance from it."""
    centre = (verts.amax(0) + verts.amin(0)) / 2
    return centre, (verts - centre).norm(dim=1).max()


def moments_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid (N, 2) in pixels and square root of the area (N,) of masks (N, H, W)."""
    H, W = masks.shape[1:]
    area = masks.sum((1, 2)).clamp_min(1e-9)
    x = torch.arange(W, device=masks.device).to(masks) + 0.5
    y = torch.arange(H, device=masks.device).to(masks) + 0.5
    centre = torch.stack([masks.sum(1) @ x, masks.sum(2) @ y], 1) / area[:, None]
    return centre, area.sqrt()


def shrunk(masks: Tensor, factor: int) -> Tensor:
    """Means (N, h, w) over squares of `factor` pixels, zeros beyond the border."""
    H, W = masks.shape[1:]
    return avg_pool2d(pad(masks, (0, -W % factor, 0, -H % factor)), factor)


def matched_views(scene: Scene, n: int) -> Poses:
    """The n most promising poses of one view by weak perspective, at least APART from each other, best first.

    The template is drawn from all directions of a grid; each picture and the mask, moved and scaled to one
    centroid and area, are compared at all turns about the viewing direction.
    """
    mesh, masks = scene.mesh, scene.masks * scene.weights
    frames = directions().to(mesh.verts)
    centre, radius = ball(mesh.verts)
    half = GRID_SIDE / 2
    views = Poses(frames, frames.new_full((len(frames), 2), half), (0.95 * half / radius).expand(len(frames)))
    size = (GRID_SIDE, GRID_SIDE)
    seen = rasterize(mesh.verts, mesh.faces, views.camera(centre, size)).mask.to(masks.dtype)
    angles = torch.arange(ROLLS, device=masks.device).to(masks) * (2 * math.pi / ROLLS)
    ours = framed(seen, torch.zeros_like(angles[:1]))[:, 0].flatten(1)
    theirs = framed(masks, angles)[0].flatten(1)
    known = framed(scene.weights.clamp_max(1), angles, like=masks)[0].flatten(1)
    overlap = ours @ theirs.T
    score = overlap / (ours @ known.T + theirs.sum(1) - overlap).clamp_min(1e-9)  # (directions, ROLLS)
    roll = rolls(angles)
    R = (roll[None] @ frames[:, None]).flatten(0, 1)
    picks = peaks(R, score.flatten(), n)
    view, turn = picks // ROLLS, picks % ROLLS
    (from_centre, from_size), (to_centre, to_size) = moments_of(seen[view]), moments_of(masks)
    ratio = to_size / from_size
    away = (roll[turn, :2, :2] @ (half - from_centre)[..., None])[..., 0]
    return Poses(R[picks], to_centre + ratio[:, None] * away, ratio * views.scale[view])


def matched_turns(scene: Scene, start: Poses, n: int, *, n_views: int = 3, n_each: int = 16) -> Poses:
    """The n most promising poses under given cameras, best first, from `start` (P = 1), place and size.

    `n_views` of the masks, spread evenly, are explained one by one by weak perspective; each of their `n_each` best
    rotations, and that of `start`, is tried in all views.
    """
    cameras, n_masks = scene.cameras, len(scene.masks)
    assert cameras is not None
    R_wc = cameras.R_wc.expand(n_masks, 3, 3)
    found = [start.R]
    for i in sorted({round(k * n_masks / n_views) % n_masks for k in range(n_views)}):
        seen = matched_views(scene.view(i)._replace(cameras=None, marks=None), n_each).R
        found.append((_ray_frame(cameras, start.middle[0], i) @ R_wc[i]).mT @ seen)
    R = torch.cat(found)
    P = len(R)
    poses = Poses(R, start.middle.expand(P, -1), start.scale.expand(P))
    energy = _residuals_at(scene, *LEVELS[0][:2])(poses).square().sum(1)
    return poses.take(peaks(R, -energy, n))


def _ray_frame(cameras: Camera, middle: Tensor, i: int) -> Tensor:
    """(3, 3) the turn of camera i that makes it look straight at a point of the world (3,)."""
    eye = torch.eye(3, dtype=middle.dtype, device=middle.device)
    if not isinstance(cameras, Pinhole):
        return eye
    z = normalize(
        cameras.to_camera(middle[None]).expand(len(cameras.t) if cameras.t.ndim > 1 else i + 1, 1, 3)[i, 0],
        dim=0,
    )
    x = normalize(torch.linalg.cross(eye[1], z), dim=0)
    return torch.stack([x, torch.linalg.cross(z, x), z])


def directions() -> Tensor:
    """(162, 3, 3) rotations, one for each direction of an icosphere as the viewing direction, the last row."""
    from geoframe.surface.shapes import icosphere

    d = icosphere(2).verts.double()
    x = normalize(torch.linalg.cross(torch.eye(3, dtype=d.dtype)[d.abs().argmin(1)], d), dim=1)
    return torch.stack([x, torch.linalg.cross(d, x), d], 1)


def rolls(angles: Tensor) -> Tensor:
    """(n, 3, 3) turns about the viewing axis."""
    return rotvec_to_rotation(angles[:, None] * torch.eye(3, dtype=angles.dtype, device=angles.device)[2])


def framed(images: Tensor, angles: Tensor, like: Tensor | None = None) -> Tensor:
    """Images (N, A, FRAME_SIDE, FRAME_SIDE) in the frame of the masks `like` (default: of themselves): their centroid
    in the middle, their area one, turned back by each of the angles (A,)."""
    centre, size = moments_of(images if like is None else like)
    line = (
        (torch.arange(FRAME_SIDE, device=images.device).to(images) + 0.5) / FRAME_SIDE * 2 - 1
    ) * FRAME_HALF
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([x, y], -1).view(-1, 2) @ rolls(angles)[:, :2, :2].mT  # (A, n, 2)
    at = centre[:, None, None] + size[:, None, None, None] * grid
    padded = pad(images, (1, 1, 1, 1))  # what lies outside the image is empty
    out = sample_image(padded[:, None], at.flatten(1, 2) + 1)
    return out.view(len(images), len(angles), FRAME_SIDE, FRAME_SIDE)


def peaks(R: Tensor, score: Tensor, n: int) -> Tensor:
    """Up to n indices of rotations, the highest scores first, no two within APART of each other."""
    score, picks = score.clone(), []
    for _ in range(n):
        best = int(score.argmax())
        if score[best] == -torch.inf:
            break
        picks.append(best)
        score[rotation_angle(R, R[best]) < APART] = -torch.inf
    return torch.tensor(picks, device=R.device)


def explained(scene: Scene, n: int) -> tuple[Poses, Tensor]:
    """The poses that explain one view by weak perspective, and their energies, the lowest first; n are refined.

    The landmarks' own poses, the best and its rival, are among the starts where three or more are seen.
    """
    poses = matched_views(scene, n)
    marks = scene.marks
    if marks is not None and int((marks.weights > 0).sum()) >= 3:
        places = marks.places @ scene.mesh.verts
        sol = solve_pose(marks.points[0], marks.weights[0], places, scale="free", mode="joint")
        centre, _ = ball(scene.mesh.verts)
        own = Poses(sol.R[None], sol.project(centre[None]), sol.scale[None])
        poses = Poses(*(torch.cat(x) for x in zip(own, poses, strict=True)))
    return refined(scene, poses)


def refined(scene: Scene, poses: Poses) -> tuple[Poses, Tensor]:
    """Poses brought to the masks and landmarks, and their energies (P,), the lowest first; doubles are left out.

    Levenberg-Marquardt on blurred differences of silhouettes, all poses at once, derivatives by differences of
    about a pixel: the silhouette of a mesh has no others that see across its folds.
    """
    for side, blur, steps, hopeless in LEVELS:
        evaluate = _residuals_at(scene, side, blur)
        poses, energy = _descend(scene, poses, evaluate, steps)
        poses, energy = _sorted(poses, energy, SAME)
        poses = poses.take(energy <= energy[0] + hopeless)
    energy = energies(scene, poses)
    return _sorted(poses, energy, SAME)


def energies(scene: Scene, poses: Poses) -> Tensor:
    """(P,) squared differences of silhouettes and masks over the masks' area, plus those of the landmarks."""
    return _residuals_at(scene, 128, 0.0)(poses).square().sum(1)


def _sorted(poses: Poses, energy: Tensor, same: float) -> tuple[Poses, Tensor]:
    """The lowest energy first; of poses within an angle `same` the better one."""
    kept: list[int] = []
    for i in energy.argsort().tolist():
        if all(float(rotation_angle(poses.R[i], poses.R[k])) > same for k in kept):
            kept.append(i)
    rows = torch.tensor(kept, device=energy.device)
    return poses.take(rows), energy[rows]


def _residuals_at(scene: Scene, side: int, blur: float) -> Residuals:
    """The residuals (P, M) of poses at one resolution; the sum of their squares is the energy."""
    mesh, cameras = scene.mesh, scene.cameras
    H, W = scene.masks.shape[1:]
    factor = max(1, round(min(H, W) / side))
    weights = shrunk(scene.weights, factor)
    target = shrunk(scene.weights * scene.masks, factor)
    known = torch.where(weights > 0, 1.0, 0.0).to(target)
    h, w = target.shape[1:]
    area = target.sum()
    centre, _ = ball(mesh.verts)
    kernel = _gaussian(blur).to(target)

    def blurred(x: Tensor) -> Tensor:
        if not blur:
            return x
        k = len(kernel) // 2
        flat = conv2d(x.view(-1, 1, h, w), kernel.view(1, 1, 1, -1), padding=(0, k))
        return conv2d(flat, kernel.view(1, 1, -1, 1), padding=(k, 0)).view(x.shape)

    def residuals(poses: Poses) -> Tensor:
        views: Camera
        if cameras is None:
            verts, views = mesh.verts, poses.camera(centre, (h * factor, w * factor))[:, None]
        else:
            verts = moved(mesh.verts, centre, poses)[:, None]
            views = replace(cameras, size=(h * factor, w * factor))
        fine = rasterize(verts, mesh.faces, views.resized((2 * h, 2 * w))).mask.to(target)
        share = avg_pool2d(fine, 2)  # (P, N, h, w), four samples a pixel
        out = (blurred(weights * share - target) * known).flatten(1) / area.sqrt()
        if scene.marks is None:
            return out
        places = scene.marks.places @ mesh.verts
        if cameras is not None:
            places = moved(places, centre, poses)[:, None]
        marked = mark_residuals(scene.marks, scene.masks * scene.weights, views.project(places))
        return torch.cat([out, marked], 1)

    return residuals


def mark_residuals(marks: Marks, masks: Tensor, projected: Tensor) -> Tensor:
    """Weighted residuals (..., N L 2) of projected landmarks (..., N, L, 2 or 3); their squares sum to an energy."""
    size = masks.sum((1, 2)).mean().sqrt()
    share = marks.weights / marks.weights.sum().clamp_min(1e-9)
    away = projected[..., :2] - marks.points
    return (marks.strength**0.5 / size * share.sqrt()[..., None] * away).flatten(-3)


def moved(points: Tensor, centre: Tensor, poses: Poses) -> Tensor:
    """(P, n, 3) points of the template in the world of given cameras."""
    return poses.scale[:, None, None] * ((points - centre) @ poses.R.mT) + poses.middle[:, None]


def _gaussian(sigma: float) -> Tensor:
    k = math.ceil(2.5 * sigma)
    x = torch.arange(-k, k + 1).double()
    g = torch.exp(-(x**2) / (2 * max(sigma, 1e-9) ** 2))
    return g / g.sum()


def _descend(scene: Scene, poses: Poses, residuals: Residuals, steps: int) -> tuple[Poses, Tensor]:
    """Levenberg-Marquardt of all poses at once: where they end, and their energies (P,)."""
    P, D = len(poses.R), 4 + poses.middle.shape[1]
    reach = (
        poses.scale * ball(scene.mesh.verts)[1]
    )  # the shift that moves a silhouette as a turn by one radian
    r = residuals(poses)
    energy, damping = r.square().sum(1), torch.full_like(r[:, 0], 1e-2)
    for _ in range(steps):
        small = DIFFERENCE * torch.eye(D, dtype=r.dtype, device=r.device).repeat_interleave(P, 0)
        nearby = _stepped(poses.take(torch.arange(P, device=r.device).repeat(D)), small, reach.repeat(D))
        J = (residuals(nearby).view(D, P, -1) - r) / DIFFERENCE
        A, g = torch.einsum("apm,bpm->pab", J, J), torch.einsum("apm,pm->pa", J, r)
        lift = A.diagonal(dim1=1, dim2=2) * damping[:, None] + 1e-9
        step = -torch.linalg.solve_ex(A + torch.diag_embed(lift), g[..., None])[0][..., 0]
        step = step * (LONGEST / step.norm(dim=1, keepdim=True).clamp_min(LONGEST))
        trial = _stepped(poses, step, reach)
        r_trial = residuals(trial)
        better = r_trial.square().sum(1) < energy
        damping = torch.where(better, damping / 4, damping * 8)
        poses = Poses(*(torch.where(_like(better, y), x, y) for x, y in zip(trial, poses, strict=True)))
        r = torch.where(better[:, None], r_trial, r)
        energy = r.square().sum(1)
    return poses, energy


def _like(x: Tensor, other: Tensor) -> Tensor:
    """x (P,) with as many dimensions as `other`."""
    return x.view(-1, *[1] * (other.ndim - 1))


def _stepped(poses: Poses, step: Tensor, reach: Tensor) -> Poses:
    """Poses turned by step[:, :3] radians, shifted by step[:, 3:-1] times `reach` and grown by exp(step[:, -1])."""
    R = rotvec_to_rotation(step[:, :3]) @ poses.R
    return Poses(R, poses.middle + reach[:, None] * step[:, 3:-1], poses.scale * step[:, -1].exp())
