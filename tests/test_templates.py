"""The canonical surfaces that come with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import geoframe
from geoframe.surface import health
from geoframe.surface.creatures import creature
from geoframe.surface.sampling import knn

README = Path(__file__).parents[1] / "meshes" / "README.md"


def test_names() -> None:
    names = geoframe.templates()
    assert {"dog", "giraffe"} <= set(names)
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


def test_landmarks_are_shared() -> None:
    dog, giraffe = (geoframe.template_landmarks(name) for name in ("dog", "giraffe"))
    assert dog.keys() == giraffe.keys()


def test_the_stored_surface_is_what_the_generator_makes() -> None:
    """Made again with fewer vertices and another seed: the same geometry, to the size of a triangle."""
    stored, again = geoframe.template("dog"), creature("dog", 1500, seed=9)[0]
    for a, b in ((stored, again), (again, stored)):
        assert float(knn(a.verts, b.verts, 1)[1].max()) < 0.06
    assert float(stored.volume) == pytest.approx(float(again.volume), rel=0.03)


def test_unknown_name() -> None:
    for fn in (geoframe.template, geoframe.template_landmarks):
        with pytest.raises(ValueError, match=r"name: expected one of 'dog', 'giraffe'.*found 'dragon'"):
            fn("dragon")
