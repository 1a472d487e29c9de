"""Losses of matches between images and of features that go with motion."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_choice, check_shape

FLOW_VARIANCE = 0.0036  # of normalised flow, as learned in the paper


def structured_hinge_loss(scores: Tensor, truth: Tensor, *, alpha: float = 1.0, sigma: float = 1.0) -> Tensor:
    """How far wrong displacements come near the score of the true one, or above it.

    ``mean_p sum_q max(0, alpha (1 - exp(-d^2 / 2 sigma^2)) + S(q | p) - S(q* | p))`` with the distance d of q to the
    true place q*, both in samples of the score map, q* rounded to the nearest sample.

    Args:
        scores: (B, H, W, K, K), a map of any level; minus infinity where there is no score.
        truth: (B, H, W, 2), the true displacement (down, right) in samples; NaN where it is unknown.
        alpha: the largest margin.
        sigma: how fast the margin grows, samples.

    Returns:
        A scalar; patches whose true place is unknown, outside the window or without a score are left out. 0 if there
        are no others.

    Source: section 2.2 of the paper; rounding and what is left out as in the authors' layer. We take the mean over
    patches where the paper takes the sum.
    """
    K = check_shape(scores, "B H W K K", "scores")["K"]
    check_shape(truth, " ".join(map(str, (*scores.shape[:3], 2))), "truth")
    radius = (K - 1) // 2
    place = torch.where(torch.isfinite(truth), truth, float(K)).round().long() + radius
    inside = ((place >= 0) & (place < K)).all(-1)
    y, x = place.clamp(0, K - 1).unbind(-1)
    flat = scores.reshape(*scores.shape[:3], K * K)
    right = flat.gather(3, (y * K + x)[..., None])[..., 0]
    used = inside & torch.isfinite(right)
    if not bool(used.any()):
        return scores.new_zeros(()) * flat[torch.isfinite(flat)].sum()
    at = torch.arange(K, device=scores.device)
    far = (at[:, None] - y[used][:, None, None]).square() + (at - x[used][:, None, None]).square()
    margin = alpha * (1 - torch.exp(-far.to(scores.dtype) / (2 * sigma**2)))
    hinge = (margin + scores[used] - right[used][:, None, None]).clamp(min=0)
    return torch.where(far > 0, hinge, 0.0).sum((1, 2)).mean()


def displacement_cross_entropy(
    scores: Tensor, truth: Tensor, *, temperature: float = 0.1, sigma: float = 0.7
) -> Tensor:
    """Cross entropy of all displacements of a patch, against a bump around the true one.

    ``-mean_p sum_q t(q) log softmax_q(S(q | p) / temperature)``, t a Gaussian of the distance to the true place, which
    is not rounded, with a sum of 1 over the places that have a score.

    Args:
        scores: (B, H, W, K, K), a map of any level; minus infinity where there is no score.
        truth: (B, H, W, 2), the true displacement (down, right) in samples; NaN where it is unknown.
        temperature: that scores are divided by.
        sigma: of the bump, samples.

    Returns:
        A scalar; patches whose true place is unknown, outside the window or far from all places with a score are left
        out. 0 if there are no others.

    Source: ours, in place of the paper's hinge loss (`structured_hinge_loss`): the sum of that over thousands of wrong
    places made descriptors worse in our trainings.
    """
    K = check_shape(scores, "B H W K K", "scores")["K"]
    check_shape(truth, " ".join(map(str, (*scores.shape[:3], 2))), "truth")
    if not (temperature > 0 and sigma > 0):
        raise ValueError(
            f"temperature, sigma: expected positive numbers, found {temperature:g} and {sigma:g}"
        )
    place = truth + (K - 1) // 2
    used = (torch.isfinite(place) & (place >= 0) & (place <= K - 1)).all(-1)
    y, x = place[used].to(scores.dtype)[..., None, None].unbind(1)
    chosen = scores[used]
    scored = torch.isfinite(chosen)
    at = torch.arange(K, device=scores.device, dtype=scores.dtype)
    bump = torch.exp(-((at[:, None] - y).square() + (at - x).square()) / (2 * sigma**2)) * scored
    mass = bump.sum((1, 2))
    known = mass > 1e-3
    if not bool(known.any()):
        return scores.new_zeros(()) * scores[torch.isfinite(scores)].sum()
    weight = (bump / mass.clamp(min=1e-3)[:, None, None])[known].flatten(1)
    logs = (chosen[known] / temperature).flatten(1).log_softmax(1)
    return -(weight * torch.where(scored[known].flatten(1), logs, 0.0)).sum(1).mean()


def displacement_in_samples(
    flow: Tensor, level: int, size: tuple[int, int], *, stride: int, step: int
) -> Tensor:
    """The true displacements of the patches of a level, in samples of its score maps.

    Args:
        flow: (B, 2, H, W), pixels, from image 0 to image 1; NaN where it is unknown.
        level: of the pyramid of `geoframe.layers.matching.deep_scores`.
        size: (h, w), the patches of that level.
        stride: pixels between patches.
        step: pixels between samples at level 0.

    Returns:
        (B, h, w, 2), down and right; NaN where it is unknown.
    """
    H, W = check_shape(flow, "B 2 H W", "flow")["H"], flow.shape[-1]
    before = stride // 2 if level == 0 else 0
    y, x = (
        (stride * torch.arange(n, device=flow.device) + before).clamp(max=limit - 1)
        for n, limit in zip(size, (H, W), strict=True)
    )
    return flow[:, :, y][..., x].flip(1).permute(0, 2, 3, 1) / (step * 2**level)


def feature_kernel(features: Tensor) -> Tensor:
    """A quarter of the cosine between the features of each two pixels.

    Args:
        features: (..., N, D).

    Returns:
        (..., N, N) in [-1/4, 1/4].

    Source: equation 2 of "Cross pixel optical-flow similarity" (Mahendran et al. 2018).
    """
    check_shape(features, "... N D", "features")
    unit = torch.nn.functional.normalize(features, dim=-1)
    return unit @ unit.mT / 4


def flow_kernel(flow: Tensor, variance: Tensor | float = FLOW_VARIANCE) -> Tensor:
    """How alike the motions of each two pixels are: ``exp(-|f - f'|^2 / (2 variance))``.

    Args:
        flow: (..., N, 2), normalised as by `normalise_flow`.
        variance: sigma squared; a positive number, or a scalar tensor that is learned.

    Returns:
        (..., N, N) in (0, 1].
    """
    check_shape(flow, "... N 2", "flow")
    apart = (flow[..., :, None, :] - flow[..., None, :, :]).square().sum(-1)
    return torch.exp(-apart / (2 * variance))


def normalise_flow(flow: Tensor, *, most: float = 56.0) -> Tensor:
    """Components of a flow in [-1, 1], on a scale of logarithms so that a few large ones do not count for all.

    Args:
        flow: of any shape, pixels.
        most: the component that becomes 1; larger ones do, too.

    Source: equation 7 of the paper.
    """
    size = torch.log1p(flow.abs()) / torch.log1p(torch.as_tensor(most, dtype=flow.dtype))
    return flow.sign() * size.clamp(max=1)


def kernel_alignment(kernel: Tensor, target: Tensor) -> Tensor:
    """Kernel target alignment, ``sum K K' / sqrt(sum K^2 sum K'^2)``; in [0, 1] for kernels, 1 for proportional ones.

    Args:
        kernel: (..., N, N).
        target: (..., N, N).

    Returns:
        (...).

    Source: equation 3 of the paper, where it is called a loss but is to be maximised.
    """
    sizes = check_shape(kernel, "... N N", "kernel")
    check_shape(target, f"... {sizes['N']} {sizes['N']}", "target")
    products = ((kernel * target).sum((-2, -1)), kernel.square().sum((-2, -1)), target.square().sum((-2, -1)))
    return products[0] / (products[1] * products[2]).sqrt().clamp(min=torch.finfo(kernel.dtype).tiny)


def flow_similarity_loss(
    features: Tensor, flow: Tensor, *, form: str = "ce", variance: Tensor | float = FLOW_VARIANCE
) -> Tensor:
    """How far the similarities of features are from those of motions.

    "kta" is one minus the kernel target alignment. "ce" is the cross entropy of the distributions that both kernels
    make of each pixel's similarities to the others, "ce-rev" the same with the two exchanged. In those distributions
    the pixel itself counts ``exp(0)``, whatever its kernel says: every pixel is like itself.

    Args:
        features: (B, N, D) of sampled pixels.
        flow: (B, N, 2) of the same, normalised as by `normalise_flow`.
        form: "kta", "ce" or "ce-rev".
        variance: of the kernel of motions.

    Returns:
        A scalar, the mean over images and, of "ce" and "ce-rev", over pixels, where the paper takes the sum.

    Source: equations 3 to 6 of the paper.
    """
    check_choice(form, ("kta", "ce", "ce-rev"), "form")
    N = check_shape(features, "B N D", "features")["N"]
    check_shape(flow, f"{features.shape[0]} {N} 2", "flow")
    ours, theirs = feature_kernel(features), flow_kernel(flow, variance)
    if form == "kta":
        return 1 - kernel_alignment(ours, theirs).mean()
    itself = torch.eye(N, dtype=torch.bool, device=features.device)
    log_ours, log_theirs = (k.masked_fill(itself, 0.0).log_softmax(-1) for k in (ours, theirs))
    first, second = (log_theirs, log_ours) if form == "ce" else (log_ours, log_theirs)
    return -(first.exp() * second).sum(-1).mean()
