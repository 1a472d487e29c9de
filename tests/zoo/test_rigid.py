"""Rigid categories: exact correspondence, determinism, sound and symmetric meshes, labels, landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import geoframe
from geoframe._templates import template_symmetry
from geoframe.surface import Mesh, health
from geoframe.surface.implicit import project
from geoframe.zoo._furniture import CHAIR_ARMS, CHAIR_BACKS, CHAIR_LEGS, CHAIR_STYLES, chair_structure
from geoframe.zoo.deform import Warp
from geoframe.zoo.rigid import CATEGORIES, part_names, sample, sample_points
from geoframe.zoo.template import (
    Member,
    MemberMesh,
    counterpart,
    draft,
    landmark_points,
    member_correspondence,
    mirror_image,
    surface_mesh,
)

pytestmark = pytest.mark.long

# seeds of members of one structure, and of two that differ
SAME = {"chair": (2, 3), "table": (1, 10), "aeroplane": (4, 5), "car": (1, 16), "motorbike": (1, 2)}
ARMS, NO_ARMS = 7, 13  # chairs, else alike: four legs and a panel


def smallest_angles(mesh: Mesh) -> np.ndarray:
    """(F,) degrees."""
    v = mesh.verts.numpy()[mesh.faces.numpy()]
    e = np.roll(v, -1, axis=1) - v
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    return np.degrees(np.arccos(-(e * np.roll(e, 1, axis=1)).sum(-1).clip(-1, 1))).min(1)


@pytest.fixture(scope="module")
def chairs() -> tuple[MemberMesh, MemberMesh]:
    return surface_mesh(sample("chair", ARMS), 1500), surface_mesh(sample("chair", NO_ARMS), 1500, seed=5)


@pytest.mark.parametrize("category", CATEGORIES)
def test_points_return_from_another_member(category: str) -> None:
    a, b = (sample(category, seed) for seed in SAME[category])
    assert a.structure == b.structure
    canonical = landmark_points(a.structure)
    there, exists = counterpart(b, canonical)
    assert exists.all()
    home = a.warp.forward(b.warp.inverse(there))
    torch.testing.assert_close(home, a.warp.forward(canonical), atol=1e-9, rtol=0)
    assert float((there - home).abs().max()) > 1e-3  # the members differ


def test_the_warps_invert_far_from_the_surface() -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 - 2
    for category in CATEGORIES:
        warp = sample(category, 5).warp
        torch.testing.assert_close(warp.inverse(warp.forward(points)), points, atol=1e-9, rtol=0)


@pytest.mark.parametrize("category", ["chair", "table"])
def test_points_lie_on_the_surface_and_the_seed_decides(category: str) -> None:
    points, canonical, label = sample_points(category, 3, 400)
    assert points.shape == canonical.shape == (400, 3) and label.shape == (400,)
    member = sample(category, 3)
    assert float(member.structure.field(canonical).abs().max()) < 1e-9
    torch.testing.assert_close(member.warp.forward(canonical), points)
    assert torch.equal(member.structure.part_of(canonical), label)
    again, other = sample_points(category, 3, 400), sample_points(category, 4, 400)
    assert torch.equal(points, again[0]) and torch.equal(label, again[2])
    assert not torch.equal(points, other[0])
    assert sample(category, 3).traits == member.traits != sample(category, 4).traits


def test_points_are_spread_evenly_over_the_area(chairs: tuple[MemberMesh, MemberMesh]) -> None:
    """The share of points on each part is the part's share of the area."""
    member, fine = chairs[0].member, chairs[0].mesh
    label = sample_points("chair", ARMS, 4000)[2]
    for part in chairs[0].face_part.unique().tolist():
        share = float(fine.face_areas[chairs[0].face_part == part].sum() / fine.area)
        found = float((label == part).double().mean())
        assert abs(found - share) < 0.012 + 0.12 * share, member.structure.labels[part]


