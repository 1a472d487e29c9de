"""Rendered sets: the truth of every pixel is exact, pictures depend on seed and number only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import rasterize, template, template_landmarks
from geoframe.data._light import nearest_faces
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


def test_a_landmark_is_seen_where_nothing_is_before_it(batch):
    surface = template_surface("horse", n_verts=N)
    marks = torch.tensor(list(surface.landmarks.values()))
    counts = [0, 0]
    for i in range(12):
        r = rasterize(batch.verts[i], surface.faces, batch.camera[i])
        place = batch.camera[i].project(batch.verts[i][marks])
        torch.testing.assert_close(place[:, :2], batch.landmarks[i], atol=5e-3, rtol=0)
        inside = ((place[:, :2] >= 0) & (place[:, :2] < 64)).all(1)
        assert not batch.visible[i][~inside].any()
        x, y = place[:, :2].clamp(0, 63).long().T
        deep = torch.where(r.mask, r.depth, torch.inf)[None, None]
        far = torch.nn.functional.max_pool2d(deep, 3, 1, 1)[0, 0][y, x]
        near = -torch.nn.functional.max_pool2d(-deep, 3, 1, 1)[0, 0][y, x]
        own = torch.nn.functional.avg_pool2d(batch.mask[i][None, None].float(), 3, 1, 1)[0, 0][y, x] == 1
        depths = batch.camera[i].project(batch.verts[i])[:, 2]
        span = float(depths.max() - depths.min())
        hidden = inside & (place[:, 2] > far + 0.03 * span)
        clear = inside & own & (place[:, 2] < near + 0.008 * span)
        assert not batch.visible[i][hidden].any() and batch.visible[i][clear].all()
        counts = [counts[0] + int(hidden.sum()), counts[1] + int(clear.sum())]
    assert min(counts) > 15


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


def test_batches_made_at_once_are_those_made_one_by_one():
    pictures, threads = render_set("horse", 5, size=32, seed=5, n_verts=N), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        several = list(pictures.batches(2))
    finally:
        torch.set_num_threads(threads)
    assert [b.index.tolist() for b in several] == [[0, 1], [2, 3], [4]]
    for b in several:
        alone = pictures[b.index]
        assert torch.equal(b.image, alone.image) and torch.equal(b.vertex, alone.vertex)


def test_what_stands_in_front_leaves_something_to_tell():
    """Picture 25 of this seed had an opaque box before all of the horse; now the box is left out."""
    pictures = render_set("horse", 48, size=64, seed=9001)
    some = pictures[[25, 2, 3]]  # before the other two stand posts
    clear = rasterize(some.verts, pictures.surfaces()[0].faces, some.camera).mask
    left = (some.mask & clear).sum((1, 2)) / clear.sum((1, 2))
    assert left.min() > 0.35 and left[0] > 0.9 and left[1:].min() < 1


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


def test_what_is_seen_is_what_the_rasterizer_sees():
    rng = np.random.default_rng(0)
    screen = np.concatenate([rng.uniform(-4, 20, (60, 2)), rng.uniform(1, 3, (60, 1))], 1)
    faces = rng.integers(0, 60, (40, 3))
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    face, bary, depth = np.full((33, 33), -1), np.zeros((33, 33, 3), np.float32), np.full((33, 33), np.inf)
    nearest_faces(screen, faces, face, bary, depth)
    fine = screen * (2, 2, 1) + (0.5, 0.5, 0)
    found = rasterize(torch.from_numpy(fine), torch.from_numpy(faces), (33, 33), perspective=True)
    assert np.array_equal(face, found.face_id.numpy()) and (face >= 0).sum() > 200
    seen = face >= 0
    np.testing.assert_allclose(bary[seen], found.barycentric.numpy()[seen], atol=1e-6)
    np.testing.assert_allclose(depth[seen], found.depth.numpy()[seen], atol=1e-6)


@pytest.fixture(scope="module")
def pairs():
    s = render_set(["horse", "dog"], 8, size=48, seed=2, n_verts=N, surface="horse")
    return s.pairs(range(8), motion=0.3)


def test_flow_leads_to_the_same_point_of_the_surface(pairs):
    faces = template_surface("horse", n_verts=N).faces
    b, row, col = torch.where(pairs.first.mask)
    corners = pairs.second.verts[b[:, None], faces[pairs.first.face[b, row, col]]]
    points = (pairs.first.barycentric[b, row, col][..., None] * corners).sum(1)
    for i in range(8):
        mine = b == i
        there = pairs.second.camera[i].project(points[mine])
        flow = pairs.flow[i][:, row[mine], col[mine]].T
        here = torch.stack([col[mine], row[mine]], 1) + 0.5
        torch.testing.assert_close(here + flow, there[:, :2], atol=5e-3, rtol=0)
        r = rasterize(pairs.second.verts[i], faces, pairs.second.camera[i])
        inside = ((there[:, :2] >= 0) & (there[:, :2] < 48)).all(1)
        at = there[:, :2].clamp(0, 47).long()
        depth = torch.where(r.mask, r.depth, torch.inf)[None, None]
        around = torch.nn.functional.max_pool2d(depth, 3, 1, 1)[0, 0]  # of the farthest of nine pixels
        span = float(r.depth[r.mask].max() - r.depth[r.mask].min())
        behind = inside & (there[:, 2] > around[at[:, 1], at[:, 0]] + 0.05 * span)
        assert not (pairs.seen[i][row[mine], col[mine]] & (behind | ~inside)).any()
    known = pairs.known
    assert bool((known | ~pairs.seen).all()) and bool((pairs.first.mask <= known).all())
    assert 0.2 < float(pairs.seen[pairs.first.mask].float().mean()) < 1


def test_the_background_moves_as_one_piece(pairs):
    ground = pairs.known & ~pairs.first.mask
    for i in range(8):
        row, col = torch.where(ground[i])
        here = torch.stack([col + 0.5, row + 0.5, torch.ones(len(row))], 1).double()
        flow = pairs.flow[i][:, row, col].T.double()
        fit = torch.linalg.lstsq(here, flow).solution
        assert float((here @ fit - flow).abs().max()) < 1e-3


def test_without_motion_nothing_moves():
    pair = render_set("horse", 4, size=48, seed=3, n_verts=N, augmentation=0).pairs(range(4), motion=0)
    assert float(pair.flow.abs().max()) < 2e-3
    torch.testing.assert_close(pair.first.verts, pair.second.verts)
    assert float(pair.seen[pair.first.mask & pair.second.mask].float().mean()) > 0.99
    same = pair.known & pair.seen
    gap = (pair.first.image - pair.second.image).abs().amax(1)[same & pair.second.mask]
    assert float(gap.median()) < 0.1  # the grain of the coat differs
    with pytest.raises(ValueError, match="motion: expected 0 or more"):
        render_set("horse", 4, size=48, n_verts=N).pairs(0, motion=-1)
