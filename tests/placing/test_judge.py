"""The judge: what it learns on features with a known truth, and what it sees of clouds."""

from __future__ import annotations

import pytest
import torch

from geoframe.layers import symmetry_frame
from geoframe.models.category_keypoints.network import CategoryKeypoints
from geoframe.placing.judge import N_LOOKS, Cases, Judge, looks, train_judge
from geoframe.placing.placement import Placement


@pytest.fixture(scope="module")
def cases():
    """2000 clouds whose keypoints moved where two of eight features are alike, which no weighted sum tells."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 8, generator=g)
    moved = (x[:, 0] * x[:, 1] > 0) & (torch.rand(2000, generator=g) < 0.95)
    clean = ~moved & (torch.rand(2000, generator=g) < 0.5)
    return Cases(x, moved, clean, torch.zeros(2000, dtype=torch.bool))


def _area(judge, cases):
    out = judge(cases.features).detach()
    return float((out[cases.moved][:, None] > out[~cases.moved]).double().mean())


def test_a_judge_learns_what_no_weighted_sum_tells(cases):
    learn = Cases(*(x[:1500] for x in cases))
    test = Cases(*(x[1500:] for x in cases))
    judge = train_judge(learn, steps=300)
    assert not judge.training and _area(judge, test) > 0.9
    assert float(train_judge(learn, steps=0)(test.features).detach().abs().max()) == 0


def test_the_same_seed_makes_the_same_judge_whatever_the_units(cases):
    one, two = (train_judge(cases, steps=20, seed=1)(cases.features).detach() for _ in range(2))
    assert torch.equal(one, two)
    scaled = cases._replace(features=1000 * cases.features + 5)
    other = train_judge(scaled, steps=20, seed=1)(scaled.features).detach()
    torch.testing.assert_close(other, one, atol=0.02, rtol=0.02)
    assert not torch.equal(one, train_judge(cases, steps=20, seed=2)(cases.features).detach())


def test_training_leaves_the_generator_as_it_was(cases):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    train_judge(cases, steps=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_other_objects_count_and_kinds_may_be_missing(cases):
    n = 300
    g = torch.Generator().manual_seed(3)
    other = Cases(
        torch.randn(n, 8, generator=g) + torch.tensor([0.0] * 7 + [6.0]),
        torch.ones(n, dtype=torch.bool),
        torch.zeros(n, dtype=torch.bool),
        torch.ones(n, dtype=torch.bool),
    )
    judge = train_judge(Cases(*(torch.cat(x) for x in zip(cases, other, strict=True))), steps=300)
    assert (
        float((judge(other.features) > judge(cases.features)[~cases.moved].quantile(0.98)).double().mean())
        > 0.95
    )
    only = Cases(*(x[~cases.moved & cases.clean] for x in cases))
    assert bool((train_judge(only, steps=100)(only.features) < 0).all())


def test_features_far_beyond_those_learned_from_do_not_run_away(cases):
    judge = train_judge(cases, steps=50)
    far = torch.full((1, 8), 1e12)
    assert bool(judge(far).isfinite().all())
    torch.testing.assert_close(judge(far), judge(far / 1e6))


def test_steps_are_checked(cases):
    with pytest.raises(ValueError, match="steps: expected"):
        train_judge(cases, steps=-1)


def test_looks_are_of_every_cloud_by_itself_whatever_the_order_of_its_points():
    g = torch.Generator().manual_seed(4)
    model, placement = CategoryKeypoints(6, 2).eval(), Placement().eval()
    points = 2 * torch.rand(3, 300, 3, generator=g) - 1
    seen = looks(model, placement, points)
    assert seen.shape == (3, N_LOOKS) and not seen.requires_grad
    torch.testing.assert_close(looks(model, placement, points[1:2]), seen[1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        looks(model, placement, points[:, torch.randperm(300, generator=g)]), seen, atol=1e-5, rtol=1e-5
    )
    frame = symmetry_frame(model.basis)
    mirrored = (points @ frame.mT * torch.tensor([-1.0, 1, 1])) @ frame
    half = N_LOOKS // 2  # the network of keypoints folds clouds, that of the placement does not
    torch.testing.assert_close(
        looks(model, placement, mirrored)[:, half:], seen[:, half:], atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(looks(model, placement, mirrored)[:, :half], seen[:, :half], atol=1e-5)


def test_an_untrained_judge_says_nothing():
    assert torch.equal(Judge(5)(torch.randn(4, 5)), torch.zeros(4))


def test_no_cloud_to_learn_from_is_told():
    none = torch.zeros(0, dtype=torch.bool)
    with pytest.raises(ValueError, match="cases: expected at least one cloud"):
        train_judge(Cases(torch.zeros(0, 4), none, none, none), steps=2)
