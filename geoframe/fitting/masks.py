"""Fitting a template to masks, pose and shape by silhouettes without a network; pictures of such fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import check_float, check_int, check_shape
from geoframe.camera import Camera, Pinhole, WeakPerspective, look_at
from geoframe.fitting.points import PointFit
from geoframe.render import rasterize, render, sample_image, soft_silhouette
from geoframe.spectral import eigenbasis
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import farthest_points
from geoframe.transforms import Similarity, procrustes, rotvec_to_rotation


class _Level(NamedTuple):
    side: int  # of the image, the shorter one
    width: float  # pixels: how far the border of the silhouette feels
    n_modes: int  # of the deformation, at most
    reach: float  # weight of the distances that see across the image


_LEVELS = (
    _Level(32, 0.3, 0, 1.0),
    _Level(64, 0.2, 0, 0.1),
    _Level(64, 0.15, 6, 0.1),
    _Level(64, 0.15, 12, 0.1),
    _Level(128, 0.12, 24, 0.02),
    _Level(128, 0.12, 10**6, 0.02),
    _Level(256, 0.1, 10**6, 0.0),
)


@dataclass(frozen=True, eq=False)
class TemplateFit:
    """A template brought to its masks.

    Attributes:
        mesh: the posed and deformed template, in the world of the cameras. start: the template as it began.
        pose: the similarity that brings the template nearest to `mesh`: its rotation, translation and scale.
        cameras: batch (N,), those given or those found. iou: (N,) of each mask with the hard silhouette.
        masks: (N, H, W). loss: (steps,) what was minimised, level after level.
    """

    mesh: Mesh
    start: Mesh
    pose: Similarity
    cameras: Camera
    masks: Tensor
    iou: Tensor
    loss: Tensor

    def picture(self) -> Tensor:
        """(3, 2H, N W): the template over the masks before (top) and after (bottom), one column a view."""
        rows = []
        for mesh in (self.start, self.mesh):
            bare = Mesh(mesh.verts, mesh.faces)
            seen = rasterize(bare.verts, bare.faces, self.cameras).mask[:, None]
            paper = torch.where(self.masks[:, None] > 0.5, 0.35, 1.0).to(mesh.dtype)
            tint = torch.tensor([1.0, 0.62, 0.25], dtype=mesh.dtype, device=mesh.device)[:, None, None]
            shown = torch.where(self.masks[:, None] > 0.5, 1.0, 0.75) * tint * render(bare, self.cameras)
            rows.append(torch.cat(list(torch.where(seen, shown.clamp(0, 1), paper)), -1))
        return torch.cat(rows, -2)


def landmark_picture(
    fit: PointFit, points2d: Tensor, size: tuple[int, int], visibility: Tensor | None = None
) -> Tensor:
    """(3, H, 2 W): a template over the points it was fitted to, rigid (left) and bent (right).

    `fit` is what `geoframe.solve.fit_points` made of `points2d` (L, 2), in pixels of images of `size` (H, W), and
    `visibility` (L,). Given points are dark, the template's landmarks red; hidden ones are left out.
    """
    shown = slice(None) if visibility is None else visibility > 0
    rows, cols = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    pixels = torch.stack([cols, rows], -1).to(points2d).view(-1, 2) + 0.5
    pictures = []
    for mesh, pose in ((fit.start, fit.rigid), (fit.mesh, fit.pose)):
        picture = render(Mesh(mesh.verts, mesh.faces), pose.camera(size))
        landmarks = pose.project(mesh.verts[fit.vertices])
        for points, tint in ((landmarks, (0.85, 0.1, 0.1)), (points2d, (0.05, 0.1, 0.3))):
            dots = points[shown].to(pixels)
            if not len(dots):
                continue
            near = torch.cdist(pixels, dots).amin(1).view(size) < max(1.5, min(size) / 120)
            picture = torch.where(near, picture.new_tensor(tint)[:, None, None], picture)
        pictures.append(picture.clamp(0, 1))
    return torch.cat(pictures, -1)


def fit_template(
    mesh: Mesh,
    masks: Tensor,
    cameras: Camera | None = None,
    *,
    n_basis: int = 48,
    steps: int = 60,
    stiffness: float = 0.03,
    progress: Callable[[int, int, float], None] | None = None,
) -> TemplateFit:
    """Rotate, move, scale and deform a template until its silhouettes are the masks.

    Coarse to fine: first the pose alone, on small images and with distances that reach across them, then the shape as
    smooth offsets in the eigenfunctions of the template, the lowest ones first, on larger and larger images. It starts
    at the template's own orientation, with place and size from the masks' centres and areas.

    Args:
        mesh: template, verts (V, 3). masks: (N, H, W) in [0, 1], several views of one object.
        cameras: the N views (batch (N,)). None: each view gets a weak-perspective camera of its own, found with the
            shape; the template then stays where it is and the world is the template's.
        n_basis: number of eigenfunctions that deform the template (0: pose only).
        steps: iterations a level; there are seven, for masks below 192 pixels six.
        stiffness: weight of the deformation's stretch.
        progress: called after every step with (step, number of steps, loss).

    Returns:
        TemplateFit, without gradient.

    Raises:
        TypeError, ValueError: shapes or devices that do not fit, an empty mask, one with NaN or outside [0, 1].
    """
    _check(mesh, masks, cameras, n_basis, steps)
    masks = masks.to(mesh.dtype)
    if cameras is None:
        cameras = _views(mesh, masks)
        start, state = mesh, _State.begin(mesh, (len(masks),), 2, n_basis)
    else:
        start = mesh.with_verts(_placed(mesh, masks, cameras))
        state = _State.begin(mesh, (), 3, n_basis)
    basis = _modes(start, n_basis)
    losses: list[float] = []
    sample = farthest_points(start, min(400, start.n_verts))
    shorter = min(masks.shape[1:])  # a level that sees no more pixels than the one before is left out
    levels = [level for level in _LEVELS if level.side <= 128 or shorter >= 0.75 * level.side]
    for level in levels:
        modes = basis[:, : level.n_modes]
        loss_of = _loss_at(level, masks, cameras, start, modes, sample, stiffness)
        optimiser = torch.optim.Adam(
            state.groups(modes.shape[1] > 0, min(1.0, 64 / level.side)), betas=(0.9, 0.95)
        )
        for i in range(steps):
            loss = loss_of(state)
            optimiser.zero_grad()
            loss.backward()
            for group in optimiser.param_groups:  # to a tenth of the rate at the end of the level
                group["lr"] = group["rate"] * 0.1 ** (i / steps)
            optimiser.step()
            losses.append(float(loss.detach()))
            if progress is not None:
                progress(len(losses), steps * len(levels), losses[-1])
    with torch.no_grad():
        verts, found = state.posed(start, basis, cameras)
        mask = rasterize(verts, mesh.faces, found).mask
        target = masks > 0.5
        iou = (mask & target).sum((1, 2)) / (mask | target).sum((1, 2))
        pose = procrustes(mesh.verts, verts, scale=True)
    return TemplateFit(mesh.with_verts(verts), start, pose, found, masks, iou, torch.tensor(losses))


@dataclass(frozen=True, eq=False)
class _State:
    """What is optimised: a turn, a shift (in units of the template's radius or of half the image) and a growth of
    the object, or one of each view (N, ...); and the coefficients (K, 3) of the deformation, in radii."""

    turn: Tensor
    shift: Tensor
    grow: Tensor
    coefficients: Tensor

    @staticmethod
    def begin(mesh: Mesh, batch: tuple[int, ...], n_shift: int, n_basis: int) -> _State:
        shapes = ((*batch, 3), (*batch, n_shift), batch, (n_basis, 3))
        return _State(*(mesh.verts.new_zeros(s).requires_grad_() for s in shapes))

    def groups(self, deform: bool, speed: float) -> list[dict[str, object]]:
        """Adam's parameter groups with their rates."""
        rates = [(self.turn, 0.03), (self.shift, 0.02), (self.grow, 0.02)]
        if deform:
            rates.append((self.coefficients, 0.01))
        return [{"params": [x], "lr": speed * rate, "rate": speed * rate} for x, rate in rates]

    def posed(self, start: Mesh, basis: Tensor, cameras: Camera) -> tuple[Tensor, Camera]:
        """Vertices (V, 3) in the world, and the cameras."""
        k = basis.shape[1]
        centre, radius = _ball(start.verts)
        verts = start.verts + radius * (basis @ self.coefficients[:k])
        R = rotvec_to_rotation(self.turn)
        if self.turn.ndim == 1:
            return self.grow.exp() * (verts - centre) @ R.mT + centre + radius * self.shift, cameras
        assert isinstance(cameras, WeakPerspective)
        turned = R @ cameras.R_wc
        # turn and grow about the object's middle, wherever the world's origin is
        middle = cameras.project(centre[None])[:, 0, :2] + min(cameras.size) / 2 * self.shift
        scale = cameras.scale * self.grow.exp()
        t = middle - scale[:, None] * (turned @ centre)[:, :2]
        return verts, replace(cameras, R_wc=turned, t=t, scale=scale)


def _loss_at(
    level: _Level,
    masks: Tensor,
    cameras: Camera,
    start: Mesh,
    modes: Tensor,
    sample: Tensor,
    stiffness: float,
) -> Callable[[_State], Tensor]:
    """The loss at one resolution: squared difference of the silhouettes over the masks' area, squared distances of
    `sample` vertices to the masks and of the masks to them, stretch of the deformation."""
    H, W = cameras.size
    factor = max(1, round(min(H, W) / level.side))
    padded = -(-H // factor) * factor, -(-W // factor) * factor
    size = padded[0] // factor, padded[1] // factor
    half = min(size) / 2
    small = torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(masks, (0, padded[1] - W, 0, padded[0] - H)), factor
    )
    if level.reach:
        inside = torch.stack([_inside(m, 200) for m in small])
        distance = torch.stack([_distance(m) for m in small])[:, None] / half

    def loss_of(state: _State) -> Tensor:
        verts, views = state.posed(start, modes, cameras)
        fine = replace(views, size=padded).resized((2 * size[0], 2 * size[1]))
        alpha = _silhouette(verts, start.faces, fine, level.width / half)
        loss = (alpha - small).square().sum() / small.sum()
        if level.reach:
            points = fine.project(verts[sample])[..., :2] / 2
            outside = sample_image(distance, points).square().mean()
            missed = torch.cdist(inside, points).amin(-1).square().mean() / half**2
            loss = loss + 10 * level.reach * (outside + missed)
        return loss + stiffness * state.coefficients[: modes.shape[1]].square().sum()

    return loss_of


def _silhouette(verts: Tensor, faces: Tensor, views: Camera, width: float) -> Tensor:
    """Share of each pixel that the mesh covers (N, h, w), of views with four samples a pixel.

    Its values are those of the hard silhouette and its slopes those of a soft one `width` wide (in units of half the
    shorter side): the soft one alone is fatter than the mesh, the more so the more faces meet at its border, and a
    mesh fitted by it too thin.
    """
    soft = soft_silhouette(verts, faces, views, sigma=width**2)
    with torch.no_grad():
        gap = rasterize(verts, faces, views).mask.to(soft.dtype) - soft
    return torch.nn.functional.avg_pool2d(soft + gap, 2)


def _inside(mask: Tensor, n: int) -> Tensor:
    """n pixel centres (n, 2) spread over a mask (h, w)."""
    pixels = (mask >= 0.5 * mask.max()).nonzero().flip(1).to(mask.dtype) + 0.5
    return pixels[torch.linspace(0, len(pixels) - 1, n).round().long()]


def _distance(mask: Tensor) -> Tensor:
    """Pixels (h, w) from each pixel to the mask, 0 inside it."""
    from scipy.ndimage import distance_transform_edt

    far = distance_transform_edt((mask < 0.5 * mask.max()).cpu().numpy())
    return torch.as_tensor(far, dtype=mask.dtype, device=mask.device)


def _ball(verts: Tensor) -> tuple[Tensor, Tensor]:
    """Middle of the bounding box (3,) and the largest distance from it."""
    centre = (verts.amax(0) + verts.amin(0)) / 2
    return centre, (verts - centre).norm(dim=1).max()


def _modes(mesh: Mesh, k: int) -> Tensor:
    """The k lowest eigenfunctions after the constant (V, k), each scaled to the same Dirichlet energy, so that the
    squared coefficients of an offset measure how much it stretches the surface."""
    if k == 0:
        return mesh.verts.new_zeros(mesh.n_verts, 0)
    basis = eigenbasis(mesh, k + 1)
    return basis.vecs[:, 1:] * (basis.mass.sum() * basis.vals[1] / basis.vals[1:]).sqrt()


def _moments(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid (N, 2) in pixels and square root of the area (N,) of masks (N, H, W)."""
    H, W = masks.shape[1:]
    area = masks.sum((1, 2))
    x = torch.arange(W, device=masks.device).to(masks) + 0.5
    y = torch.arange(H, device=masks.device).to(masks) + 0.5
    centre = torch.stack([masks.sum(1) @ x, masks.sum(2) @ y], 1) / area[:, None]
    return centre, area.sqrt()


def _placed(mesh: Mesh, masks: Tensor, cameras: Camera) -> Tensor:
    """Vertices moved and scaled, not turned: the centre where the masks' centroids meet, the size by their areas."""
    target, size = _moments(masks)
    R = cameras.R_wc.expand(len(masks), 3, 3)
    if isinstance(cameras, Pinhole):
        slope = (target - cameras.principal) / cameras.focal
        A = R[:, :2] - slope[..., None] * R[:, 2:]
        b = slope * cameras.t[..., 2:] - cameras.t[..., :2]
    else:
        A = R[:, :2] * cameras.scale.expand(len(masks))[:, None, None]
        b = target - cameras.t
    # the least-norm answer where one view leaves the depth open
    middle = torch.linalg.pinv(A.reshape(-1, 3)) @ b.reshape(-1)
    centre, radius = _ball(mesh.verts)
    pixel = (
        cameras.focal.mean(-1) / cameras.to_camera(middle[None])[:, 0, 2]
        if isinstance(cameras, Pinhole)
        else cameras.scale
    )
    scale = (size / pixel).mean() / radius
    for _ in range(3):
        verts = (mesh.verts - centre) * scale + middle
        seen = rasterize(verts, mesh.faces, cameras).mask.to(masks.dtype)
        scale = scale * (size.mean() / _moments(seen.clamp_min(1e-6))[1].mean())
    return (mesh.verts - centre) * scale + middle


def _views(mesh: Mesh, masks: Tensor) -> WeakPerspective:
    """For each mask the view of the template, among 16 x 3 around its y axis, whose silhouette is most like it."""
    H, W = masks.shape[1:]
    centre, radius = _ball(mesh.verts)
    turn, lift = torch.meshgrid(
        2 * math.pi * torch.arange(16) / 16, torch.tensor([-0.35, 0.15, 0.6]), indexing="ij"
    )
    eye = torch.stack([turn.sin() * lift.cos(), lift.sin(), turn.cos() * lift.cos()], -1).view(-1, 3)
    R_wc, _ = look_at(eye.to(mesh.verts))
    scale = 24 / radius
    views = WeakPerspective(R_wc, 32 - scale * (R_wc @ centre)[:, :2], scale.expand(len(R_wc)), (64, 64))
    seen = rasterize(mesh.verts, mesh.faces, views).mask.to(masks.dtype)
    ours, theirs = _normalised(seen), _normalised(masks)
    overlap = ours.flatten(1) @ theirs.flatten(1).T
    union = ours.sum((1, 2))[:, None] + theirs.sum((1, 2)) - overlap
    best = (overlap / union).argmax(0)
    (from_centre, from_size), (to_centre, to_size) = _moments(seen[best]), _moments(masks)
    ratio = to_size / from_size
    t = to_centre + ratio[:, None] * (views.t[best] - from_centre)
    return WeakPerspective(R_wc[best], t, ratio * scale, (H, W))


def _normalised(masks: Tensor) -> Tensor:
    """Masks (N, 32, 32) moved to the middle and scaled to one area."""
    centre, size = _moments(masks)
    line = (torch.arange(32, device=masks.device).to(masks) + 0.5) / 32 * 3 - 1.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = centre[:, None] + size[:, None, None] * torch.stack([x, y], -1).view(1, -1, 2)
    padded = torch.nn.functional.pad(masks, (1, 1, 1, 1))  # what lies outside the image is empty
    return sample_image(padded[:, None], at + 1).view(-1, 32, 32)


def _check(mesh: Mesh, masks: Tensor, cameras: Camera | None, n_basis: int, steps: int) -> None:
    check_shape(mesh.verts, "V 3", "mesh.verts")
    N, H, W = (check_shape(check_float(masks, "masks"), "N H W", "masks")[k] for k in "NHW")
    check_int(n_basis, "n_basis", low=0, high=mesh.n_verts - 2)
    check_int(steps, "steps", low=1)
    if masks.device != mesh.device:
        raise ValueError(
            f"masks: expected on the mesh's device {mesh.device}, found {masks.device}; move them with .to(...)"
        )
    if not bool(torch.isfinite(masks).all()):
        raise ValueError(
            "masks: expected finite numbers, found NaN or infinity; say 0 where nothing is known"
        )
    low, high = (float(x) for x in masks.detach().aminmax())
    if low < -1e-3 or high > 1 + 1e-3:  # but for rounding
        raise ValueError(
            f"masks: expected values in [0, 1], found {low:.4g} to {high:.4g}; divide 8-bit images by 255"
        )
    if not bool(((masks >= 0.5).sum((1, 2)) > 0).all()):
        raise ValueError(
            "masks: expected something in every mask (values in [0, 1]), found an empty one; drop it"
        )
    if cameras is not None and (cameras.batch_shape != (N,) or cameras.size != (H, W)):
        raise ValueError(
            f"cameras: expected batch ({N},) and size {(H, W)} as masks, found {tuple(cameras.batch_shape)} "
            f"and {cameras.size}"
        )
