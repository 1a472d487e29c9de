"""Fitting a template to masks, pose and shape by silhouettes without a network; pictures of such fits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from geoframe._check import check_int
from geoframe.camera import Camera, Pinhole, WeakPerspective
from geoframe.fitting._adam import Adam
from geoframe.fitting._input import ImageLandmarks, checked_marks, checked_masks
from geoframe.fitting._measures import hollow, stretch, turned_faces
from geoframe.fitting._modes import smooth_basis
from geoframe.fitting.points import PointFit
from geoframe.fitting.views import (
    Poses,
    Scene,
    ball,
    explained,
    mark_residuals,
    matched_turns,
    moments_of,
    moved,
    refined,
    shrunk,
)
from geoframe.render import rasterize, render, sample_image, soft_silhouette
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import farthest_points
from geoframe.transforms import Similarity, procrustes, rotation_angle, rotvec_to_rotation

FAR = math.radians(20)  # poses further apart are different answers
MARGIN, LEAST_MARGIN = (
    0.15,
    0.02,
)  # of the best energy, and in energies: "almost alike" (experiments/fit_birds)
# Poses that are refined. Of 24 silhouettes of a cat and a horse the true pose was missed twice with 8, once with 12 and
# never with 16 starts; nor was it with 16 in 48 others (experiments/fit_template). Several views tell more than one.
TRIED_ALONE, TRIED = 16, 8
CREDIBLE = 0.68  # quality below which the masks hardly show such an object (experiments/fit_birds)
HOLLOW = 0.02  # of a convex hull: what pixels alone leave empty
SAMPLE = 400  # vertices whose distances to the masks see across the image
LEAST_TURN = 0.2  # cosine between a face's normal and that at rest, about, below which it is pulled back
FLIP_WEIGHT = 10.0  # of the mean of their squared shortfall


class _Level(NamedTuple):
    side: int  # of the image, the shorter one
    width: float  # pixels: how far the border of the silhouette feels
    n_modes: int  # of the deformation, at most
    reach: float  # weight of the distances that see across the image


_LEVELS = (
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
        mesh: the posed and deformed template, in the world of the cameras.
        start: the template in the best of its rigid poses.
        pose: the similarity that brings the template nearest to `mesh`: its rotation, translation and scale.
        cameras: batch (N,), those given or those found.
        iou: (N,) of each mask with the hard silhouette, over the known pixels.
        masks: (N, H, W), those given.
        loss: (steps,) what was minimised, level after level.
        candidates: the rigid poses that came close, the best first. Without given cameras a camera each, batch
            (N, C); with cameras a similarity of the template each, batch (C,).
        energies: (N, C) or (C,) of the candidates, ascending: about the share of the mask's area where silhouette
            and mask differ, plus the landmarks' part; infinite where a view has fewer than C.
        ambiguous: (N,) or (1,) bool: another candidate more than 20 degrees away is almost as good as the first.
        flipped: share of the faces that the deformation turned over, against their normals at rest.
        stretch: root mean square of the logarithm of the edges' relative lengths.
        quality: in [0, 1], whether the masks show such an object at all. The root of the product of three, the mean
            over the views: the IoU before the deformation, the IoU after it, and how much of its convex hull the mask
            leaves empty over how much the rigid template's silhouette does, at most 1. A bird fitted to a letter has
            low IoU before; fitted to a disc it has high IoU throughout, but a disc has no wings, tail or neck that
            would leave some of its hull empty. Below CREDIBLE a warning is issued.
    """

    mesh: Mesh
    start: Mesh
    pose: Similarity
    cameras: Camera
    masks: Tensor
    iou: Tensor
    loss: Tensor
    candidates: WeakPerspective | Similarity
    energies: Tensor
    ambiguous: Tensor
    flipped: float
    stretch: float
    quality: float

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
    weights: Tensor | None = None,
    landmarks: ImageLandmarks | None = None,
    n_basis: int = 48,
    steps: int = 60,
    stiffness: float = 0.03,
    n_candidates: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> TemplateFit:
    """Rotate, move, scale and deform a template until its silhouettes are the masks.

    The pose comes first: all rotations are searched, the most promising ones are refined, and those that explain the
    masks are returned as candidates. Then the best one is deformed, coarse to fine: by smooth functions on the
    template, the lowest ones first, on larger and larger images.

    Args:
        mesh: the template, verts (V, 3). It may have several parts and open borders.
        masks: (N, H, W) in [0, 1], 1 where the object is; several views of one object.
        cameras: the N views, batch (N,). None gives each view a weak perspective camera of its own, found with the
            shape; the template then stays where it is, and the world is the template's.
        weights: (N, H, W) of the pixels, at least 0; 0 where nothing is known (hidden by other objects, say).
            None counts every pixel as known. Beyond the border of the image nothing is known.
        landmarks: 2D landmarks, used together with the masks. None for masks alone.
        n_basis: number of functions that deform the template, at least 0. 0 finds the pose only.
        steps: iterations a level, at least 1; there are five levels, four for masks below 192 pixels.
        stiffness: weight of the deformation's stretch, at least 0.
        n_candidates: number of poses that are refined, at least 1; by default 16 of each mask without cameras, 8 with.
        progress: called after every step with (step, number of steps, loss).

    Returns:
        TemplateFit, without gradient. Where two poses more than 20 degrees apart explain the masks almost alike,
        its `ambiguous` is true and a UserWarning is issued.

    Raises:
        TypeError: no floating masks; landmarks that are no `ImageLandmarks`.
        ValueError: shapes or devices that do not fit, an empty mask, one with NaN or outside [0, 1], negative weights.
    """
    masks, weights = checked_masks(mesh, masks, weights, cameras)
    marks = checked_marks(mesh, masks, landmarks)
    check_int(n_basis, "n_basis", low=0, high=mesh.n_verts - 2)
    check_int(steps, "steps", low=1)
    if n_candidates is None:
        n_candidates = TRIED_ALONE if cameras is None else TRIED
    check_int(n_candidates, "n_candidates", low=1)
    scene = Scene(mesh, masks, weights, marks, cameras)
    with torch.no_grad():
        start, views, found = _posed(scene, n_candidates)
    state = _State.begin(mesh, (len(masks),) if cameras is None else (), 2 if cameras is None else 3, n_basis)
    basis, sample = _modes(start, n_basis), farthest_points(start, min(SAMPLE, mesh.n_verts))
    losses: list[float] = []
    levels = _levels(min(masks.shape[1:]))
    for level in levels:
        modes = basis[:, : level.n_modes]
        loss_of = _loss_at(level, scene._replace(mesh=start, cameras=views), modes, sample, stiffness)
        descent = Adam(state.rates(modes.shape[1] > 0, min(1.0, 64 / level.side)))
        for i in range(steps):
            loss = loss_of(state)
            descent.step(loss, 0.1 ** (i / steps))  # to a tenth of the rate at the end of the level
            losses.append(float(loss.detach()))
            if progress is not None:
                progress(len(losses), steps * len(levels), losses[-1])
    with torch.no_grad():
        verts, found_views = state.posed(start, basis, views)
        fit = _judged(scene, start, views, verts, found_views, found, torch.tensor(losses))
    if fit.quality < CREDIBLE:
        warnings.warn(
            f"the template hardly explains the masks: quality {fit.quality:.2f}, expected at least {CREDIBLE}; do "
            "they show such an object, and all of it?",
            UserWarning,
            stacklevel=2,
        )
    if bool(fit.ambiguous.any()):
        warnings.warn(_ambiguity_message(fit), UserWarning, stacklevel=2)
    return fit


