"""Variational refinement: a small shift is found to a part of a pixel, a right flow stays."""

from __future__ import annotations

import torch

from geoframe.flow import refine_flow, warp_back
from geoframe.flow.descriptors import smooth


def texture(height: int = 48, width: int = 64) -> torch.Tensor:
    return smooth(torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)), 2.0)[0]


def test_half_a_pixel_is_found():
    image1 = texture()
    truth = torch.tensor([0.6, -0.4])[:, None, None].expand(2, 48, 64)
    image0 = warp_back(image1[None], truth[None])[0][0]
    found = refine_flow(image0, image1, torch.zeros(2, 48, 64))
    off = (found - truth).norm(dim=0)[4:-4, 4:-4]
    assert float(off.mean()) < 0.05 and float(off.max()) < 0.3


def test_equal_images_keep_no_flow():
    image = texture()
    still = refine_flow(image, image, torch.zeros(2, 48, 64))
    assert float(still.abs().max()) < 1e-4  # looking up a pixel at its own place rounds
    assert torch.equal(refine_flow(image, image, torch.ones(2, 48, 64), n_warps=0), torch.ones(2, 48, 64))


def test_it_is_the_same_however_many_threads(monkeypatch):
    image1 = texture()
    image0 = torch.roll(image1, 1, dims=2)
    flows = []
    for n in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        flows.append(refine_flow(image0, image1, torch.zeros(2, 48, 64)))
    assert torch.equal(*flows)
