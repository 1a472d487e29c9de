"""Training pictures explained by themselves: where the vertices of a template are believed to be in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoframe.fitting.collections import (
    Collection,
    CollectionLosses,
    Latents,
    fit_collection,
    on_screen,
    posed,
    poses_of_keypoints,
)
from geoframe.fitting.hypotheses import mask_hypotheses
from geoframe.fitting.views import moments_of
from geoframe.layers.shape_modes import ShapeModes
from geoframe.render import rasterize
from geoframe.solve.pose import solve_pose
from geoframe.surface.mesh import Mesh

_KNOWN_PRIOR = 0.003  # of coefficients of known modes: 1.07 pixels of 300 horses, 1.13 with .01
_ROUNDS = 2  # of fits, the modes made standard between them
_MARK_STEPS = 150  # of a round of fits to the keypoints alone, which cost next to nothing
_MARK_BATCH = 2000  # pictures of such a step
_MARK_PACE = {"pace": 2.0, "rate": 0.01}
_GENTLE = {"pace": 0.25, "rate": 0.001}  # of what follows: full steps undo what the keypoints told
_MASK_PACE = (
    3.0  # of 100 cars the best of four hypotheses is 15.9 degrees off, at half the steps and pace 1 17.7
)
_BELIEVED = 0.9  # share of the pictures with correspondences
_MOST_SAID = 2.0  # weight of a vertex of which many pixels speak
_AT_ONCE = 64  # pictures whose poses are looked for
_MOVES = 3  # of rigid poses to the masks' areas and centroids
_MOST_POINTS = 160  # vertices that these are looked for by, those of which most is said
_FEWEST = 4  # keypoints that give a pose


class Explained(NamedTuple):
    """What is believed of n pictures, by each of H hypotheses.

    Attributes:
        points: (n, H, V, 2) in halves of the side from the middle.
        seen: (n, H, V) bool.
        belief: (n, H) of sum 1, or 0 for pictures that nothing is believed of.
        rotation: (n, H, 3, 3).
        lens: mean perspective.
    """

    points: Tensor
    seen: Tensor
    belief: Tensor
    rotation: Tensor
    lens: float


def explain(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    *,
    keypoints: bool,
    points: list[tuple[Tensor, Tensor, Tensor]] | None,
    learn_shape: bool,
    up: Tensor | None,
    losses: CollectionLosses,
    epochs: int,
    seed: int,
    progress: Callable[[str, float], None] | None,
) -> Explained:
    """Explain pictures by what there is: keypoints, or else correspondences, or else masks alone.

    Args:
        collection: of the pictures.
        shape: mean shape and modes; they are learned from keypoints alone.
        faces: (F, 3) of the template.
        keypoints: whether the collection has any.
        points: correspondences, see `explain_by_points`; None for none.
        learn_shape: whether mean shape and modes are not known.
        up: see `explain_by_masks`.
        losses: of the fits; what keeps a shape from bending is left out where it is known how shapes bend.
        epochs: of the fits, but of those to masks alone.
        seed: of everything random.
        progress: called with (text, share done).
    """
    if not learn_shape:
        losses = replace(losses, arap=0.0, arap_modes=0.0, smooth=0.0, prior=_KNOWN_PRIOR)
    settings: dict[str, Any] = {"losses": losses, "seed": seed, "progress": progress}
    if keypoints:
        return explain_by_keypoints(
            collection, shape, faces, epochs=epochs, learn_shape=learn_shape, **settings
        )
    if learn_shape:
        shape.modes.data.zero_()  # nothing teaches them: what bends to a wrong pose or point would be learned
    if points is not None:
        return explain_by_points(
            collection, shape, faces, points, epochs=epochs, learn_shape=False, **settings
        )
    return explain_by_masks(collection, shape, faces, up=up, **settings)


def explain_by_keypoints(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    *,
    losses: CollectionLosses,
    epochs: int = 5,
    learn_shape: bool = True,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Explained:
    """Poses, coefficients, mean shape and modes from the keypoints alone, then from keypoints and masks.

    Masks come last since a step with them costs a hundred times as much: of 400 cars, poses that saw ten such steps
    only were wrong by 5.6 degrees in the median, those that saw 300 steps with keypoints before by 2.9.

    Args:
        collection: n pictures.
        shape: template and modes; learned in place.
        faces: (F, 3).
        losses: weights.
        epochs: of each of two rounds.
        learn_shape: False leaves mean shape and modes as they are.
        seed: of the order.
        progress: called with (text, share done).

    Raises:
        ValueError: no picture with four keypoints.
    """
    start = poses_of_keypoints(collection, shape)
    ok = torch.isfinite(start.log_scale)
    if not bool(ok.any()):
        raise ValueError(
            f"keypoints: expected at least {_FEWEST} visible ones in some picture, found none; train without them"
        )
    rows = torch.nonzero(ok)[:, 0]
    latents = start.take(rows)._replace(perspective=torch.full((len(rows),), losses.lens))
    part = collection.take(rows)
    latents = _marks_then_masks(part, shape, faces, latents, losses, epochs, learn_shape, seed, progress)
    return _spread_out(latents, shape, faces, rows, len(ok), collection.masks.shape[-1])


def explain_by_points(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    points: list[tuple[Tensor, Tensor, Tensor]],
    *,
    losses: CollectionLosses,
    epochs: int = 5,
    learn_shape: bool = True,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Explained:
    """As `explain_by_keypoints`, from many uncertain correspondences of each picture, such as those of a `PixelMap`.

    A rigid template stays in the robust poses of the correspondences, moved and scaled to the masks; modes are
    fitted with poses. The tenth of the pictures whose masks are explained worst is not believed: of 162 horses
    they were off by 7.7 pixels of 64, the others by 2.0.

    Args:
        collection: n pictures; their keypoints are not looked at.
        shape: template and modes; learned in place.
        faces: (F, 3).
        points: for each picture positions (m, 2) in halves of the side from the middle, vertices (m,), weights (m,).
        losses: weights.
        epochs: of each of two rounds.
        learn_shape: False leaves mean shape and modes as they are.
        seed: of the order.
        progress: called with (text, share done).

    Raises:
        ValueError: no picture whose correspondences give a pose.
    """
    rest = shape.template().detach().double()
    at, weights = _of_vertices(points, len(rest))
    enough = torch.nonzero((weights > 0).sum(1) >= _FEWEST)[:, 0]
    heaviest = weights.topk(min(_MOST_POINTS, len(rest)), dim=1).indices  # of many vertices nothing is said
    found = [
        solve_pose(
            at[i][torch.arange(len(i))[:, None], heaviest[i]].double(),
            weights[i].gather(1, heaviest[i]).double(),
            rest[heaviest[i]],
            scale="free",
            loss="geman-mcclure",
        )
        for i in enough.split(_AT_ONCE)
        if len(i)
    ]
    ok = torch.cat([s.converged for s in found]) if found else torch.zeros(0, dtype=torch.bool)
    if not bool(ok.any()):
        raise ValueError("points: expected correspondences that give a pose in some picture, found none")
    rows = enough[ok]
    alpha = 0.1 * torch.randn(len(rows), shape.n_modes, generator=_draw(seed))
    R, t, scale = (torch.cat([getattr(s, name) for s in found])[ok].float() for name in ("R", "t", "scale"))
    latents = Latents.of(R, t, scale, alpha, losses.lens)
    part = Collection(collection.masks[rows], at[rows], weights[rows], torch.arange(len(rest)))
    if bool(shape.basis().any()):
        latents = _marks_then_masks(part, shape, faces, latents, losses, epochs, learn_shape, seed, progress)
    else:  # fits that are not robust turn more of the poses away: of 148 cars 26 % were wrong, then 34 %
        latents = _as_large_as_masks(latents, shape, faces, part.masks)
    out = _spread_out(latents, shape, faces, rows, len(points), collection.masks.shape[-1])
    misfit = _misfit(latents, shape, faces, part, torch.arange(len(rows)))
    out.belief[rows[misfit > misfit.quantile(_BELIEVED)]] = 0.0
    return out


def _of_vertices(points: list[tuple[Tensor, Tensor, Tensor]], V: int) -> tuple[Tensor, Tensor]:
    """Mean positions (n, V, 2) of what is said of each vertex, and weights (n, V)."""
    at, weights = torch.zeros(len(points), V, 2), torch.zeros(len(points), V)
    for i, (where, vertex, weight) in enumerate(points):
        at[i].index_add_(0, vertex, (weight[:, None] * where).float())
        weights[i].index_add_(0, vertex, weight.float())
    return at / weights.clamp_min(1e-9)[..., None], weights.clamp(max=_MOST_SAID)


def explain_by_masks(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    *,
    losses: CollectionLosses,
    n: int = 4,
    up: Tensor | None = None,
    temperature: float = 0.03,
    epochs: int = 4,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Explained:
    """Pose hypotheses from the masks alone, each brought to its mask by the rigid template; the better, the likelier.

    Args:
        collection: n pictures; their keypoints are not looked at.
        shape: template and modes, which stay as they are: what bends to a wrong pose would be learned.
        faces: (F, 3).
        losses: weights.
        n: H, hypotheses a picture.
        up: the template's upward direction, see `mask_hypotheses`.
        temperature: of the belief, in the loss's unit.
        epochs: of the poses.
        seed: of the order.
        progress: called with (text, share done).
    """
    mesh = Mesh(shape.template().detach(), faces)
    found = mask_hypotheses(mesh, collection.masks, n=n, up=up)
    N, H = found.overlap.shape
    R, t, scale = (x.flatten(0, 1) for x in (found.R, found.t, found.scale))
    latents = Latents.of(R, t, scale, torch.zeros(N * H, shape.n_modes), losses.lens)
    rows = torch.arange(N).repeat_interleave(H)
    many = _without_keypoints(collection.take(rows))
    still = CollectionLosses(
        mask=losses.mask, coarse=losses.coarse, arap=0.0, prior=100.0, smooth=0.0, lens=losses.lens
    )
    latents, _ = fit_collection(
        many,
        shape,
        faces,
        latents,
        epochs=epochs,
        losses=still,
        learn_shape=False,
        pace=_MASK_PACE,
        seed=seed,
        progress=progress,
    )
    misfit = _misfit(latents, shape, faces, collection, rows).view(N, H)
    misfit = torch.where(found.overlap < 0, torch.inf, misfit)
    points, seen = posed(latents, shape, faces, collection.masks.shape[-1])
    V = points.shape[1]
    belief = torch.softmax(-misfit / temperature, 1)
    return Explained(
        points.view(N, H, V, 2), seen.view(N, H, V), belief, latents.R.view(N, H, 3, 3), losses.lens
    )


def believed(explained: Explained, points: Tensor, *, spread: float = 0.1) -> Explained:
    """Beliefs after a network that learned from them has had its say: hypotheses near its positions gain.

    Args:
        explained: of n pictures.
        points: (n, V, 2) what the network says.
        spread: distance at which a hypothesis counts for less by a factor of e.
    """
    away = (explained.points - points[:, None]).norm(dim=-1).mean(-1)
    logits = explained.belief.clamp_min(1e-12).log() - away / spread
    known = explained.belief.sum(1, keepdim=True) > 0
    return explained._replace(belief=torch.where(known, torch.softmax(logits, 1), 0.0))


def _marks_then_masks(
    collection: Collection,
    shape: ShapeModes,
    faces: Tensor,
    latents: Latents,
    losses: CollectionLosses,
    epochs: int,
    learn_shape: bool,
    seed: int,
    progress: Callable[[str, float], None] | None,
) -> Latents:
    """Fits to the keypoints alone, then to keypoints and masks."""
    marks = replace(losses, mask=0.0, coarse=0.0, arap=0.0)
    gentle: dict[str, Any] = _GENTLE if learn_shape else {}
    stages = ((marks, _MARK_STEPS, {"batch": _MARK_BATCH, **_MARK_PACE}), (losses, epochs, gentle))
    for part, often, settings in stages:
        for k in range(_ROUNDS):
            latents, _ = fit_collection(
                *(collection, shape, faces, latents),
                epochs=often,
                losses=part,
                seed=seed + k,
                progress=progress,
                learn_shape=learn_shape,
                **settings,
            )
            if shape.n_modes and learn_shape:
                latents = latents._replace(alpha=shape.standardise(latents.alpha))
    return latents


@torch.no_grad()
def _misfit(
    latents: Latents, shape: ShapeModes, faces: Tensor, collection: Collection, rows: Tensor
) -> Tensor:
    """(n H,) difference of silhouettes and masks, in parts of the masks' area."""
    S, out = collection.masks.shape[-1], []
    for part in torch.arange(len(rows)).split(64):
        few = latents.take(part)
        drawn = rasterize(on_screen(few.project(shape(few.alpha)), S), faces, (S, S)).mask
        masks = collection.masks[rows[part]]
        out.append((drawn.float() - masks).abs().sum((1, 2)) / masks.sum((1, 2)).clamp_min(1))
    return torch.cat(out)


