"""Crude chairs, and a small model of them that is trained once."""

from __future__ import annotations

import pytest
import torch

from geoframe.data import CloudSet
from geoframe.models.category_keypoints import OURS, load, train


def _chairs(n, seed):
    """Crude chairs, up z, back at +y, plane x = 0; sizes vary."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 240, 3, generator=g) * 2 - 1
    part = torch.arange(240) % 3
    wide, deep, high = (0.4 + 0.25 * torch.rand(n, 1, generator=g) for _ in range(3))
    x, y, z = wide * u[..., 0], deep * u[..., 1], 0.05 * u[..., 2]
    y = torch.where(part == 1, deep + 0.03 * u[..., 1], y)
    z = torch.where(part == 1, high * (1 + u[..., 2]), z)
    leg = part == 2
    x = torch.where(leg, wide * torch.sign(u[..., 0]), x)
    y = torch.where(leg, deep * torch.sign(u[..., 1]), y)
    z = torch.where(leg, -0.4 + 0.4 * u[..., 2], z)
    half = torch.stack([x, y, z], dim=-1)
    points = torch.cat([half, half * torch.tensor([-1.0, 1, 1])], dim=1)
    return CloudSet(points * 50 + 7, tuple(f"c{i}" for i in range(n)))


@pytest.fixture(scope="session")
def chairs():
    """A function (n, seed) that makes a set of clouds."""
    return _chairs


@pytest.fixture(scope="session")
def small():
    """Our recipe for a few clouds: a function (epochs, keypoints, batch size)."""

    def recipe(epochs=2, keypoints=6, size=4, base=OURS):
        return base.with_epochs(epochs).with_settings(n_keypoints=keypoints).with_batch_size(size)

    return recipe


@pytest.fixture(scope="session")
def folder(tmp_path_factory, small):
    """Of a trained model."""
    out = tmp_path_factory.mktemp("model")
    train(_chairs(24, 0), out=out, category="chair", recipe=small(5, 8), accelerator="cpu")
    return out


@pytest.fixture(scope="session")
def predictor(folder):
    """The trained model; not to be changed."""
    return load(folder)
