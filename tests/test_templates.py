"""The canonical surfaces that come with the package."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import geoframe
from geoframe._templates import template_symmetry
from geoframe.surface import health
from geoframe.surface.closest import TriangleTree
from geoframe.zoo import animal, species

README = Path(__file__).parents[1] / "meshes" / "README.md"


def test_names() -> None:
    names = geoframe.templates()
    assert set(species()) <= set(names)
    assert names == sorted(names)


@pytest.mark.parametrize("name", geoframe.templates())
def test_each_is_sound_and_has_landmarks(name: str) -> None:
    mesh, names = geoframe.template(name), geoframe.template_landmarks(name)
    h = health(mesh)
    assert h.is_closed and h.is_manifold and h.n_components == 1 and h.facing == "outward" and not h.problems
    assert len(set(names.values())) == len(names) >= 12
    assert min(names.values()) >= 0 and max(names.values()) < mesh.n_verts
    assert geoframe.template(name, dtype=torch.float32).dtype == torch.float32
    row = re.search(rf"^\| {name} \| (\d+) \| (\d+) \| [\d.]+ \| (\d+) \|$", README.read_text(), re.MULTILINE)
    assert row is not None, "meshes/README.md has no row of this surface: run experiments.gallery.make_meshes"
    assert [int(x) for x in row.groups()] == [mesh.n_verts, mesh.n_faces, len(names)]


@pytest.mark.parametrize("name", species())
def test_animals_share_landmarks_and_are_symmetric(name: str) -> None:
    mesh, other = geoframe.template(name), template_symmetry(name)
    assert geoframe.template_landmarks(name).keys() == geoframe.template_landmarks("dog").keys()
    assert torch.equal(other[other], torch.arange(mesh.n_verts))
    torch.testing.assert_close(mesh.verts[other] * mesh.verts.new_tensor([1, 1, -1]), mesh.verts)
    names = geoframe.template_landmarks(name)
    assert int(other[names["left_eye"]]) == names["right_eye"]


def test_the_stored_surface_is_what_the_generator_makes() -> None:
    """Every stored vertex lies on the surface that is made again, to the rounding of the file; landmarks, too."""
    for name in ("dog", "human"):
        stored, again = geoframe.template(name), animal(name, 800)
        faces, weights = TriangleTree(again.dense.verts.numpy(), again.dense.faces.numpy()).closest(
            stored.verts.numpy(), 60
        )
        corners = again.dense.verts.numpy()[again.dense.faces.numpy()[faces]]
        gap = np.linalg.norm(np.einsum("nc,ncd->nd", weights, corners) - stored.verts.numpy(), axis=1)
        assert gap.max() < 1e-5
        assert float(stored.volume) == pytest.approx(float(again.dense.volume), rel=0.03)
        for k, v in geoframe.template_landmarks(name).items():
            torch.testing.assert_close(
                stored.verts[v], again.mesh.verts[again.landmarks[k]], atol=1e-6, rtol=0
            )


def test_unknown_name() -> None:
    for fn in (geoframe.template, geoframe.template_landmarks, template_symmetry):
        with pytest.raises(ValueError, match=r"name: expected one of .*'dog'.*found 'dragon'"):
            fn("dragon")
