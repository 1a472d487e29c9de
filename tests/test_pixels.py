"""Pixel maps: what a rendered mesh tells exactly is what must come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import Mesh, Surface, WeakPerspective
from geoframe.camera import weak_view
from geoframe.pixels import PixelMap, surface_digest
from geoframe.render import optical_flow, rasterize, vertex_visibility
from geoframe.surface.shapes import icosphere
from geoframe.zoo.animals import animal, correspondence

SIZE = (120, 120)


def _view(verts, azimuth):
    """From the side, turned by some degrees about the vertical, the whole surface in the picture."""
    middle = (verts.amin(0) + verts.amax(0)) / 2
    turn = torch.deg2rad(torch.tensor(90.0 + azimuth, dtype=verts.dtype))
    eye = middle + torch.stack([turn.cos(), turn.new_tensor(0.15), turn.sin()])
    return weak_view(eye, SIZE, target=middle, extent=0.55 * float((verts - middle).norm(dim=1).max()) * 2)


@pytest.fixture(scope="module")
def horse():
    return animal("horse", 1500), animal("horse", 1500, pose=3)


@pytest.fixture(scope="module")
def seen(horse):
    """The horse at rest and in a pose, each with its picture, from two sides."""
    surface = Surface.of(horse[0].mesh)
    out = []
    for member, azimuth in zip(horse, (20.0, 35.0), strict=True):
        view = _view(member.mesh.verts, azimuth)
        out.append((member.mesh.verts, view, rasterize(member.mesh.verts, member.mesh.faces, view)))
    return surface, out


def test_a_rendered_mesh_carries_its_own_positions(seen):
    surface, ((verts, view, fragments), _) = seen
    pixels = PixelMap.of_fragments(fragments, surface)
    place = pixels.carry(verts)
    row, col = torch.nonzero(pixels.mask, as_tuple=True)
    screen = view.project(place[pixels.mask])
    centre = torch.stack([col, row], 1) + 0.5
    assert (screen[:, :2] - centre).abs().max() < 1e-4
    assert not place[~pixels.mask].any()
    near = surface.verts[pixels.vertex[pixels.mask]] - place[pixels.mask]
    corners = surface.verts[surface.faces[pixels.face[pixels.mask]]] - place[pixels.mask][:, None]
    assert (near.norm(dim=1) <= corners.norm(dim=2).max(1).values).all()


def test_carry_and_gather_return_what_was_carried(seen):
    surface, ((verts, _, fragments), _) = seen
    pixels = PixelMap.of_fragments(fragments, surface)
    values, shown = pixels.gather(pixels.carry(verts).movedim(-1, 0))
    edge = (surface.verts[surface.faces] - surface.verts[surface.faces.roll(1, 1)]).norm(dim=-1).max()
    assert 0.25 < shown.double().mean() < 0.75  # one side of the animal
    assert (values - verts)[shown].norm(dim=1).max() < edge
    assert (values - verts)[shown].norm(dim=1).mean() < 0.35 * edge
    assert torch.equal(shown, values.abs().sum(1) > 0)
    constant, again = pixels.gather(torch.full((2, *SIZE), 0.5, dtype=torch.float64))
    assert torch.equal(again, shown)
    assert torch.allclose(constant[shown], constant.new_tensor(0.5), atol=1e-6)


def test_gather_and_carry_are_adjoint_up_to_the_weights(seen):
    """sum_p carry(f)(p) g(p) = sum_v f(v) w(v) gather(g)(v), with w the weight that a vertex has in the picture."""
    surface, ((_, _, fragments), _) = seen
    pixels = PixelMap.of_fragments(fragments, surface)
    draw = torch.Generator().manual_seed(0)
    f = torch.randn(surface.n_verts, 1, generator=draw, dtype=torch.float64)
    g = torch.randn(1, *SIZE, generator=draw, dtype=torch.float64)
    values, shown = pixels.gather(g)
    corners = surface.faces[pixels.face[pixels.mask]]
    w = torch.zeros(surface.n_verts, dtype=torch.float64)
    w.index_add_(0, corners.ravel(), pixels.barycentric[pixels.mask].double().ravel())
    left = (pixels.carry(f)[..., 0] * g[0]).sum()
    assert torch.allclose(left, (f[:, 0] * w * values[:, 0])[shown].sum(), rtol=1e-6)


def test_points_are_where_the_camera_puts_the_vertices(seen):
    surface, ((verts, view, fragments), _) = seen
    places = PixelMap.of_fragments(fragments, surface).points(torch.arange(surface.n_verts))
    screen = view.project(verts)
    visible = vertex_visibility(fragments, surface.faces, screen)
    found = ~places.pixels.isnan().any(1)
    assert found[visible].double().mean() > 0.8 and found[~visible].double().mean() < 0.1
    away = (places.pixels - screen[:, :2])[found & visible].norm(dim=1)
    assert away.median() < 0.05 and away.quantile(0.95) < 0.5
    assert torch.equal(places.confidence > 0, found)


def test_correspondence_is_the_optical_flow(seen):
    surface, ((_, _, one), (verts2, view2, two)) = seen
    a, b = (PixelMap.of_fragments(f, surface) for f in (one, two))
    flow, valid = optical_flow(one, surface.faces, verts2, view2, other=two)
    found = a.correspond(b)
    at = found.source.floor().long()
    true = found.source + flow[:, at[:, 1], at[:, 0]].T
    is_valid = valid[at[:, 1], at[:, 0]]
    known = ~found.target.isnan().any(1)
    assert known[is_valid].double().mean() > 0.99
    away = (found.target - true)[known & is_valid].norm(dim=1)
    assert away.max() < 1 and away.median() < 0.02
    some = found.source[known][::50]
    assert torch.allclose(a.correspond(b, some).target, found.target[known][::50])


def test_vertices_alone_correspond_to_a_few_pixels(seen):
    surface, ((_, _, one), (verts2, view2, two)) = seen
    a, b = (PixelMap.of_fragments(f, surface).replace(face=None, barycentric=None) for f in (one, two))
    flow, valid = optical_flow(one, surface.faces, verts2, view2, other=two)
    found = a.correspond(b)
    at = found.source.floor().long()
    both = ~found.target.isnan().any(1) & valid[at[:, 1], at[:, 0]]
    away = (found.target - found.source - flow[:, at[:, 1], at[:, 0]].T)[both].norm(dim=1)
    assert both.double().mean() > 0.5
    assert away.median() < 2


def test_embeddings_are_compared_with_embeddings(seen):
    """Positions as embeddings, on a sphere so that their direction tells them: the nearest is the surface's own."""
    surface = Surface.of(icosphere(4))
    maps = []
    for azimuth in (0.0, 25.0):
        view = _view(surface.verts, azimuth)
        exact = PixelMap.of_fragments(rasterize(surface.verts, surface.faces, view), surface)
        maps.append(exact.replace(embedding=exact.carry(surface.verts)))
    by_embedding = maps[0].correspond(maps[1])
    by_surface = maps[0].correspond(maps[1], through="surface")
    known = ~by_surface.target.isnan().any(1)
    away = (by_embedding.target - by_surface.target)[known].norm(dim=1)
    assert away.quantile(0.9) < 1.5
    with pytest.raises(ValueError, match="through: expected maps that both hold an embedding"):
        maps[0].correspond(maps[1].replace(embedding=None), through="embedding")


