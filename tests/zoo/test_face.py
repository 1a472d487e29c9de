"""The head: expressions move what they should, identities differ, exact correspondence, a sound mesh."""

from __future__ import annotations

import pytest
import torch

from geoframe.surface import health
from geoframe.zoo.face import EXPRESSIONS, PARTS, head_structure, sample_head
from geoframe.zoo.template import Member, MemberMesh, counterpart, landmark_points, mirror_image, surface_mesh

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def made() -> MemberMesh:
    return surface_mesh(sample_head(1, {"open_mouth": 0.7}), 900)


def place(member: Member, name: str) -> torch.Tensor:
    structure = head_structure()
    return member.warp.forward(landmark_points(structure)[list(structure.landmarks).index(name)])


def test_mesh(made: MemberMesh) -> None:
    h = health(made.mesh)
    assert h.is_closed and h.is_manifold and h.n_components == 1 and h.genus == 0 and h.facing == "outward"
    assert not h.problems
    assert torch.equal(made.symmetry[made.symmetry], torch.arange(made.mesh.n_verts))
    torch.testing.assert_close(
        made.mesh.verts[made.symmetry], mirror_image(made.mesh.verts), atol=1e-12, rtol=0
    )
    assert len(made.landmarks) >= 30 and len(set(made.landmarks.values())) == len(made.landmarks)
    assert {PARTS[i] for i in made.face_part.tolist()} == set(PARTS)
    assert float(head_structure().field(made.canonical).abs().max()) < 1e-9


def test_there_and_back_between_identities_and_expressions(made: MemberMesh) -> None:
    other = sample_head(2, dict.fromkeys(EXPRESSIONS, 0.8))
    there, exists = counterpart(other, made.canonical)
    assert exists.all()
    home = made.member.warp.forward(other.warp.inverse(there))
    torch.testing.assert_close(home, made.mesh.verts, atol=1e-9, rtol=0)
    assert float((there - home).norm(dim=1).mean()) > 0.02


@pytest.mark.parametrize(
    ("expression", "landmark", "axis", "sign"),
    [
        ("smile", "mouth_corner", 1, 1),
        ("smile", "mouth_corner", 2, 1),
        ("open_mouth", "chin", 1, -1),
        ("open_mouth", "lower_lip_bottom", 1, -1),
        ("raised_brows", "brow_middle", 1, 1),
        ("frown", "brow_inner", 1, -1),
        ("frown", "brow_inner", 2, -1),
        ("pucker", "mouth_corner", 2, -1),
    ],
)
def test_what_an_expression_moves(expression: str, landmark: str, axis: int, sign: int) -> None:
    for seed in range(3):
        moved = (
            place(sample_head(seed, {expression: 1.0}), landmark) - place(sample_head(seed), landmark)
        ).tolist()
        assert sign * moved[axis] > 0.025
        half = (
            place(sample_head(seed, {expression: 0.5}), landmark) - place(sample_head(seed), landmark)
        ).tolist()
        assert 0.2 < half[axis] / moved[axis] < 0.8


def test_expressions_leave_the_back_of_the_head() -> None:
    rest, all_at_once = sample_head(0), sample_head(0, dict.fromkeys(EXPRESSIONS, 1.0))
    for name in ("back_of_head", "crown", "ear_top", "nape"):
        assert float((place(rest, name) - place(all_at_once, name)).norm()) < 0.02
    lids = torch.tensor([[0.82, 0.16, 0.31], [0.82, 0.04, 0.31]], dtype=torch.float64)
    closed = sample_head(0, {"closed_eyes": 1.0})
    gap, shut = (float(m.warp.forward(lids)[:, 1].diff().abs()) for m in (rest, closed))
    assert shut < 0.3 * gap


def test_identities_differ_and_the_seed_decides() -> None:
    a, again, b = sample_head(3), sample_head(3), sample_head(4)
    points = landmark_points(head_structure())
    assert torch.equal(a.warp.forward(points), again.warp.forward(points)) and a.traits == again.traits
    assert float((a.warp.forward(points) - b.warp.forward(points)).norm(dim=1).mean()) > 0.02
    assert sample_head(3, {"smile": 0.5}).traits["smile"] == 0.5


def test_every_identity_can_be_made() -> None:
    points = landmark_points(head_structure())
    for seed in range(40):
        warp = sample_head(seed, dict.fromkeys(EXPRESSIONS, 1.0)).warp
        torch.testing.assert_close(warp.inverse(warp.forward(points)), points, atol=1e-9, rtol=0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"expression: expected one of 'smile'.*found 'wink'"):
        sample_head(0, {"wink": 1.0})
    with pytest.raises(
        ValueError, match=r"expression: expected strengths from 0 to 1, found 2.0 for 'smile'"
    ):
        sample_head(0, {"smile": 2.0})
    with pytest.raises(ValueError, match="seed: expected an integer at least 0"):
        sample_head(-1)
