"""Variational refinement of a flow: constant colours and gradients along it, smooth but for edges.

The energy is that of Brox et al. (2004) with robust penalties and normalised data terms, linearised around the flow
again and again, on the finest scale only: the flow it starts from has to be good to a few pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe.flow._refine_loops import data_terms, relax, smoothness
from geoframe.flow.descriptors import gradients, smooth


def refine_flow(
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    *,
    n_warps: int = 5,
    n_sweeps: int = 30,
    smoothness_weight: float = 1.0,
    colour_weight: float = 0.3,
    gradient_weight: float = 0.7,
    edge_decay: float = 5.0,
    sigma: float = 0.8,
) -> Tensor:
    """Move a flow to a minimum of the energy near by.

    Args:
        image0: (3, H, W) or (1, H, W) in [0, 1].
        image1: as `image0`, of its own size.
        flow: (2, H, W), pixels, from image 0 to image 1.
        n_warps: how often the images are compared anew.
        n_sweeps: of the linear solver, each time.
        smoothness_weight: of the penalty on the flow's gradient.
        colour_weight: of the constancy of colours.
        gradient_weight: of the constancy of their gradients.
        edge_decay: how fast the smoothness fades with the gradient of image 0.
        sigma: smoothing of both images, pixels.

    Returns:
        (2, H, W) float32.
    """
    H, W = check_shape(flow, "2 H W", "flow").values()
    check_shape(image0, f"C {H} {W}", "image0")
    check_int(n_warps, "n_warps", low=0)
    check_int(n_sweeps, "n_sweeps", low=1)
    first, second = (255 * smooth(x[None].float(), sigma)[0] for x in (image0, image1))
    gx, gy = gradients(first[None])
    steep = (gx.square() + gy.square()).sum(1)[0].sqrt() / 255
    keep = (smoothness_weight * torch.exp(-edge_decay * steep)).numpy()
    now, weights = flow.float().numpy().copy(), np.array([colour_weight, gradient_weight])
    for _ in range(n_warps):
        system = data_terms(first.numpy(), second.numpy(), now, weights)
        right, down = smoothness(now, keep)
        now = now + relax(system, now, right, down, n_sweeps)
    return torch.from_numpy(now)