def test_through_an_exact_correspondence(horse, seen):
    dog = animal("dog", 1200)
    exact = correspondence(dog, horse[0]).p2p_21  # for every vertex of the horse one of the dog
    surface, ((_, _, fragments), _) = seen
    pixels = PixelMap.of_fragments(fragments, surface)
    on_dog = pixels.through(exact, dog.mesh)
    true = exact[pixels.vertex[pixels.mask]]
    away = (dog.mesh.verts[on_dog.vertex[pixels.mask]] - dog.mesh.verts[true]).norm(dim=1)
    edge = (dog.mesh.verts[dog.mesh.faces] - dog.mesh.verts[dog.mesh.faces.roll(1, 1)]).norm(dim=-1)
    assert away.mean() < edge.mean() and torch.equal(on_dog.mask, pixels.mask)
    by_vertex = pixels.replace(face=None, barycentric=None).through(exact, dog.mesh)
    assert torch.equal(by_vertex.vertex[pixels.mask], true)
    with pytest.raises(ValueError, match=r"match: expected a partner for each of the 1502|pass match.p2p_21"):
        on_dog.through(exact, surface)


def test_save_and_load(seen, tmp_path):
    surface, ((verts, _, fragments), _) = seen
    exact = PixelMap.of_fragments(fragments, surface)
    exact = exact.replace(embedding=exact.carry(verts).float(), confidence=0.5 * exact.confidence)
    exact.save(tmp_path / "a.npz", embedding=True)
    posed = surface.with_verts(2 * verts)  # the pose does not matter
    back = PixelMap.load(tmp_path / "a.npz", posed)
    for name in ("vertex", "mask", "confidence", "face", "barycentric"):
        assert torch.equal(getattr(back, name), getattr(exact, name)), name
    assert torch.allclose(back.embedding.float(), exact.embedding, atol=2e-3)
    exact.replace(turned=None).save(tmp_path / "b.npz")
    without = PixelMap.load(tmp_path / "b.npz", surface)
    assert without.embedding is None and (without.turned, back.turned) == (None, 0)
    exact.replace(turned=270).save(tmp_path / "t.npz")
    assert PixelMap.load(tmp_path / "t.npz", surface).to("cpu").turned == 270
    with np.load(tmp_path / "b.npz") as file:
        assert {"vertex", "mask", "confidence"} <= set(file.files)
    with pytest.raises(ValueError, match="surface: expected the one of"):
        PixelMap.load(tmp_path / "b.npz", icosphere(3))
    other = Mesh(surface.verts, surface.faces.flip(0))
    assert surface_digest(other) != surface_digest(surface)
    with pytest.raises(ValueError, match="surface: expected the one of"):
        PixelMap.load(tmp_path / "b.npz", other)
    with pytest.raises(ValueError, match="expected a pixel map"):
        PixelMap.load(tmp_path / "none.npz", surface)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="expected a pixel map"):
        PixelMap.load(tmp_path / "cut.npz", surface)
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        exact.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected a map with an embedding"):
        exact.replace(embedding=None).save(tmp_path / "c.npz", embedding=True)