def _posed(scene: Scene, n: int) -> tuple[Mesh, Camera, list[tuple[Poses, Tensor]]]:
    """The template in its best pose, the cameras, and the candidates with their energies, one a view or one at all."""
    mesh, cameras, masks = scene.mesh, scene.cameras, scene.masks
    centre, _ = ball(mesh.verts)
    if cameras is None:
        found = [explained(scene.view(i), n) for i in range(len(masks))]
        best = Poses(*(torch.cat([poses[k][:1] for poses, _ in found]) for k in range(3)))
        H, W = masks.shape[1:]
        return mesh, best.camera(centre, (H, W)), found
    middle, scale = _placed(scene)
    eye = torch.eye(3, dtype=mesh.dtype, device=mesh.device)
    poses = matched_turns(scene, Poses(eye[None], middle[None], scale[None]), n)
    poses, energy = refined(scene, poses)
    return mesh.with_verts(moved(mesh.verts, centre, poses)[0]), cameras, [(poses, energy)]


def _judged(
    scene: Scene,
    start: Mesh,
    start_views: Camera,
    verts: Tensor,
    views: Camera,
    found: list[tuple[Poses, Tensor]],
    loss: Tensor,
) -> TemplateFit:
    """The fit with what tells how far it can be trusted."""
    mesh, known = scene.mesh, scene.weights > 0
    target = scene.masks > 0.5
    after, before = (
        rasterize(verts, mesh.faces, views).mask,
        rasterize(start.verts, mesh.faces, start_views).mask,
    )
    iou, rigid_iou = (
        (mask & target & known).sum((1, 2)) / ((mask | target) & known).sum((1, 2)).clamp_min(1)
        for mask in (after, before)
    )
    empty, expected = (hollow(mask & known).to(iou) for mask in (target, before))
    detail = ((empty + HOLLOW) / (expected + HOLLOW)).clamp_max(1)
    pose = procrustes(mesh.verts, verts, scale=True)
    turned = turned_faces(mesh, (verts - pose.t) @ pose.R)
    candidates, energies = _candidates(scene, found)
    return TemplateFit(
        mesh=mesh.with_verts(verts),
        start=start,
        pose=pose,
        cameras=views,
        masks=scene.masks,
        iou=iou,
        loss=loss,
        candidates=candidates,
        energies=energies,
        ambiguous=torch.stack([_rivals(*x) for x in found]),
        flipped=float((turned < 0).double().mean()),
        stretch=stretch(mesh, verts / pose.scale),
        quality=float((iou * rigid_iou * detail).sqrt().mean()),
    )


