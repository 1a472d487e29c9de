"""Rendered sets: the truth of every pixel is exact, pictures depend on seed and number only."""

from __future__ import annotations

import pytest
import torch

from geoframe import template, template_landmarks
from geoframe.data.rendered import render_set, template_surface

N = 700  # vertices of the surfaces here


@pytest.fixture(scope="module")
def batch():
    return render_set("horse", 12, size=64, seed=5, n_verts=N)[range(12)]


def test_the_point_of_a_pixel_projects_to_its_centre(batch):
    faces = template_surface("horse", n_verts=N).faces
    b, row, col = torch.where(batch.mask)
    corners = batch.verts[b[:, None], faces[batch.face[b, row, col]]]
    points = (batch.barycentric[b, row, col][..., None] * corners).sum(1)
    for i in range(12):
        at = batch.camera[i].project(points[b == i])[:, :2]
        centre = torch.stack([col[b == i], row[b == i]], 1) + 0.5
        assert float((at - centre).abs().max()) < 2e-3
    weights = batch.barycentric[b, row, col]
    torch.testing.assert_close(weights.sum(1), torch.ones(len(b)), atol=1e-5, rtol=0)
    nearest = faces[batch.face[b, row, col]].gather(1, weights.argmax(1)[:, None])[:, 0]
    assert torch.equal(batch.vertex[b, row, col], nearest)
    outside = ~batch.mask
    assert bool((batch.face[outside] == -1).all() and (batch.vertex[outside] == -1).all())
    assert not batch.barycentric[outside].any()


def test_pictures_depend_on_seed_and_number_only(batch):
    again = render_set("horse", 12, size=64, seed=5, n_verts=N)
    for numbers in ([7], [3, 7]):
        other = again[numbers]
        for name in ("image", "mask", "face", "barycentric", "landmarks", "visible", "verts"):
            torch.testing.assert_close(
                getattr(other, name)[-1], getattr(batch, name)[7], equal_nan=True, rtol=0, atol=0
            )
    elsewhere = render_set("horse", 12, size=64, seed=6, n_verts=N)[range(12)]
    assert all(not torch.equal(a, b) for a, b in zip(batch.image, elsewhere.image, strict=True))
    assert len({float(x.mean()) for x in batch.image}) == 12


def test_one_surface_for_several_species():
    s = render_set(["horse", "cow", "dog"], 8, size=48, surface="horse", n_verts=N)
    b = s[range(8)]
    assert b.verts.shape == (8, template_surface("horse", n_verts=N).n_verts, 3)
    assert set(b.category.tolist()) <= {0, 1, 2} and len(set(b.category.tolist())) > 1
    assert len(s.surfaces()) == 3 and s.surfaces()[0] is s.surfaces()[2]


def test_the_surface_is_the_canonical_one():
    s = template_surface("dog")
    assert torch.equal(s.verts, template("dog").verts) and torch.equal(s.faces, template("dog").faces)
    assert s.landmarks == template_landmarks("dog")


def test_bad_input():
    for words, told in (
        ({"category": "unicorn"}, "category: expected one of"),
        ({"category": ()}, "at least one"),
        ({"n": 0}, "n: expected"),
        ({"size": 8}, "size: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"surface": "chair"}, "surface: expected one of"),
        ({"augmentation": -1.0}, "augmentation: expected"),
        ({"photos": "nowhere"}, "photos: expected a folder"),
        ({"pose": "moonwalk"}, "pose: expected one of"),
    ):
        with pytest.raises(ValueError, match=told):
            render_set(**{"category": "horse", "n": 3, **words})
    with pytest.raises(IndexError, match="from 0 to 2"):
        render_set("horse", 3)[3]
