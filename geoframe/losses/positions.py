"""Losses of the positions of a template's vertices in images: masks, keypoints, the projected shape, other views.

Positions are (B, V, 2) in halves of the image's side from its middle, x right, y down: -1 to 1.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_choice, check_shape

FORMS = ("paper", "code")
_SAMPLES = 500  # pixels of the mask that have to be covered, as in the released code


def mask_distance(mask: Tensor) -> Tensor:
    """How far each pixel outside of a mask is from it.

    Args:
        mask: (B, H, W) bool; of an empty one all distances are 0.

    Returns:
        (B, H, W) float32 in halves of the shorter side; 0 inside.
    """
    from scipy.ndimage import distance_transform_edt

    check_shape(mask, "B H W", "mask")
    out = [
        torch.from_numpy(np.asarray(distance_transform_edt(~m.cpu().numpy()), dtype=np.float32))
        if bool(m.any())
        else torch.zeros(m.shape)
        for m in mask
    ]
    return torch.stack(out).to(mask.device) * (2 / min(mask.shape[-2:]))


def silhouette_consistency(points: Tensor, distance: Tensor) -> Tensor:
    """Mean distance of the points from the mask; 0 for points inside.

    Args:
        points: (B, V, 2).
        distance: (B, H, W), see `mask_distance`. The released code has it in pixels: multiply by half the side.

    Source: Kokkinos & Kokkinos 2021, section 3.4, the first part of L_Chamfer.
    """
    outside = (points.abs() - 1).clamp_min(0).sum(-1)  # beyond the border the distance goes on growing
    read = F.grid_sample(
        distance[:, None].to(points), points[:, :, None], padding_mode="border", align_corners=False
    )
    return (read[:, 0, :, 0] + outside).mean()


def silhouette_coverage(
    points: Tensor, mask: Tensor, *, form: str = "paper", samples: int = _SAMPLES, seed: int = 0
) -> Tensor:
    """Mean distance from pixels of the mask to the nearest point.

    Args:
        points: (B, V, 2).
        mask: (B, H, W) bool; an empty one costs nothing.
        form: "paper" takes the distance, "code" its square.
        samples: pixels drawn of each mask.
        seed: of the draw.

    Source: Kokkinos & Kokkinos 2021, section 3.4, the second part of L_Chamfer.
    """
    check_choice(form, FORMS, "form")
    H, W = mask.shape[-2:]
    draw = torch.Generator().manual_seed(seed)
    terms = []
    for p, m in zip(points, mask, strict=True):
        at = torch.nonzero(m).flip(1)
        if not len(at):
            terms.append(p.sum() * 0)
            continue
        at = at[torch.randint(len(at), (samples,), generator=draw).to(at.device)]
        pixels = (at.to(p) + 0.5) * p.new_tensor([2 / W, 2 / H]) - 1
        near = torch.cdist(pixels, p.detach()).argmin(1)
        away = (pixels - p[near]).square().sum(-1)
        terms.append((away if form == "code" else (away + 1e-12).sqrt()).mean())
    return torch.stack(terms).mean()


def cycle_loss(points: Tensor, projected: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared distance between points and the projected shape.

    Args:
        points: (B, V, 2).
        projected: (B, V, 2); gradients go where the caller lets them.
        mask: (B, H, W) bool; given, only vertices count whose projection is inside it, as in the released code.
    """
    away = (points - projected).square().sum(-1)
    if mask is None:
        return away.mean()
    inside = (
        F.grid_sample(
            mask[:, None].to(points), projected.detach()[:, :, None], mode="nearest", align_corners=False
        )[:, 0, :, 0]
        > 0.5
    )
    return (away * inside).sum() / inside.sum().clamp_min(1)


