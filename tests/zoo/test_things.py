"""The surfaces of rigid categories that come with geoframe: sound, on their solid, those that shipped models count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from geoframe.heads.zoo_maps import model_folder
from geoframe.surface import Mesh, health
from geoframe.zoo.things import THINGS, made_mesh, thing_mesh, usual_member


@pytest.mark.parametrize("category", THINGS)
def test_surfaces_are_closed_symmetric_and_on_their_solid(category):
    kept, member = thing_mesh(category), usual_member(category)
    assert kept.verts.dtype == np.float64 and kept.faces.dtype == kept.symmetry.dtype == np.int64
    told = health(Mesh(torch.as_tensor(kept.verts), torch.as_tensor(kept.faces)))
    assert told.is_closed and told.is_manifold
    mirrored = kept.canonical[kept.symmetry] * (1, 1, -1)
    assert np.abs(mirrored - kept.canonical).max() < 1e-6
    with torch.no_grad():
        assert float(member.structure.field(torch.as_tensor(kept.canonical)).abs().max()) < 1e-4
    again = kept.of(member)
    assert np.abs(again - (0, again[:, 1].min(), 0) - kept.verts).max() < 1e-5
    assert kept.parts.max() < len(kept.labels) and set(kept.landmarks.values()) <= set(range(len(kept.verts)))


@pytest.mark.parametrize("category", ["car", "aeroplane"])
def test_the_shipped_model_counts_their_vertices(category):
    with safe_open(model_folder("things") / "model.safetensors", "pt") as file:
        rows = file.get_slice(f"surfaces._embeddings.{category}.weight").get_shape()[0]
    assert rows == len(thing_mesh(category).verts)


@pytest.mark.slow  # half a minute, or more
def test_they_are_made_like_this():
    kept, made = thing_mesh("table"), made_mesh(usual_member("table"), 3000)
    assert abs(len(made["verts"]) - len(kept.verts)) < 0.02 * len(kept.verts)
    assert made["names"].tolist() == list(kept.landmarks)
    at, there = (
        x[list(i)] for x, i in ((kept.verts, kept.landmarks.values()), (made["verts"], made["landmarks"]))
    )
    assert np.abs(at - there).max() < 1e-5
