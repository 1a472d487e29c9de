"""Scores and uncertainties on evidence with a known truth; the low-rank model of where points are."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from geoframe.placing.calibrate import _KINDS, _alike, _judged, _occupancy_without, _plan
from geoframe.placing.confidence import (
    MOVED,
    N_EVIDENCE,
    N_MEASURED,
    Confidence,
    Occupancy,
    keypoint_gaps,
)
from geoframe.placing.judge import N_LOOKS
from geoframe.transforms import rotation_about_axis


@pytest.fixture(scope="module")
def runs():
    """Evidence of 800 clouds whose keypoints move by a function of it and by chance; half of them are clean."""
    g = torch.Generator().manual_seed(0)
    clean = torch.arange(800) % 2 == 0
    harm = torch.where(clean, 0.0, 2.5 * torch.rand(800, generator=g))
    evidence = torch.randn(800, N_EVIDENCE, generator=g)
    evidence[:, :4] += 2.5 * harm[:, None]
    spread = torch.tensor([0.5, 1.0, 3.0])  # the third keypoint is three times as uncertain
    moved = (0.1 * harm[:, None] + 0.005) * spread * (0.8 + 0.4 * torch.rand(800, 3, generator=g))
    gaps = 0.05 + 0.1 * torch.rand(800, 3, 2, generator=g)
    return evidence, gaps, moved, clean


def test_the_limit_flags_what_moved_and_hardly_any_clean_cloud(runs):
    evidence, gaps, moved, clean = runs
    learn, test = slice(0, 600), slice(600, None)
    made = Confidence(3)
    made.calibrate(evidence[learn], gaps[learn], moved[learn], clean[learn])
    score, uncertainty = made(evidence[test], gaps[test])
    flagged, bad = score < made.limit, moved[test].mean(1) > MOVED
    assert float(flagged[clean[test]].double().mean()) <= 0.08
    assert float(flagged[bad].double().mean()) >= 0.9
    assert bool(((score >= 0) & (score <= 1)).all())
    holds = (moved[test] <= uncertainty).double().mean(0)
    assert float(holds.min()) > 0.8 and 0.85 < float(holds.mean()) < 0.97
    assert (
        2 < float(uncertainty[:, 2].median() / uncertainty[:, 0].median()) < 7
    )  # 6 but for a least move of 0.005
    order = uncertainty.mean(1)[bad].median() / uncertainty.mean(1)[clean[test]].median()
    assert float(order) > 3


def test_what_the_judge_lets_pass_is_flagged_by_evidence_that_no_clean_cloud_has(runs):
    """The judge's verdict tells all on the clouds it is weighed on; an object that it does not know passes it."""
    evidence, gaps, moved, clean = runs
    evidence = evidence.clone()
    evidence[:, -1] = 8 * (moved.mean(1) > MOVED).float() - 4
    made = Confidence(3)
    made.calibrate(evidence, gaps, moved, clean)
    strange = evidence[clean][:50].clone()
    strange[:, :4] += 8  # far from all clean clouds, and by the judge as sure as these
    flagged = made(strange, gaps[:50])[0] < made.limit
    assert float(flagged.double().mean()) > 0.95
    assert float((made(evidence, gaps)[0] < made.limit)[clean].double().mean()) <= 0.08
    made.beside.fill_(-1e9)  # the judge alone
    assert float((made(strange, gaps[:50])[0] < made.limit).double().mean()) < 0.5


def test_evidence_that_is_not_a_number_is_no_reason_to_trust(runs):
    evidence, gaps, moved, clean = runs
    made = Confidence(3)
    made.calibrate(evidence, gaps, moved, clean)
    broken = evidence[:4].clone()
    broken[:, 5] = torch.nan
    score, uncertainty = made(broken, gaps[:4])
    assert bool((score < made.limit).all()) and bool(uncertainty.isfinite().all())


def test_the_limit_is_that_of_one_clean_cloud_in_twenty_two(runs):
    evidence, gaps, moved, clean = runs
    odd = evidence.clone()
    odd[clean.nonzero()[::20, 0], :4] += 2.5  # one in twenty of the clean ones
    strict, wide = Confidence(3), Confidence(3)
    for made, told in ((strict, evidence), (wide, odd)):
        made.calibrate(told, gaps, moved, clean)
        flagged = made(told, gaps)[0][clean] < made.limit
        assert float(flagged.double().mean()) == pytest.approx(0.045, abs=2 / int(clean.sum()))
    caught = [
        float((made(evidence, gaps)[0] < made.limit)[moved.mean(1) > MOVED].double().mean())
        for made in (strict, wide)
    ]
    assert caught[1] < caught[0]  # what is let through is let through when it moved, too