def edge_consistency(points: Tensor, projected: Tensor, edges: Tensor) -> Tensor:
    """Mean squared difference of the edges' lengths among points and in the projected shape.

    Args:
        points: (B, V, 2).
        projected: (B, V, 2).
        edges: (E, 2) vertices.

    Source: the released code of To The Point; not in the paper.
    """

    def lengths(x: Tensor) -> Tensor:
        return ((x[:, edges[:, 0]] - x[:, edges[:, 1]]).square().sum(-1) + 1e-12).sqrt()

    return (lengths(points) - lengths(projected)).square().mean()


def visibility_loss(logits: Tensor, seen: Tensor, *, form: str = "paper") -> Tensor:
    """Difference between predicted visibility and that of the z-buffer.

    Args:
        logits: (B, V).
        seen: (B, V) bool.
        form: "paper" the absolute difference of probabilities, "code" the squared one, "entropy" the cross entropy.
    """
    check_choice(form, (*FORMS, "entropy"), "form")
    truth = seen.to(logits)
    if form == "entropy":
        return F.binary_cross_entropy_with_logits(logits, truth)
    off = logits.sigmoid() - truth
    return off.abs().mean() if form == "paper" else off.square().mean()


def keypoint_loss(projected: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute distance of projected keypoints from annotated ones, over the known ones.

    Args:
        projected: (B, L, 2).
        points: (B, L, 2); what is not known may be NaN.
        weights: (B, L), 0 for keypoints that are not known.
    """
    known = weights > 0
    away = torch.where(known[..., None], projected - torch.where(known[..., None], points, 0.0), 0.0)
    return (weights * away.abs().sum(-1)).sum() / weights.sum().clamp_min(1e-9)


def equivariance_loss(points: Tensor, moved: Tensor, *, form: str = "paper") -> Tensor:
    """Difference between the points of a transformed image and the transformed points of the image.

    Args:
        points: (B, V, 2) of the transformed image.
        moved: (B, V, 2), taken as constant.
        form: "paper" the absolute difference, "code" the squared one.
    """
    check_choice(form, FORMS, "form")
    off = points - moved.detach()
    return off.abs().sum(-1).mean() if form == "paper" else off.square().sum(-1).mean()


def flip_pose_loss(R: Tensor, other: Tensor, reflection: Tensor) -> Tensor:
    """Angle between the pose of a flipped image and the flipped pose, in radians, averaged.

    The flipped image of a mirror-symmetric object shows it turned by ``F R S``: S the object's own reflection, F the
    flip of the image's x axis.

    Args:
        R: (B, 3, 3) rotations in the images.
        other: (B, 3, 3) rotations in the flipped images.
        reflection: (3, 3) S.
    """
    flip = torch.diag(R.new_tensor([-1.0, 1.0, 1.0]))
    wanted = flip @ R @ reflection.to(R)
    chord = (wanted - other).square().sum((1, 2)) / 8  # sin^2 of half the angle
    return 2 * torch.asin(chord.clamp(1e-12, 1 - 1e-7).sqrt()).mean()


def heat_loss(heat: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of heat maps and the places where their points are: learns faster than the mean of the map does.

    Args:
        heat: (B, P, h, w) logits.
        points: (B, P, 2), each shared among the four cells around it; those outside count at the border.
        weights: (B,) of the images.
    """
    h, w = heat.shape[-2:]
    logs = heat.flatten(2).log_softmax(-1)
    at = (points + 1) / 2 * points.new_tensor([w, h]) - 0.5
    at = torch.stack([at[..., 0].clamp(0, w - 1), at[..., 1].clamp(0, h - 1)], -1)
    low = at.floor().clamp_max(at.new_tensor([max(w - 2, 0), max(h - 2, 0)]))
    part = at - low
    total = torch.zeros_like(at[..., 0])
    for i in range(2):
        for j in range(2):
            cell = (low[..., 1] + j).clamp_max(h - 1) * w + (low[..., 0] + i).clamp_max(w - 1)
            share = (part[..., 0] if i else 1 - part[..., 0]) * (part[..., 1] if j else 1 - part[..., 1])
            total = total - share * logs.gather(2, cell.long()[..., None])[..., 0]
    return (weights[:, None] * total).mean()