def test_of_embedding_finds_the_vertices_of_a_rendered_embedding(seen):
    surface, ((_, _, fragments), _) = seen
    exact = PixelMap.of_fragments(fragments, surface)
    table = torch.nn.functional.normalize(surface.basis(40).vecs.float(), dim=1)
    field = exact.carry(table).movedim(-1, 0)
    found = PixelMap.of_embedding(field, table, exact.mask, surface, temperature=0.02)
    step = (surface.verts[found.vertex] - surface.verts[exact.vertex])[exact.mask].norm(dim=1)
    assert (found.vertex == exact.vertex)[exact.mask].double().mean() > 0.7
    assert step.max() < 0.15 * surface.area.sqrt()
    assert found.confidence[exact.mask].min() > 0 and not found.confidence[~exact.mask].any()


def test_bad_maps_are_refused(seen):
    surface, ((_, _, fragments), _) = seen
    exact = PixelMap.of_fragments(fragments, surface)
    V = surface.n_verts
    with pytest.raises(ValueError, match=r"vertex: expected indices in \[0, "):
        exact.replace(vertex=torch.where(exact.mask, V, -1))
    with pytest.raises(ValueError, match="vertex: expected vertices on the mask and -1 outside"):
        exact.replace(vertex=exact.vertex.clamp_min(0))
    with pytest.raises(TypeError, match=r"mask: expected a torch\.bool"):
        exact.replace(mask=exact.mask.float())
    with pytest.raises(ValueError, match="confidence: expected numbers in"):
        exact.replace(confidence=exact.confidence * 2)
    with pytest.raises(ValueError, match="confidence: expected shape"):
        exact.replace(confidence=exact.confidence[:5])
    with pytest.raises(ValueError, match="expected both or neither"):
        exact.replace(face=None)
    with pytest.raises(ValueError, match="embedding: expected shape"):
        exact.replace(embedding=torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match=r"values: expected shape \(1502, C\)"):
        exact.carry(torch.zeros(7, 1))
    with pytest.raises(ValueError, match="image: expected shape"):
        exact.gather(torch.zeros(1, 5, 5))
    with pytest.raises(ValueError, match="vertices: expected indices"):
        exact.points(torch.tensor([V]))
    with pytest.raises(ValueError, match="fragments: expected a picture of the"):
        PixelMap.of_fragments(fragments, icosphere(2))
    two = rasterize(surface.verts.expand(2, -1, -1), surface.faces, SIZE)
    with pytest.raises(ValueError, match="fragments: expected one picture"):
        PixelMap.of_fragments(two, surface)
    with pytest.raises(ValueError, match="other: expected a map on the same surface"):
        sphere = Surface.of(icosphere(2))
        empty = torch.full(SIZE, -1)
        exact.correspond(PixelMap(sphere, empty, empty >= 0, torch.zeros(SIZE)))


def test_an_empty_map_answers(seen):
    surface, ((_, _, fragments), _) = seen
    exact = PixelMap.of_fragments(fragments, surface)
    none = torch.full(SIZE, -1)
    empty = PixelMap(surface, none, none >= 0, torch.zeros(SIZE))
    assert empty.points(torch.tensor([0, 1])).pixels.isnan().all()
    assert exact.correspond(empty).target.isnan().all()
    assert len(empty.correspond(exact).source) == 0
    values, shown = empty.gather(torch.ones(3, *SIZE))
    assert not shown.any() and not values.any()


def test_pixels_outside_are_not_seen(seen):
    surface, ((_, _, one), (_, _, two)) = seen
    a, b = (PixelMap.of_fragments(f, surface) for f in (one, two))
    asked = torch.tensor([[-3.0, 5.0], [500.0, 5.0], [torch.nan, 1.0], [0.5, 0.5]])
    found = a.correspond(b, asked)
    assert found.target.isnan().all() and not found.confidence.any()


def test_it_works_for_any_camera():
    """A sphere under a camera that mirrors nothing: the map is that of the camera's own rays."""
    surface = Surface.of(icosphere(4))
    camera = WeakPerspective(
        torch.eye(3).double(), torch.tensor([30.0, 30.0]).double(), torch.tensor(25.0).double(), (60, 60)
    )
    pixels = PixelMap.of_fragments(rasterize(surface.verts, surface.faces, camera), surface)
    place = pixels.carry(surface.verts)
    row, col = torch.nonzero(pixels.mask, as_tuple=True)
    assert torch.allclose(place[pixels.mask][:, 0], (col.double() + 0.5 - 30) / 25, atol=1e-5)
    assert torch.allclose(place[pixels.mask][:, 1], (row.double() + 0.5 - 30) / 25, atol=1e-5)
