"""The motion of most pixels: found among others, what is left moves otherwise; Otsu's threshold by its definition."""

from __future__ import annotations

import pytest
import torch

from geoframe.flow import dominant_motion, moving_pixels, otsu_threshold, pixel_grid


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A flow, the affine motion of most of it, and where it is another."""
    x, y = pixel_grid(40, 60, like=torch.zeros(0))
    back = torch.stack([0.02 * x - 0.01 * y + 3, 0.03 * y - 1])
    moving = torch.zeros(40, 60, dtype=torch.bool)
    moving[10:30, 20:40] = True
    return torch.where(moving, back + 6, back), back, moving


def test_the_motion_of_most_pixels_is_found_whatever_the_others_do():
    flow, back, moving = scene()
    torch.testing.assert_close(dominant_motion(flow), back, atol=1e-3, rtol=0)
    assert torch.equal(moving_pixels(flow), moving)
    unknown = flow.clone()
    unknown[:, :5] = torch.nan
    torch.testing.assert_close(dominant_motion(unknown), back, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="at least 3 pixels with a known flow, found 0"):
        dominant_motion(torch.full((2, 4, 4), torch.nan))


def test_otsu_splits_where_the_variance_within_is_least():
    values = torch.cat([torch.linspace(0, 1, 50), torch.linspace(4, 6, 20)])
    cut = otsu_threshold(values)
    assert 1 <= cut <= 4

    def within(c: float) -> float:
        groups = values[values <= c], values[values > c]
        return sum(float((g - g.mean()).square().sum()) for g in groups if len(g))

    assert all(within(cut) <= within(float(c)) + 1e-4 for c in values[1:-1])
    assert otsu_threshold(torch.full((5,), 2.0)) == 2.0
