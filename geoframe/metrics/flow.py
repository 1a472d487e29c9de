"""Measures of optical flow and of matches between images."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_shape


def endpoint_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Distance between a flow and the truth, pixels.

    Args:
        flow: (..., 2, H, W), NaN where nothing is known to the method.
        truth: as `flow`, NaN where there is no truth.

    Returns:
        (n,) of the pixels with a truth; infinity where the flow has none.
    """
    sizes = check_shape(truth, "... 2 H W", "truth")
    check_shape(flow, f"... 2 {sizes['H']} {sizes['W']}", "flow")
    known = torch.isfinite(truth).all(-3)
    error = (flow - truth).norm(dim=-3)[known]
    return torch.where(torch.isfinite(error), error, torch.inf)


def flow_measures(flow: Tensor, truth: Tensor, *, occluded: Tensor | None = None) -> dict[str, float]:
    """The usual numbers of one pair of images.

    Args:
        flow: (2, H, W); NaN counts as wrong, and is left out of the mean.
        truth: (2, H, W); NaN where it is unknown.
        occluded: (H, W) bool; adds the same numbers of the pixels that both images show.

    Returns:
        epe (mean endpoint error, pixels), acc1, acc2, acc3, acc5, acc10 (percent of pixels within so many pixels),
        known (percent of pixels that have a flow), and with `occluded` the same as noc_...
    """
    numbers = _numbers(endpoint_error(flow, truth))
    if occluded is not None:
        seen = torch.where(occluded, torch.nan, truth)
        numbers |= {f"noc_{name}": value for name, value in _numbers(endpoint_error(flow, seen)).items()}
    return numbers


def _numbers(error: Tensor) -> dict[str, float]:
    known = torch.isfinite(error)
    n = max(len(error), 1)
    numbers = {"epe": float(error[known].double().mean()) if bool(known.any()) else float("nan")}
    numbers |= {f"acc{t}": 100 * int((error <= t).sum()) / n for t in (1, 2, 3, 5, 10)}
    return numbers | {"known": 100 * int(known.sum()) / n}


def spread_matches(
    points0: Tensor, points1: Tensor, score: Tensor, size: tuple[int, int], *, radius: float | None = 8.0
) -> Tensor:
    """Give each pixel the displacement of a match near it: how quasi-dense matches are judged.

    Args:
        points0: (N, 2) x and y in image 0, pixels.
        points1: (N, 2) in image 1.
        score: (N,) the higher the better.
        size: (H, W) of image 0.
        radius: pixels; of the matches within so many pixels along both axes the one with the highest score counts.
            None takes the nearest match, however far.

    Returns:
        (2, H, W); NaN where no match is near.

    Source: accuracy@T of Revaud et al. (2016), as the paper uses it.
    """
    H, W = size
    N = check_shape(points0, "N 2", "points0")["N"]
    check_shape(points1, f"{N} 2", "points1")
    check_shape(score, f"{N}", "score")
    motion = (points1 - points0).T.float()
    if radius is None:
        from scipy.spatial import cKDTree

        rows, columns = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
        pixels = torch.stack([columns, rows], -1).reshape(-1, 2).numpy()
        return motion[:, torch.from_numpy(cKDTree(points0.numpy()).query(pixels)[1])].reshape(2, H, W)
    flow = motion.new_full((2, H, W), torch.nan)
    for i in score.argsort().tolist():  # the best is written last
        x, y = points0[i].tolist()
        top, left = max(0, int(-((radius + 0.5 - y) // 1))), max(0, int(-((radius + 0.5 - x) // 1)))
        flow[:, top : int(y + radius + 0.5), left : int(x + radius + 0.5)] = motion[:, i, None, None]
    return flow