def _candidates(
    scene: Scene, found: list[tuple[Poses, Tensor]]
) -> tuple[WeakPerspective | Similarity, Tensor]:
    """The candidates as one batch; where a view has fewer than another its best one is repeated, at infinite energy."""
    centre, _ = ball(scene.mesh.verts)
    most = max(len(energy) for _, energy in found)
    rows = [torch.arange(most).where(torch.arange(most) < len(energy), 0) for _, energy in found]
    energies = torch.stack([pad(energy, (0, most - len(energy)), value=math.inf) for _, energy in found])
    if scene.cameras is not None:
        poses = found[0][0]
        t = poses.middle - poses.scale[:, None] * (poses.R @ centre)
        return Similarity(poses.R, t, poses.scale), energies[0]
    H, W = scene.masks.shape[1:]
    views = [poses.take(r).camera(centre, (H, W)) for (poses, _), r in zip(found, rows, strict=True)]
    R, t, scale = (torch.stack([getattr(v, k) for v in views]) for k in ("R_wc", "t", "scale"))
    return WeakPerspective(R, t, scale, (H, W)), energies


def _rivals(poses: Poses, energy: Tensor) -> Tensor:
    """() bool: whether a pose far from the best one explains the view almost as well."""
    close = energy <= (1 + MARGIN) * energy[0] + LEAST_MARGIN
    return (close & (rotation_angle(poses.R, poses.R[0]) > FAR)).any()


def _ambiguity_message(fit: TemplateFit) -> str:
    which = fit.ambiguous.nonzero()[:, 0].tolist()
    where = "the masks" if isinstance(fit.candidates, Similarity) else f"masks {which}"
    return (
        f"{where}: poses more than {math.degrees(FAR):.0f} degrees apart explain them almost alike; see candidates "
        "and energies of the fit, or add points or views"
    )


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

    def rates(self, deform: bool, speed: float) -> list[tuple[Tensor, float]]:
        """What is optimised, each with its rate."""
        rates = [(self.turn, 0.03), (self.shift, 0.02), (self.grow, 0.02)]
        if deform:
            rates.append((self.coefficients, 0.01))
        return [(x, speed * rate) for x, rate in rates]

    def shape(self, start: Mesh, basis: Tensor) -> Tensor:
        """Vertices (V, 3) before they are turned and moved."""
        _, radius = ball(start.verts)
        return start.verts + radius * (basis @ self.coefficients[: basis.shape[1]])

    def posed(self, start: Mesh, basis: Tensor, cameras: Camera) -> tuple[Tensor, Camera]:
        """Vertices (V, 3) in the world, and the cameras."""
        centre, radius = ball(start.verts)
        verts = self.shape(start, basis)
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


