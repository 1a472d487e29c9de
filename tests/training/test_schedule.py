"""Schedules: rates by epochs, steps and time, warm-up, groups of parameters, what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.training import Schedule


def test_the_rate_is_halved_and_has_a_floor():
    schedule = Schedule(epochs=280)
    assert [schedule.rate(e) for e in (0, 39, 40, 80)] == [1e-3, 1e-3, 5e-4, 2.5e-4]
    assert Schedule(epochs=1000).rate(999) == 1e-5
    by_steps = Schedule(steps=100, every=10, factor=0.1)
    assert [by_steps.rate(7, s) for s in (0, 9, 10, 29)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    assert Schedule(epochs=9, decay="none").rate(8) == 1e-3


def test_another_length():
    schedule = Schedule(epochs=100, factor=0.1, lr=0.5)
    assert schedule.lasting(steps=7) == Schedule(steps=7, factor=0.1, lr=0.5)
    assert schedule.lasting(minutes=2) == Schedule(minutes=2, factor=0.1, lr=0.5, decay="cosine")
    assert Schedule(steps=9, decay="none").lasting(minutes=2).decay == "none"


def test_a_cosine_runs_from_the_rate_to_the_floor():
    schedule = Schedule(steps=100, decay="cosine", lr=0.5, floor=0.1)
    assert [schedule.rate(0, s) for s in (0, 50, 100, 130)] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert Schedule(epochs=4, decay="cosine", lr=1.0, floor=0.0).rate(1, 999) == pytest.approx(
        (1 + math.sqrt(0.5)) / 2
    )
    rates = [schedule.rate(0, s) for s in range(100)]
    assert rates == sorted(rates, reverse=True)


def test_warm_up_rises_linearly():
    schedule = Schedule(steps=100, decay="none", lr=1.0, warmup=4)
    assert [schedule.rate(0, s) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_time_spent_ages_a_run_as_steps_do():
    budget = Schedule(minutes=10, decay="cosine", lr=1.0, floor=0.0)
    assert budget.rate(3, 12345, 300) == pytest.approx(0.5)
    both = Schedule(epochs=100, minutes=10, every=20)
    assert both.rate(10, 0, 0) == 1e-3 and both.rate(10, 0, 300) == 0.25e-3  # half of it all is epoch 50
    assert both.share(10, 0, 60) == pytest.approx(0.1)
    assert both.share(30, 0, 60) == pytest.approx(0.3)
    assert both.share(30, 0, 601) > 1


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        self.backbone2 = torch.nn.Linear(2, 2)


def test_parameters_are_grouped_by_the_longest_name_that_fits():
    net = Net()
    groups = Schedule(epochs=1, weight_decay=0.1, lr_factors={"backbone": 0.1, "backbone.1": 0.5}).groups(net)
    found = {(g["factor"], g["weight_decay"]): g["params"] for g in groups}
    named = dict(net.named_parameters())
    for key, names in {
        (0.1, 0.1): ["backbone.0.weight"],
        (0.1, 0.0): ["backbone.0.bias"],
        (0.5, 0.1): ["backbone.1.weight"],
        (0.5, 0.0): ["backbone.1.bias"],
        (1.0, 0.1): ["backbone2.weight"],
        (1.0, 0.0): ["backbone2.bias"],
    }.items():
        assert [id(p) for p in found.pop(key)] == [id(named[n]) for n in names]
    assert not found
    net.backbone2.requires_grad_(False)
    with pytest.raises(ValueError, match="model: expected parameters to learn, found none"):
        Schedule(epochs=1, lr_factors={"backbone": 0.0}).groups(net)
    with pytest.raises(ValueError, match=r"lr_factors: expected names .*backbone, backbone2\), found head"):
        Schedule(epochs=1, lr_factors={"head": 2.0}).groups(net)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({}, "schedule: expected epochs, steps or minutes, found none"),
        ({"epochs": 1, "steps": 1}, "expected epochs or steps, found both"),
        ({"epochs": 0}, "epochs: expected an integer at least 1, found 0"),
        ({"steps": 0}, "steps: expected an integer at least 1, found 0"),
        ({"minutes": 0.0}, "minutes: expected a positive number, found 0"),
        ({"minutes": 1.0}, "decay: expected 'cosine' or 'none' with minutes alone"),
        ({"epochs": 1, "lr": 0.0}, "lr, factor, floor: expected lr > 0"),
        ({"epochs": 1, "factor": 2.0}, "lr, factor, floor: expected"),
        ({"epochs": 1, "floor": -1.0}, "lr, factor, floor: expected"),
        ({"epochs": 1, "warmup": -1}, "warmup: expected an integer at least 0"),
        ({"epochs": 1, "every": 0}, "every: expected an integer at least 1"),
        ({"epochs": 1, "decay": "linear"}, "decay: expected one of 'step', 'cosine', 'none'"),
        ({"epochs": 1, "weight_decay": -1.0}, "weight_decay, lr_factors: expected numbers of at least 0"),
        (
            {"epochs": 1, "lr_factors": {"a": -1.0}},
            "weight_decay, lr_factors: expected numbers of at least 0",
        ),
        ({"epochs": 1, "clip": 0.0}, "clip: expected a positive number, found 0"),
    ],
)
def test_bad_schedules_are_told(bad, told):
    with pytest.raises(ValueError, match=told):
        Schedule(**bad)
