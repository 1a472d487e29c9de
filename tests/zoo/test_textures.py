"""Coats: the same pattern at the same place of every animal."""

from __future__ import annotations

import pytest
import torch

from geoframe.zoo import animal, coat, species, texture
from geoframe.zoo.textures import KINDS

N = 800


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_is_a_function_of_the_place(kind: str) -> None:
    """Landmarks have one colour on all animals, and colours are mixtures of the two."""
    first, second = (1.0, 0.5, 0.0), (0.0, 0.5, 1.0)
    a, b = animal("dog", N), animal("horse", N, pose=1)
    one, two = (texture(x, kind, first=first, second=second) for x in (a, b))
    assert one.shape == (a.mesh.n_verts, 3)
    for k in a.landmarks:
        torch.testing.assert_close(one[a.landmarks[k]], two[b.landmarks[k]])
    torch.testing.assert_close(one[:, 0] + one[:, 2], torch.ones(a.mesh.n_verts, dtype=torch.float64))
    share = float((one[:, 2] > 0.5).double().mean())
    assert share == 0 if kind == "plain" else 0.1 < share < 0.9
    torch.testing.assert_close(two, texture(animal("horse", N), kind, first=first, second=second))


@pytest.mark.parametrize("name", species())
def test_coats(name: str) -> None:
    a = animal(name, N)
    colors = coat(a)
    assert colors.shape == (a.mesh.n_verts, 3)
    assert float(colors.min()) >= 0 and float(colors.max()) <= 1
    eye = colors[a.landmarks["left_eye"]]
    assert float(eye.max()) < 0.3  # eyes are dark


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match=r"kind: expected one of 'plain', 'spots'.*found 'tartan'"):
        texture(animal("dog", N), "tartan")