def test_units_of_the_evidence_mean_nothing(runs):
    evidence, gaps, moved, clean = runs
    one, two = Confidence(3), Confidence(3)
    one.calibrate(evidence, gaps, moved, clean)
    two.calibrate(100 * evidence + 7, gaps, moved, clean)
    for a, b in zip(one(evidence, gaps), two(100 * evidence + 7, gaps), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(one.limit, two.limit, atol=1e-3, rtol=0)


def test_occupancy_counts_every_point_once_on_either_side(runs):
    g = torch.Generator().manual_seed(1)
    points = 2 * torch.rand(2, 300, 3, generator=g) - 1
    x = Occupancy.describe(points)
    torch.testing.assert_close(x.square().sum(1), torch.ones(2))
    torch.testing.assert_close(Occupancy.describe(points * torch.tensor([-1.0, 1, 1])), x)
    torch.testing.assert_close(Occupancy.describe(points.flip(1)), x)


def test_clouds_of_another_kind_are_far_from_the_model():
    g = torch.Generator().manual_seed(2)

    def slabs(n, axis):
        x = 2 * torch.rand(n, 200, 3, generator=g) - 1
        x[..., axis] *= 0.1 + 0.2 * torch.rand(n, 1, generator=g)
        return x

    model = Occupancy(rank=8)
    model.learn(slabs(60, 2))
    own, other = model(slabs(20, 2)), model(slabs(20, 1))
    assert float(other[:, 0].amin()) > float(own[:, 0].amax())
    torch.testing.assert_close(model.directions @ model.directions.mT, torch.eye(8), atol=1e-4, rtol=0)


def test_gaps_are_distances():
    k = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    gaps = keypoint_gaps(k, k + torch.tensor([0, 0, 0.5]), torch.tensor([[[0.0, 2, 0]]]))
    torch.testing.assert_close(gaps, torch.tensor([[[0.5, 2], [0.5, 5**0.5]]]))


def test_turns_that_leave_the_category_alike_are_the_same_answer():
    k = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(3))
    for up in range(3):
        for turns in (1, 2, 4):
            made = _alike(k, up, turns)
            assert len(made) == turns and torch.equal(made[0], k)
            R = rotation_about_axis(torch.tensor(2 * math.pi / turns), up)
            for one, after in pairwise((*made, k)):
                torch.testing.assert_close(after, one @ R.mT, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kinds", [1, 4, 17])
def test_every_cloud_is_clean_once_and_goes_through_as_many_other_kinds(kinds):
    plan = _plan(300, kinds, seed=1)
    assert [kind for kind, _ in plan] == list(_KINDS)
    assert torch.equal(plan[0][1], torch.arange(300))
    count = torch.bincount(torch.cat([rows for _, rows in plan[1:]]), minlength=300)
    assert bool((count == kinds).all())
    sizes = [len(rows) for _, rows in plan[1:]]
    assert max(sizes) - min(sizes) <= 2 * kinds  # every kind has about as many clouds
    assert all(len(rows.unique()) == len(rows) for _, rows in plan)
    assert (
        sum(len(rows) for _, rows in _plan(2, kinds, seed=1)) == 2 + 2 * kinds
    )  # and few go through as many


def test_other_objects_are_flagged_and_say_nothing_of_how_far_keypoints_are(runs):
    evidence, gaps, moved, clean = runs
    g = torch.Generator().manual_seed(5)
    alien = torch.randn(200, N_EVIDENCE, generator=g)
    alien[:, 8] += 6
    told = torch.cat([evidence, alien])
    all_gaps = torch.cat([gaps, gaps[:200]])
    is_clean = torch.cat([clean, torch.zeros(200, dtype=torch.bool)])
    other = torch.arange(1000) >= 800
    limits, ways = [], []
    for far in (5.0, torch.inf):
        made = Confidence(3)
        made.calibrate(told, all_gaps, torch.cat([moved, torch.full((200, 3), far)]), is_clean, other)
        flagged = made(told, all_gaps)[0] < made.limit
        assert float(flagged[other].double().mean()) > 0.95
        assert float(flagged[is_clean].double().mean()) < 0.06
        limits.append(made.limit)
        ways.append(made.moves)
    assert torch.equal(limits[0], limits[1]) and torch.equal(ways[0], ways[1])
    assert bool(ways[0].isfinite().all())


def test_the_verdict_of_the_judge_is_the_last_of_the_evidence():
    made = Confidence(3)
    told, seen = torch.randn(5, N_MEASURED), torch.randn(5, N_LOOKS)
    assert torch.equal(made.judged(told, seen), torch.cat([told, torch.zeros(5, 1)], 1))
    torch.nn.init.ones_(made.judge.layers[-1].bias)
    torch.testing.assert_close(made.judged(told, seen)[:, -1], torch.ones(5))


def test_clouds_are_judged_by_what_was_learned_from_the_others():
    g = torch.Generator().manual_seed(4)
    whole = 2 * torch.rand(24, 200, 3, generator=g) - 1
    whole[5, :, 2] = whole[5, :, 2].sign() * 0.98  # one of the second part is like no other
    models = [_occupancy_without(whole, part) for part in range(4)]
    judged = _judged(models, torch.arange(24) % 4, whole)
    assert int(judged[:, 0].argmax()) == 5
    for i in (5, 6):
        torch.testing.assert_close(judged[i], models[i % 4](whole[i : i + 1])[0])
    assert float(judged[5, 0]) > 2 * float(
        models[0](whole[5:6])[0, 0]
    )  # to a model that knows it, it is not far
