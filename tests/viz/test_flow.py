"""Pictures of flow: hues are directions, unknown pixels black; matches are drawn where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.models.deep_matching import ImageMatches
from geoframe.viz.flow import draw_image_matches, flow_colors


def test_directions_are_hues_and_lengths_are_saturation():
    flow = torch.zeros(2, 1, 5)
    flow[0, 0] = torch.tensor([0.0, 4.0, 2.0, -4.0, torch.nan])
    colors = flow_colors(flow, most=4.0)[0].astype(int)
    assert colors[0].tolist() == [255, 255, 255] and colors[4].tolist() == [0, 0, 0]
    assert colors[1].tolist() == [255, 0, 0]  # to the right is red, as everywhere in the field
    assert abs(colors[2] - (colors[1] + 255) / 2).max() <= 1
    assert colors[3, 0] == 0 and colors[3, 1:].min() > 100  # to the left is the opposite hue
    with pytest.raises(ValueError, match="flow: expected shape"):
        flow_colors(torch.zeros(3, 4, 4))


def test_matches_lie_on_both_images():
    points = torch.tensor([[10.0, 10.0], [40.0, 20.0]])
    found = ImageMatches(
        points, points + 5, torch.ones(2), torch.ones(2), torch.zeros(2, 40, 60), torch.ones(40, 60)
    )
    picture = draw_image_matches(torch.zeros(3, 40, 60), torch.zeros(3, 50, 70), found)
    assert picture.shape == (50, 60 + 12 + 70, 3)
    assert picture[10, 10].any() and picture[15, 60 + 12 + 15].any()
    assert not picture[35, 5].any() and np.array_equal(picture[45, 30], [255, 255, 255])