def _levels(side: int) -> list[_Level]:
    """The levels for images of a shorter side; one that would see no more than the one before is left out."""
    return [level for level in _LEVELS if level.side <= 128 or side >= 0.75 * level.side]


def _loss_at(
    level: _Level, scene: Scene, modes: Tensor, sample: Tensor, stiffness: float
) -> Callable[[_State], Tensor]:
    """The loss at one resolution.

    Squared difference of the silhouettes over the masks' area; squared distances of vertices to the masks and of the
    masks to them; of the landmarks; stretch of the deformation; faces that turn over.
    """
    start, masks, cameras, marks = scene.mesh, scene.masks, scene.cameras, scene.marks
    assert cameras is not None
    H, W = masks.shape[1:]
    factor = max(1, round(min(H, W) / level.side))
    weights, small = shrunk(scene.weights, factor), shrunk(scene.weights * masks, factor)
    size = small.shape[1], small.shape[2]
    padded = size[0] * factor, size[1] * factor
    half = min(size) / 2
    if level.reach:
        inside = torch.stack([_inside(m, 200) for m in small])
        distance = torch.stack(
            [_distance(torch.maximum(m, 1 - w)) for m, w in zip(small, weights, strict=True)]
        )
        distance = distance[:, None] / half

    def loss_of(state: _State) -> Tensor:
        shape = state.shape(start, modes)
        verts, views = state.posed(start, modes, cameras)
        fine = replace(views, size=padded).resized((2 * size[0], 2 * size[1]))
        alpha = _silhouette(verts, start.faces, fine, level.width / half)
        loss = (weights * alpha - small).square().sum() / small.sum()
        if level.reach:
            points = fine.project(verts[sample])[..., :2] / 2
            outside = sample_image(distance, points).square().mean()
            missed = torch.cdist(inside, points).amin(-1).square().mean() / half**2
            loss = loss + 10 * level.reach * (outside + missed)
        if marks is not None:
            loss = (
                loss
                + mark_residuals(marks, masks * scene.weights, views.project(marks.places @ verts))
                .square()
                .sum()
            )
        if not modes.shape[1]:
            return loss
        over = (LEAST_TURN - turned_faces(start, shape)).clamp_min(0).square().mean()
        return loss + stiffness * state.coefficients[: modes.shape[1]].square().sum() + FLIP_WEIGHT * over

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


def _modes(mesh: Mesh, k: int) -> Tensor:
    """The k lowest eigenfunctions after the constant (V, k), each scaled to the same Dirichlet energy, so that the
    squared coefficients of an offset measure how much it stretches the surface."""
    if k == 0:
        return mesh.verts.new_zeros(mesh.n_verts, 0)
    basis = smooth_basis(mesh, k)
    return basis.vecs * (basis.mass.sum() * basis.vals[0] / basis.vals).sqrt()


def _placed(scene: Scene) -> tuple[Tensor, Tensor]:
    """Where the template's middle is to lie (3,), where the masks' centroids meet, and its scale, by their areas."""
    mesh, cameras = scene.mesh, scene.cameras
    assert cameras is not None
    masks = scene.masks * scene.weights
    target, size = moments_of(masks)
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
    centre, radius = ball(mesh.verts)
    pixel = (
        cameras.focal.mean(-1) / cameras.to_camera(middle[None])[:, 0, 2]
        if isinstance(cameras, Pinhole)
        else cameras.scale
    )
    scale = (size / pixel).mean() / radius
    for _ in range(3):
        verts = (mesh.verts - centre) * scale + middle
        seen = rasterize(verts, mesh.faces, cameras).mask.to(masks.dtype)
        scale = scale * (size.mean() / moments_of(seen.clamp_min(1e-6))[1].mean())
    return middle, scale
