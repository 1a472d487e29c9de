"""Recipes of category keypoints: what is computed, what the two published forms are, what is refused."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from geoframe import losses
from geoframe.data import CloudBatches
from geoframe.models.category_keypoints import OURS, PAPER, PAPER_AS_WRITTEN, CategoryKeypoints, train
from geoframe.models.category_keypoints.recipe import RECIPES, BatchPlan, Losses


@pytest.fixture
def seen(chairs):
    """A network that is prepared, a batch, and what the network says of it."""
    clouds = chairs(6, 0).normalised()
    torch.manual_seed(0)
    model = CategoryKeypoints(8, 4)
    model.prepare(clouds.points)
    (batch,) = CloudBatches(clouds, batch_size=6, n_points=300)(0)
    model.eval()
    return model, batch, model(batch["seen"])


def test_the_paper_s_loss_is_its_three_terms(seen):
    model, batch, found = seen
    points = batch["points"]
    for recipe, form, box_form in ((PAPER, "mean", "sides"), (PAPER_AS_WRITTEN, "squared_sum", "volume")):
        parts = recipe.losses(model, batch)
        assert parts.keys() == {"chamfer", "coverage", "inclusivity"}
        for name, expected in {
            "chamfer": losses.chamfer_loss(found.nodes, found.keypoints, form=form),
            "coverage": losses.coverage_loss(found.nodes, points, form=box_form),
            "inclusivity": 2 * losses.inclusivity_loss(found.nodes, points, form=form),
        }.items():
            torch.testing.assert_close(parts[name], expected)


def test_terms_are_proportional_to_their_weights_and_left_out_at_zero(seen):
    model, batch, _ = seen
    weights = [f.name for f in fields(Losses) if f.default == 0.0]
    assert len(weights) == 10 and not Losses()(model, batch)
    for name in weights:
        one, three = (Losses(**{name: w})(model, batch) for w in (1.0, 3.0))
        (key,) = one
        assert name.startswith(key) and bool(one[key] >= 0)
        torch.testing.assert_close(three[key], 3 * one[key])
    whole = OURS.losses(model, batch)
    assert "coverage" not in whole and len(whole) == 7
    kept = replace(OURS.losses, inclusivity_nodes=0.0)(model, batch)
    nodes = Losses(inclusivity_nodes=0.5)(model, batch)
    torch.testing.assert_close(whole["inclusivity"], kept["inclusivity"] + nodes["inclusivity"])


def test_recipes_are_values_of_one_type():
    assert {type(r) for r in (OURS, PAPER, PAPER_AS_WRITTEN)} == {type(OURS)}
    assert RECIPES == {"geoframe": OURS, "paper": PAPER}
    assert OURS.with_epochs(200) == OURS
    assert OURS.with_epochs(12).schedule.every == 2 and OURS.with_epochs(3).schedule.every == 1
    assert OURS.with_settings(mode="plain").settings == {**OURS.settings, "mode": "plain"}
    assert OURS.with_batch_size(4).batches == replace(OURS.batches, size=4)
    assert OURS.settings["n_keypoints"] == 12  # and OURS is as it was


@pytest.mark.parametrize("mode", ["plain", "symmetric"])
@pytest.mark.parametrize("base", [PAPER, PAPER_AS_WRITTEN], ids=lambda r: r.losses.distance_form)
def test_the_paper_s_recipes_train(chairs, small, tmp_path, base, mode):
    recipe = small(1, base=base).with_settings(mode=mode)
    made = train(chairs(8, 0), out=tmp_path, recipe=recipe, accelerator="cpu")
    assert made.about["recipe"] == "paper" and made.model.settings["mode"] == mode
    assert made.predict(chairs(2, 1).points).keypoints.shape == (2, made.n_keypoints, 3)


def test_bad_recipes_are_told():
    with pytest.raises(ValueError, match="pose_rounds: expected 0 with network 'paper'"):
        replace(PAPER, pose_rounds=2)
    with pytest.raises(ValueError, match="network: expected one of 'paper', 'pose_first', found 'other'"):
        replace(PAPER, network="other")
    with pytest.raises(ValueError, match="epochs: expected an integer at least 1, found 0"):
        OURS.with_epochs(0)
    with pytest.raises(ValueError, match="size: expected an integer at least 1, found 0"):
        BatchPlan(0)
