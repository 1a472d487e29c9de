"""Which way is up, told from made-up looks whose truth is known."""

import math

import pytest
import torch

from geoframe.heads.upright import (
    AS_IT_IS,
    SURE,
    TURNS,
    Glimpse,
    Upright,
    some_pixels,
)


def _looks(generator, *, firm=1.0, n=120):
    """Four looks at one picture: the first has heights that fit the rows, the others less so."""
    looks = []
    for k in range(4):
        place = 40 * torch.rand(n, 2, generator=generator)
        up = -place[:, 0] if k == 0 else torch.randn(n, generator=generator) * 12
        x = torch.stack([torch.randn(n, generator=generator), up / 20], 1)
        noise = 0.3 * torch.randn(n, generator=generator)
        mask = 3 + firm * (k == 0) + noise
        looks.append(Glimpse(x, mask, torch.rand(n, generator=generator) * 0.3 + 0.5 + 0.1 * (k == 0), place))
    return looks


@pytest.fixture
def fitted():
    generator = torch.Generator().manual_seed(0)
    model = Upright(2)
    model.fit([_looks(generator) for _ in range(60)])
    return model


def test_the_direction_of_height_is_found_and_fits_perfectly(fitted):
    assert fitted.rise[1] > 10 * fitted.rise[0].abs()
    place = torch.tensor([[10.0, 3.0], [20.0, 8.0], [30.0, 1.0]])
    x = torch.stack([torch.zeros(3), -place[:, 0]], 1)
    seen = Glimpse(x, torch.full((3,), 20.0), torch.full((3,), 0.5), place)
    sure, mask, fit = fitted.clues(seen).tolist()
    assert (sure, mask, fit) == pytest.approx((0, 8, math.atanh(0.98)), abs=1e-4)
    assert fitted.clues(seen._replace(embedding=-x))[2] == pytest.approx(-fit)
    assert fitted.clues(seen._replace(place=7 * place + 5)).tolist() == pytest.approx([sure, mask, fit])


def test_unseen_pictures_turned_on_purpose_are_told_apart(fitted):
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        scores = [fitted.score(seen) for seen in _looks(generator)]
        for k, want in enumerate(TURNS):
            assert fitted.choose(scores[-k:] + scores[:-k] if k else scores) == want


def test_the_score_that_is_enough_is_above_those_of_wrong_looks(fitted):
    generator = torch.Generator().manual_seed(2)
    several = [_looks(generator) for _ in range(40)]
    wrong = [fitted.score(seen) >= float(fitted.enough) for looks in several for seen in looks[1:]]
    right = [fitted.score(looks[0]) >= float(fitted.enough) for looks in several]
    assert sum(wrong) <= 3 and sum(right) >= 30


def test_the_chance_is_that_of_bayes():
    model = Upright(3)
    others = (1 - AS_IT_IS) / 3
    # at which the chance of the second look is just what is asked for
    edge = math.log(SURE * (AS_IT_IS + 2 * others) / ((1 - SURE) * others))
    assert model.choose([0, edge + 0.01, 0, 0]) == 90
    assert model.choose([0, edge - 0.01, 0, 0]) is None
    assert model.choose([0, 0, 0, 0]) is None
    assert model.choose([5, 0, 0, 0]) == 0
    assert model.choose([-math.inf] * 4) == 0  # nothing is seen: there is nothing to be turned
    assert model.choose([-math.inf, -math.inf, 0, -math.inf]) == 180


def test_without_pictures_nothing_changes_and_older_weights_get_the_usual_ones(fitted):
    model = Upright(2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.fit([])
    model.fit([[None] * 4])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    fitted.load_state_dict(before)
    holder = torch.nn.ModuleDict({"upright": Upright(2)})
    holder.load_state_dict({})
    assert torch.equal(holder["upright"].weight, before["weight"])


def test_some_pixels_are_in_the_frame_that_was_looked_at():
    mask = torch.full((6, 8), -1.0)
    mask[0, 7] = 1.0
    embedding = torch.arange(48.0).reshape(1, 6, 8)
    for turned, place in ((0, [0, 7]), (90, [0, 0]), (180, [5, 0]), (270, [7, 5])):
        x, logits, at = some_pixels(embedding, mask, turned)
        assert (x.item(), logits.item(), at[0].tolist()) == (7, 1, place)
    assert some_pixels(embedding, torch.full((6, 8), -1.0), 90) is None