@torch.no_grad()
def _as_large_as_masks(latents: Latents, shape: ShapeModes, faces: Tensor, masks: Tensor) -> Latents:
    """Rigid poses moved and scaled until their silhouettes have the masks' areas and centroids.

    Uncertain correspondences tell rotations, but pull vertices towards each other: scales come out too small.
    """
    S = masks.shape[-1]
    centre, size = moments_of(masks.float())
    for _ in range(_MOVES):
        parts = torch.arange(len(masks)).split(_AT_ONCE)
        screens = [on_screen(part.project(shape(part.alpha)), S) for part in map(latents.take, parts)]
        drawn = torch.cat([rasterize(screen, faces, (S, S)).mask for screen in screens])
        middle, wide = moments_of(drawn.float())
        shown = drawn.flatten(1).any(1)
        ratio = torch.where(shown, size / wide.clamp_min(1e-6), 1.0)
        t = latents.t + shown[:, None] * (centre - middle) * (2 / S)
        latents = latents._replace(t=t, log_scale=latents.log_scale + ratio.log())
    return latents


def _spread_out(
    latents: Latents, shape: ShapeModes, faces: Tensor, rows: Tensor, n: int, size: int
) -> Explained:
    """One hypothesis for some of n pictures, none for the others."""
    points, seen = posed(latents, shape, faces, size)
    V = points.shape[1]
    out = Explained(
        torch.zeros(n, 1, V, 2),
        torch.zeros(n, 1, V, dtype=torch.bool),
        torch.zeros(n, 1),
        torch.eye(3).expand(n, 1, 3, 3).clone(),
        float(latents.perspective.mean()),
    )
    out.points[rows, 0], out.seen[rows, 0] = points.detach(), seen
    out.belief[rows, 0], out.rotation[rows, 0] = 1.0, latents.R.detach()
    return out


def _without_keypoints(collection: Collection) -> Collection:
    return collection._replace(weights=torch.zeros_like(collection.weights))


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
