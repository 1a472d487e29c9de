"""Left and right of all pairs together: one limb that says otherwise is outvoted, on two bodies of known truth."""

from __future__ import annotations

import pytest
import torch

from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.landmarking.inputs import Inputs, network_inputs
from geoframe.landmarking.sides import NEAR, locate, other

NAMES = tuple(zoo.landmark_names())


@pytest.fixture(scope="module", params=["dog", "human"])
def body(request) -> tuple[Inputs, torch.Tensor, torch.Tensor]:
    """Inputs, true landmarks (L,), and densities (S, L) that are right."""
    a = zoo.animal(request.param, 700, seed=5, pose=4)
    x = network_inputs(Surface.of(a.mesh))
    truth = torch.tensor([a.landmarks[n] for n in NAMES])
    gap = torch.cdist(x.place, x.place[truth])
    density = torch.exp(-(gap**2) / (2 * (NEAR / 2) ** 2))
    return x, truth, density / (x.mass @ density)


def mixed(density: torch.Tensor, names: tuple[str, ...], wrong: float) -> torch.Tensor:
    """The densities with a share of the other side's, for some landmarks of both sides."""
    out = density.clone()
    for name in names:
        for one in (f"left_{name}", f"right_{name}"):
            i, j = NAMES.index(one), NAMES.index(other(one))
            out[:, i] = (1 - wrong) * density[:, i] + wrong * density[:, j]
    return out


def off(x: Inputs, place: torch.Tensor, truth: torch.Tensor) -> float:
    """How far the farthest landmark is from where it should be, over sqrt(area); the heatmaps are smoothed."""
    return float((x.place[place] - x.place[truth]).norm(dim=1).max())


def test_what_is_right_stays(body):
    x, truth, density = body
    place, score, source = locate(x, density, NAMES)
    assert off(x, place, truth) < 0.06
    assert torch.equal(source, torch.arange(len(NAMES)))
    assert float(score.min()) > 0.9


@pytest.mark.parametrize("wrong", [("wrist",), ("hock", "hind_paw"), ("hip", "knee", "hock", "hind_paw")])
def test_a_limb_on_the_wrong_side_is_put_right(body, wrong):
    x, truth, density = body
    place, score, source = locate(x, mixed(density, wrong, 0.7), NAMES)
    assert off(x, place, truth) < 0.06
    for name in wrong:
        i = NAMES.index(f"left_{name}")
        assert int(source[i]) == NAMES.index(f"right_{name}")
        assert float(score[i]) > 0.8  # of both sides' probability


def test_a_body_that_is_wrong_as_a_whole_stays_whole(body):
    """Nothing within it tells: the landmarks are those of the mirror image, all of them."""
    x, truth, density = body
    pairs = tuple(n.removeprefix("left_") for n in NAMES if n.startswith("left_"))
    place, _, _ = locate(x, mixed(density, pairs, 1.0), NAMES)
    swap = torch.tensor([NAMES.index(other(n)) for n in NAMES])
    assert off(x, place, truth[swap]) < 0.1  # eyes and ears are near each other


def test_names_without_sides():
    a = zoo.animal("cow", 600)
    x = network_inputs(Surface.of(a.mesh))
    density = torch.ones(len(x.mass), 2)
    density[7, 0] = density[30, 1] = 1e5
    place, _, source = locate(x, density, ("nose", "chin"))
    assert place.tolist() == [7, 30] and source.tolist() == [0, 1]
