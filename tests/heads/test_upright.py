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
    """Four looks at one picture: of the first heights fit the rows, of the half turn they fit the other way round."""
    looks = []
    for k in range(4):
        place = 40 * torch.rand(n, 2, generator=generator)
        noise = torch.randn(n, generator=generator) * 12
        up = (-place[:, 0], noise, place[:, 0] + noise, noise)[k]
        x = torch.stack([torch.randn(n, generator=generator), up / 20], 1)
        mask = 3 + firm * (k == 0) + 0.3 * torch.randn(n, generator=generator)
        sure = torch.rand(n, generator=generator) * 0.3 + 0.5 + 0.1 * (k == 0)
        looks.append(Glimpse(x, mask, sure, place))
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


def test_a_look_that_sees_nothing_speaks_for_nothing_but_does_not_decide(fitted):
    dim = Glimpse(torch.zeros(4, 2), torch.zeros(4), torch.full((4,), 0.02), torch.rand(4, 2))
    assert fitted.score(None) == pytest.approx(fitted.score(dim), abs=0.2)
    looks = [None, dim, None, None]  # a speck of which nothing is sure
    assert fitted.choose([fitted.score(seen) for seen in looks]) is None
    one = Glimpse(torch.ones(1, 2), torch.ones(1), torch.ones(1), torch.ones(1, 2))
    assert math.isfinite(fitted.score(one))


def test_pictures_differ_in_what_they_show(fitted):
    """Each is centred by itself: animals that are higher up in the embedding do not hide how heights rise."""
    generator = torch.Generator().manual_seed(3)
    shifted = []
    for i in range(60):
        by = torch.tensor([3.0 * i, -2.0 * i])
        shifted.append([g._replace(embedding=g.embedding + by) for g in _looks(generator)])
    model = Upright(2)
    model.fit(shifted)
    torch.testing.assert_close(model.rise, fitted.rise, atol=0.05, rtol=0.05)


def test_from_few_or_no_pictures_nothing_is_learned(fitted):
    generator = torch.Generator().manual_seed(4)
    before = {k: v.clone() for k, v in fitted.state_dict().items()}
    fitted.fit([])
    fitted.fit([[None] * 4] * 50)
    fitted.fit([_looks(generator) for _ in range(29)])
    assert all(torch.equal(v, before[k]) for k, v in fitted.state_dict().items())


def test_where_all_looks_are_alike_it_is_not_clear_which_is_right():
    generator = torch.Generator().manual_seed(5)
    same = [[_looks(generator)[0]] * 4 for _ in range(40)]
    model = Upright(2)
    model.fit(same)
    assert model.weight.abs().max() < 1e-6
    scores = [model.score(seen) for seen in same[0]]
    assert scores[0] <= float(model.enough) and model.choose(scores) is None


def test_no_clue_counts_against_a_look():
    generator = torch.Generator().manual_seed(6)
    model = Upright(2)
    model.fit([_looks(generator, firm=-1.0) for _ in range(60)])  # firmer where it is wrong
    assert model.weight[1] == 0 and model.weight[2] > 0


def test_weights_of_before_it_was_learned_get_the_usual_ones_and_damaged_ones_are_refused(fitted):
    usual = Upright(2).state_dict()
    holder = torch.nn.ModuleDict({"upright": fitted})
    holder.load_state_dict({})
    assert all(torch.equal(v, usual[k]) for k, v in fitted.state_dict().items())
    with pytest.raises(RuntimeError, match="rise"):
        holder.load_state_dict({"upright.weight": usual["weight"]})
    assert usual["enough"].half().float() == math.inf


def test_some_pixels_are_in_the_frame_that_was_looked_at():
    mask = torch.full((6, 8), -1.0)
    mask[0, 7] = 1.0
    embedding = torch.arange(48.0).reshape(1, 6, 8)
    for turned, place in ((0, [0, 7]), (90, [0, 0]), (180, [5, 0]), (270, [7, 5])):
        x, logits, at = some_pixels(embedding, mask, turned)
        assert (x.item(), logits.item(), at[0].tolist()) == (7, 1, place)
    assert some_pixels(embedding, torch.full((6, 8), -1.0), 90) is None