def test_a_mesh_is_sound_symmetric_and_on_the_surface(chairs: tuple[MemberMesh, MemberMesh]) -> None:
    for made in chairs:
        h = health(made.mesh)
        assert (
            h.is_closed and h.is_manifold and h.n_components == 1 and h.facing == "outward" and not h.problems
        )
        assert abs(made.mesh.n_verts - 1500) < 60
        other = made.symmetry
        assert torch.equal(other[other], torch.arange(made.mesh.n_verts))
        torch.testing.assert_close(made.mesh.verts[other], mirror_image(made.mesh.verts), atol=1e-12, rtol=0)
        mirrored = {frozenset(f) for f in other[made.mesh.faces].tolist()}
        assert mirrored == {frozenset(f) for f in made.mesh.faces.tolist()}
        assert float(made.member.structure.field(made.canonical).abs().max()) < 1e-9
        torch.testing.assert_close(made.member.warp.forward(made.canonical), made.mesh.verts)
        angles = smallest_angles(made.mesh)
        assert np.median(angles) > 40 and np.percentile(angles, 1) > 15


def test_parts_of_the_two_sides_mirror_each_other(chairs: tuple[MemberMesh, MemberMesh]) -> None:
    made, names = chairs[0], part_names("chair")
    swap = {"left": "right", "right": "left"}
    for vertex in range(0, made.mesh.n_verts, 7):
        name = names[made.vertex_part[vertex]]
        side, _, rest = name.partition("_")
        if side in swap and float(made.canonical[vertex, 2]) != 0:
            assert names[made.vertex_part[made.symmetry[vertex]]] == f"{swap[side]}_{rest}"
    seen = {names[i] for i in made.face_part.tolist()}
    assert {"seat", "back", "left_arm", "right_arm", "left_front_leg", "right_back_leg"} <= seen
    seat = made.mesh.verts[made.vertex_part == names.index("seat")]
    legs = made.mesh.verts[made.vertex_part == names.index("left_front_leg")]
    assert float(legs[:, 1].max()) < float(seat[:, 1].max()) and float(legs[:, 2].max()) < 0 < float(
        legs[:, 0].min()
    )


def test_absent_parts_have_no_counterpart(chairs: tuple[MemberMesh, MemberMesh]) -> None:
    """Between chairs with and without arms, arms have none; the rest has, but where arms melt in."""
    with_arms, without = chairs
    names = part_names("chair")
    samples, exists = member_correspondence(without, with_arms)
    arm = torch.tensor(["arm" in name for name in names])[with_arms.vertex_part]
    assert not exists[arm].any()
    legs = torch.tensor([name.endswith("leg") for name in names])[with_arms.vertex_part]
    assert exists[legs].all() and exists[~arm].double().mean() > 0.8
    corners = without.mesh.verts[without.mesh.faces[samples.face]]
    on_mesh = (samples.barycentric[..., None] * corners).sum(1)
    gap = (on_mesh - samples.points).norm(dim=1)[exists]
    edge = float(without.mesh.area / without.mesh.n_verts) ** 0.5
    assert float(gap.max()) < 0.5 * edge
    home, back = counterpart(with_arms.member, without.member.warp.inverse(samples.points))
    assert torch.equal(back, torch.ones_like(back))
    torch.testing.assert_close(home, with_arms.mesh.verts, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kinds", [("folding", "arms"), ("zigzag", "sides")])
def test_chairs_of_every_make_are_one_solid(kinds: tuple[str, str]) -> None:
    member = Member(chair_structure(*kinds, "panel"), Warp(()), {})
    mesh, part = draft(member)
    found = health(mesh)
    assert found.n_components == 2 and not len(
        found.nonmanifold_edges
    )  # each half is in one piece, and they meet:
    edges = torch.cat([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)]).sort(1).values
    edge, count = edges.unique(dim=0, return_counts=True)
    assert bool((count <= 2).all()) and float(mesh.verts[edge[count == 1], 2].abs().max()) < 1e-9
    names = {part_names("chair")[i] for i in part.unique().tolist()}
    assert {p.name for p in member.structure.parts if not p.pair} <= names
    assert {
        f"{side}_{p.name}" for p in member.structure.parts if p.pair for side in ("left", "right")
    } <= names
    marks = landmark_points(member.structure)
    assert float(member.structure.field(marks).abs().max()) < 1e-6
    meant = torch.tensor(list(member.structure.landmarks.values()), dtype=torch.float64)
    assert float((marks - meant).norm(dim=1).max()) < 0.12


