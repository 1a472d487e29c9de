"""One template, a few modes of deformation and many pictures: shapes and poses learned together, without a network.

Every picture has a pose and coefficients of its own; the mean shape and the modes are those of all. What one picture
does not show, such as its depth, others do: that is why modes learned from outlines and a few keypoints become three
dimensional.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from geoframe._check import check_float, check_int, check_shape
from geoframe.layers.shape_modes import ShapeModes
from geoframe.render import rasterize, vertex_visibility
from geoframe.solve.arap import Arap
from geoframe.solve.pose import solve_pose
from geoframe.surface.mesh import Mesh
from geoframe.transforms import rotvec_to_rotation

BETAS = (0.9, 0.98)
_RATES = {"turn": 0.01, "t": 0.01, "log_scale": 0.005, "alpha": 0.05, "perspective": 0.01}
_NEAREST = 0.5  # least of 1 + perspective z: nearer points would be at the eye


class Latents(NamedTuple):
    """Poses and coefficients of n pictures; positions in halves of the pictures' side from their middle.

    Attributes:
        R: (n, 3, 3) rotations, world to camera, before `turn`.
        turn: (n, 3) rotation vectors, applied after R.
        t: (n, 2) where the template's origin lands.
        log_scale: (n,) log of the scale.
        alpha: (n, K) coefficients.
        perspective: (n,) p in ``u = scale (R X)_xy / (1 + p (R X)_z) + t``: the template's size over its distance from
            the eye; 0 is weak perspective.
    """

    R: Tensor
    turn: Tensor
    t: Tensor
    log_scale: Tensor
    alpha: Tensor
    perspective: Tensor

    @classmethod
    def of(
        cls, R: Tensor, t: Tensor, scale: Tensor, alpha: Tensor, perspective: float | Tensor = 0.0
    ) -> Latents:
        """From poses ``u = scale (R X)_xy + t`` and coefficients."""
        p = torch.as_tensor(perspective, dtype=t.dtype).expand(len(t)).clone()
        return cls(R, torch.zeros_like(R[:, 0]), t, scale.log(), alpha, p)

    def take(self, rows: Tensor) -> Latents:
        """Some pictures."""
        return Latents(*(x[rows] for x in self))

    @property
    def rotation(self) -> Tensor:
        """(n, 3, 3)."""
        return rotvec_to_rotation(self.turn) @ self.R

    def project(self, shapes: Tensor) -> Tensor:
        """Points (n, V, 3) as (n, V, 3): x, y, and depth in the same unit."""
        return place(shapes, self.rotation, self.t, self.log_scale.exp(), self.perspective)


def place(verts: Tensor, R: Tensor, t: Tensor, scale: Tensor, perspective: Tensor | None = None) -> Tensor:
    """``scale (R X)_xy / (1 + p (R X)_z) + t`` and, behind it, ``scale (R X)_z``.

    Args:
        verts: (n, V, 3) X.
        R: (n, 3, 3).
        t: (n, 2).
        scale: (n,).
        perspective: (n,) p, or None for weak perspective.
    """
    turned = verts @ R.mT
    flat = turned[..., :2]
    if perspective is not None:
        flat = flat / (1 + perspective[:, None, None] * turned[..., 2:]).clamp_min(_NEAREST)
    scale = scale[:, None, None]
    return torch.cat([scale * flat + t[:, None], scale * turned[..., 2:]], -1)


def on_screen(placed: Tensor, size: int) -> Tensor:
    """Placed points (..., V, 3), in halves of the side from the middle, in pixels of pictures of size x size."""
    half = size / 2
    return half * (placed + placed.new_tensor([1.0, 1.0, 0.0]))


@dataclass(frozen=True)
class CollectionLosses:
    """What a collection is fitted by, with weights.

    Attributes:
        mask: of the difference of silhouette and mask, in parts of the mask's area.
        coarse: of the same on squares of 4 pixels, which tells outlines that are apart where to go.
        points: of the mean squared distance of the keypoints, beyond `reach` linear.
        reach: in halves of the side.
        prior: of the coefficients' squares.
        arap: of the as-rigid-as-possible energy of the shapes, per vertex.
        arap_modes: of the same energy of the mean shape, and of it with each mode added or taken away, per vertex:
            it does not grow with the number of pictures, and keeps what no keypoint tells.
        smooth: of the squares of the modes' and the mean's weights.
        perspective: of the squared difference of a picture's perspective from `lens`.
        lens: the usual perspective; 0 together with a large weight keeps to weak perspective.
    """

    mask: float = 1.0
    coarse: float = 0.5
    points: float = 20.0
    reach: float = 0.15
    prior: float = 0.002
    arap: float = 0.5
    arap_modes: float = 0.0
    smooth: float = 1e-3
    perspective: float = 1.0
    lens: float = 0.15


class Collection(NamedTuple):
    """What is known of n pictures.

    Attributes:
        masks: (n, S, S) in [0, 1].
        points: (n, L, 2) keypoints in halves of the side from the middle; NaN where unknown.
        weights: (n, L) of the keypoints, 0 where one is not seen.
        vertices: (L,) the template's vertex of each keypoint.
    """

    masks: Tensor
    points: Tensor
    weights: Tensor
    vertices: Tensor

    def take(self, rows: Tensor) -> Collection:
        """Some pictures."""
        return Collection(self.masks[rows], self.points[rows], self.weights[rows], self.vertices)


def poses_of_keypoints(collection: Collection, shape: ShapeModes, *, ridge: float = 0.05) -> Latents:
    """Poses and coefficients of pictures from their keypoints alone; those of fewer than four have scale NaN.

    Args:
        collection: n pictures.
        shape: template and modes.
        ridge: of the coefficients.
    """
    known = collection.weights > 0
    points = torch.where(known[..., None], collection.points, 0.0).double()
    verts, basis = shape.template().detach().double(), shape.basis().detach().double()
    at = collection.vertices
    found = solve_pose(
        *(points, collection.weights.double(), verts[at], basis[:, at]),
        ridge=ridge,
        scale="free",
        mode="joint",
    )
    enough = (known.sum(1) >= 4) & found.converged
    scale = torch.where(enough, found.scale, torch.nan)
    return Latents.of(*(x.to(collection.masks) for x in (found.R, found.t, scale, found.alpha)))


def fit_collection(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    start: Latents,
    *,
    epochs: int = 10,
    batch: int = 32,
    losses: CollectionLosses | None = None,
    learn_shape: bool = True,
    rate: float = 0.003,
    pace: float = 1.0,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[Latents, list[float]]:
    """Improve poses and coefficients, and with them the mean shape and modes of all.

    Args:
        collection: n pictures.
        shape: changed in place where it is learned.
        faces: (F, 3) of the template.
        start: of the n pictures.
        epochs: how often each picture is looked at.
        batch: pictures a step.
        losses: weights; None for the usual ones.
        learn_shape: False leaves mean shape and modes as they are: pictures that were not learned from.
        rate: of the shape's weights.
        pace: factor of the rates of poses and coefficients: a picture's pose turns by at most 0.01 radians times
            this in a step.
        seed: of the order.
        progress: called with (text, share done).

    Returns:
        latents: with `turn` taken into R.
        history: mean loss of each epoch.

    Raises:
        TypeError, ValueError: shapes that do not fit.
    """
    n = check_shape(check_float(collection.masks, "masks"), "N S S", "masks")["N"]
    check_int(epochs, "epochs", low=1)
    weights = losses or CollectionLosses()
    arap = Arap(Mesh(shape.verts.detach(), faces)) if weights.arap or weights.arap_modes else None  # type: ignore[operator]
    table = {name: getattr(start, name).clone() for name in _RATES}
    moments = {name: (torch.zeros_like(x), torch.zeros_like(x)) for name, x in table.items()}
    count = torch.zeros(n)
    own = [shape.mean, shape.modes] if learn_shape else []
    optimiser = torch.optim.Adam(own, lr=rate, betas=BETAS) if own else None
    history, steps = [], 0
    total = epochs * max(n // batch, 1)
    for epoch in range(epochs):
        sums, seen = 0.0, 0
        for rows in _orders(n, batch, seed * 1_000_003 + epoch):
            leaves = {name: x[rows].requires_grad_() for name, x in table.items()}
            latents = Latents(start.R[rows], **leaves)
            loss = collection_loss(collection.take(rows), shape, faces, latents, weights, arap)
            found = torch.autograd.grad(loss * len(rows), [*leaves.values(), *own])
            speed = 1.0 if steps < 0.6 * total else max(0.1, 1 - (steps / total - 0.6) / 0.4)
            count[rows] += 1
            grads = dict(zip(leaves, found, strict=False))
            _row_step(table, moments, grads, rows, count[rows], pace * speed)
            if optimiser is not None:
                for parameter, g in zip(own, found[len(leaves) :], strict=True):
                    parameter.grad = g / len(rows)
                optimiser.param_groups[0]["lr"] = rate * speed
                optimiser.step()
            sums, seen, steps = sums + float(loss.detach()) * len(rows), seen + len(rows), steps + 1
            if progress is not None:
                progress(f"epoch {epoch + 1}/{epochs}, loss {sums / seen:.4f}", min(steps / total, 1.0))
        history.append(sums / seen)
    done = Latents(start.R, *(table[name] for name in _RATES))
    return done._replace(R=done.rotation, turn=torch.zeros_like(done.turn)), history


def collection_loss(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    latents: Latents,
    losses: CollectionLosses,
    arap: Arap | None,
) -> Tensor:
    """The mean loss of pictures; differentiable in latents and shape.

    Args:
        collection: B pictures.
        shape: template and modes.
        faces: (F, 3).
        latents: of the pictures.
        losses: weights.
        arap: of the template, or None to leave that out.
    """
    whole = bool(losses.arap and arap is not None) or bool(losses.mask)
    shapes = shape(latents.alpha) if whole else None
    total = losses.prior * latents.alpha.square().sum(1).mean()
    if losses.perspective:
        total = total + losses.perspective * (latents.perspective - losses.lens).square().mean()
    if losses.smooth:
        total = total + losses.smooth * (shape.mean.square().sum() + shape.modes.square().sum())
    if shapes is not None and losses.arap and arap is not None:
        total = total + losses.arap * arap.energy(shapes).mean() / shapes.shape[-2]
    if losses.arap_modes and arap is not None:
        rest, B = shape.template(), shape.basis()
        total = total + losses.arap_modes * arap.energy(
            torch.cat([rest[None], rest + B, rest - B])
        ).mean() / len(rest)
    if shapes is not None and losses.mask:
        S = collection.masks.shape[-1]
        alpha = rasterize(on_screen(latents.project(shapes), S), faces, (S, S)).alpha
        area = collection.masks.sum((1, 2)).clamp_min(1)
        off = (alpha - collection.masks).abs().sum((1, 2)) / area
        total = total + losses.mask * off.mean()
        if losses.coarse:
            both = F.avg_pool2d(torch.stack([alpha, collection.masks], 1), 4)
            off = 16 * (both[:, 0] - both[:, 1]).abs().sum((1, 2)) / area
            total = total + losses.coarse * off.mean()
    if losses.points and bool((collection.weights > 0).any()):
        at = collection.vertices
        marked = shape(latents.alpha, at) if shapes is None else shapes[:, at]
        placed = latents.project(marked)[..., :2]
        known = collection.weights > 0
        away = (placed - torch.where(known[..., None], collection.points, placed.detach())).square().sum(-1)
        reach = losses.reach
        cost = torch.where(away < reach**2, away, 2 * reach * (away + 1e-12).sqrt() - reach**2)
        share = (collection.weights * cost).sum(1) / collection.weights.sum(1).clamp_min(1e-9)
        total = total + losses.points * share.mean()
    return total


def _orders(n: int, batch: int, seed: int) -> Iterator[Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    yield from order.split(batch)


@torch.no_grad()
def _row_step(
    table: dict[str, Tensor],
    moments: dict[str, tuple[Tensor, Tensor]],
    grads: dict[str, Tensor],
    rows: Tensor,
    count: Tensor,
    speed: float,
) -> None:
    """Adam on some rows, each with a count of its own steps."""
    first, second = 1 - BETAS[0] ** count, 1 - BETAS[1] ** count
    for name, g in grads.items():
        like = (-1, *[1] * (g.ndim - 1))
        mean, square = moments[name]
        mean[rows] = mean[rows].lerp(g, 1 - BETAS[0])
        square[rows] = square[rows].lerp(g * g, 1 - BETAS[1])
        step = (mean[rows] / first.view(like)) / ((square[rows] / second.view(like)).sqrt() + 1e-8)
        table[name][rows] -= speed * _RATES[name] * step


def posed(latents: Latents, shape: ShapeModes, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where every vertex of fitted pictures is, and whether it is seen there.

    Args:
        latents: n.
        shape: template and modes.
        faces: (F, 3).
        size: pixels of the picture that visibility is found in.

    Returns:
        points: (n, V, 2) in halves of the side from the middle.
        seen: (n, V) bool.
    """
    points, seen = [], []
    with torch.no_grad():
        for rows in torch.arange(len(latents.t)).split(64):
            part = latents.take(rows)
            placed = part.project(shape(part.alpha))
            screen = on_screen(placed, size)
            points.append(placed[..., :2])
            seen.append(vertex_visibility(rasterize(screen, faces, (size, size)), faces, screen))
    return torch.cat(points), torch.cat(seen)
