"""Rigid categories: exact correspondence, determinism, labels, symmetry."""

from __future__ import annotations

import pytest
import torch

from geoframe.zoo.rigid import CATEGORIES, part_names, sample, sample_points
from geoframe.zoo.template import counterpart


@pytest.mark.parametrize("category", CATEGORIES)
def test_points_return_from_another_member(category: str) -> None:
    a, b = sample(category, 1), sample(category, 2)
    points, canonical, _ = sample_points(category, 1, 300)
    there, exists = counterpart(b, canonical)
    assert exists.any()
    home = a.warp.forward(b.warp.inverse(there))
    torch.testing.assert_close(home, points, atol=1e-9, rtol=0)
    torch.testing.assert_close(a.warp.inverse(points), canonical, atol=1e-9, rtol=0)
    assert (a.structure.field(canonical).abs() < 1e-4).all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_seed_decides(category: str) -> None:
    one, again, other = (sample_points(category, s, 200) for s in (3, 3, 4))
    assert all(torch.equal(x, y) for x, y in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert one[2].max() < len(part_names(category))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="category: expected one of 'chair'"):
        sample("sofa", 0)
    with pytest.raises(ValueError, match="seed: expected an integer at least 0"):
        sample("chair", -1)