def test_proportions_of_many_chairs_fit_together() -> None:
    """Knots of the warps increase whatever is drawn, and the kinds that are drawn are all there."""
    traits = [sample("chair", seed, wide=True).traits for seed in range(300)]
    for name, kinds in (
        ("style", CHAIR_STYLES),
        ("legs", CHAIR_LEGS),
        ("arms", CHAIR_ARMS),
        ("back", CHAIR_BACKS),
    ):
        assert {t[name] for t in traits} == set(kinds)
    heights = torch.tensor([float(t["seat_height"]) for t in traits])
    assert float(heights.min()) < 0.3 and float(heights.max()) > 0.7
    assert sample("table", 3, wide=True).traits == sample("table", 3).traits


def test_landmarks_stay_at_every_size(chairs: tuple[MemberMesh, MemberMesh]) -> None:
    fine = chairs[0]
    coarse = surface_mesh(fine.member, 700, seed=3)
    assert fine.landmarks.keys() == coarse.landmarks.keys() and len(set(fine.landmarks.values())) == len(
        fine.landmarks
    )
    for name, vertex in fine.landmarks.items():
        torch.testing.assert_close(
            coarse.mesh.verts[coarse.landmarks[name]], fine.mesh.verts[vertex], atol=1e-12, rtol=0
        )
        if name.startswith("left_"):
            assert int(fine.symmetry[vertex]) == fine.landmarks["right_" + name.removeprefix("left_")]


def test_landmarks_of_all_structures_are_on_the_surface() -> None:
    for category in CATEGORIES:
        for structure in {sample(category, seed).structure for seed in range(6)}:
            points = landmark_points(structure)
            given = torch.tensor(list(structure.landmarks.values()), dtype=torch.float64)
            assert float(structure.field(points).abs().max()) < 1e-9, structure
            assert float((points - given).norm(dim=1).max()) < 0.1, structure
            assert len(points) + int((points[:, 2] > 0).sum()) >= 9, structure


@pytest.mark.parametrize("category", CATEGORIES)
def test_members_of_many_seeds(category: str) -> None:
    """All can be made, and keep the sides apart."""
    for seed in range(60):
        member = sample(category, seed)
        pins = landmark_points(member.structure)
        x, y = member.warp.forward(pins), member.warp.forward(mirror_image(pins))
        torch.testing.assert_close(mirror_image(x), y, atol=1e-12, rtol=0)
        assert not ((x[:, 2] <= 0) & (pins[:, 2] > 0)).any()


@pytest.mark.parametrize("name", CATEGORIES)
def test_stored_surfaces_are_what_the_generator_makes(name: str) -> None:
    from experiments.gallery.make_rigid_meshes import SEEDS

    member, stored = sample(name, SEEDS[name]), geoframe.template(name)
    canonical = member.warp.inverse(stored.verts)
    settled = canonical
    for _ in range(3):
        settled = project(member.structure.field, settled)
    assert float((settled - canonical).norm(dim=1).quantile(0.999)) < 1e-5
    for key, vertex in geoframe.template_landmarks(name).items():
        if not key.startswith("left_"):
            i = list(member.structure.landmarks).index(key.removeprefix("right_"))
            place = member.warp.forward(landmark_points(member.structure))[i]
            torch.testing.assert_close(stored.verts[vertex], place, atol=2e-6, rtol=0)
    other = template_symmetry(name)
    torch.testing.assert_close(stored.verts[other], mirror_image(stored.verts), atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("n_verts", [500, 5000, 50_000])
def test_sizes(category: str, n_verts: int) -> None:
    for seed in SAME[category]:
        made = surface_mesh(sample(category, seed), n_verts)
        h = health(made.mesh)
        assert h.is_closed and h.is_manifold and h.n_components == 1 and h.facing == "outward"
        assert 0.9 * n_verts < made.mesh.n_verts < 1.3 * n_verts + 200


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="category: expected one of 'chair'"):
        sample("sofa", 0)
    with pytest.raises(ValueError, match="category: expected one of 'chair'"):
        part_names("sofa")
    with pytest.raises(ValueError, match="seed: expected an integer at least 0"):
        sample("chair", -1)
    with pytest.raises(ValueError, match="n_points: expected an integer at least 1"):
        sample_points("chair", 0, 0)
    with pytest.raises(ValueError, match="n_verts: expected an integer at least 200"):
        surface_mesh(sample("chair", 0), 100)
    with pytest.raises(ValueError, match="canonical: expected shape"):
        counterpart(sample("chair", 0), torch.zeros(3, 2))
