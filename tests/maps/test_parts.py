"""What is matched of files that hold more than one clean surface, and what their own vertices get."""

from __future__ import annotations

import pytest
import torch

from geoframe.canonical import Surface
from geoframe.maps import match
from geoframe.maps.parts import carried_back, main_part
from geoframe.surface import Mesh
from geoframe.surface.shapes import icosphere


def seamed(mesh: Mesh) -> Mesh:
    """The mesh cut along the plane x = 0: vertices of faces that lie on both sides stand twice, as a texture has it."""
    right = mesh.verts[mesh.faces].mean(1)[:, 0] > 0
    shared = torch.zeros(mesh.n_verts, dtype=torch.bool)
    shared[mesh.faces[right]] = True
    left_only = torch.zeros_like(shared)
    left_only[mesh.faces[~right]] = True
    twice = torch.nonzero(shared & left_only).ravel()
    twin = torch.arange(mesh.n_verts)
    twin[twice] = mesh.n_verts + torch.arange(len(twice))
    faces = torch.where(right[:, None], twin[mesh.faces], mesh.faces)
    return Mesh(torch.cat([mesh.verts, mesh.verts[twice]]), faces)


def test_a_clean_surface_is_matched_as_it_is(bumpy):
    surface = Surface.of(bumpy)
    part = main_part(surface)
    assert part.surface is surface and part.notes == ()
    p2p = torch.arange(surface.n_verts)
    assert carried_back(part, part, p2p) is p2p


@pytest.mark.parametrize("wound", ["alike", "piece", "all"])
@pytest.mark.parametrize(
    "from_quantile", [0.75, 0.96]
)  # the second is smaller than what is laid without landmarks
def test_a_piece_that_was_cut_off_and_moved_is_laid_where_it_belongs(bumpy, wound, from_quantile):
    """Three landmarks on it; the part between the two is missing, all is three times as large, and the piece or all is
    inside out."""
    along, whole = bumpy.verts[:, 0], Surface.of(bumpy)
    body, piece = along <= along.quantile(0.6), along >= along.quantile(from_quantile)
    faces = bumpy.faces[body[bumpy.faces].all(1) | piece[bumpy.faces].all(1)]
    kept = torch.unique(faces)
    number = torch.full((bumpy.n_verts,), -1)
    number[kept] = torch.arange(len(kept))
    verts = bumpy.verts[kept].clone()
    turn = torch.tensor([[0.0, -1.0, 0.0], [0.6, 0.0, -0.8], [0.8, 0.0, 0.6]]).double()
    mine = piece[kept]
    verts[mine] = verts[mine] @ turn.T + torch.tensor([2.0, -3.0, 1.0])
    faces, of_piece = number[faces], mine[number[faces]].all(1)
    turned = {"alike": torch.zeros_like(of_piece), "piece": of_piece, "all": torch.ones_like(of_piece)}[wound]
    faces[turned] = faces[turned].flip(1)
    part = main_part(Surface(3 * verts, faces))
    assert part.surface.n_verts < int((~mine).sum()) + 1
    at = torch.nonzero(mine).ravel()
    at = at[[0, len(at) // 3, -1]]
    landmarks = torch.stack([kept[at], at], 1)
    out = carried_back(main_part(whole), part, kept[part.vertex], landmarks)
    gap = (bumpy.verts[out] - bumpy.verts[kept])[mine].norm(dim=1) / bumpy.area.sqrt()
    assert float(gap.mean()) < 0.02


def test_what_lies_on_a_surface_stays_there(bumpy):
    """A small ball on it is no piece that was cut off, although some of the other surface is left free."""
    ball, whole = icosphere(1), Surface.of(bumpy)
    small = 0.05 * ball.verts + bumpy.verts[7] * 1.02
    worn = Surface(torch.cat([bumpy.verts, small]), torch.cat([bumpy.faces, ball.faces + bumpy.n_verts]))
    part = main_part(worn)
    to = torch.arange(bumpy.n_verts)
    far = (bumpy.verts - bumpy.verts[7]).norm(dim=1)
    to[far > far.quantile(0.8)] = int(far.argmin())  # a map that leaves a fifth of it free, far away
    out = carried_back(main_part(whole), part, to[part.vertex])
    gap = (bumpy.verts[out[bumpy.n_verts :]] - bumpy.verts[7]).norm(dim=1)
    assert float(gap.max()) < 0.3


def test_a_piece_beside_few_vertices():
    """A largest component of fewer vertices than are asked where a piece goes."""
    ball = icosphere(1)
    two = Surface(
        torch.cat([ball.verts, 0.9 * ball.verts + 3]), torch.cat([ball.faces, ball.faces + ball.n_verts])
    )
    whole = Surface.of(icosphere(2))
    part = main_part(two)
    p2p = torch.zeros(part.surface.n_verts, dtype=torch.int64)
    out = carried_back(main_part(whole), part, p2p)
    assert out.shape == (two.n_verts,) and int(out.max()) < whole.n_verts


def test_seams_are_joined_and_both_twins_answer(bumpy):
    cut = seamed(bumpy)
    part = main_part(Surface.of(cut), "surface 2")
    n = cut.n_verts - bumpy.n_verts
    assert part.surface.n_verts == bumpy.n_verts and f"surface 2 has {n} doubled vertices" in part.notes[0]
    at = torch.tensor([0, 100, 300, 500])
    found = match(bumpy, cut, torch.stack([at, at], 1), k=60)
    back = torch.cat([torch.arange(bumpy.n_verts), torch.full((n,), -1)])
    same = (cut.verts[bumpy.n_verts :, None] == bumpy.verts).all(-1).double().argmax(1)
    back[bumpy.n_verts :] = same
    assert torch.equal(found.p2p_21, back) and found.p2p_12.max() < cut.n_verts
    assert any("doubled" in w for w in found.warnings)
    basis = found.basis2
    gram = basis.vecs.T @ (basis.mass[:, None] * basis.vecs)
    torch.testing.assert_close(gram, torch.eye(60, dtype=torch.float64), atol=1e-8, rtol=0)


def test_a_vertex_very_far_out_is_left_out_and_told(bumpy):
    """A spectrum with it would be all about it; it goes where its neighbour goes."""
    verts = bumpy.verts.clone()
    verts[7] = 1e40
    spoilt = Surface.of(bumpy.with_verts(verts))
    part = main_part(spoilt, "surface 1")
    assert part.notes == ("surface 1 has 1 vertex very far from all others, first 7: matched was the rest",)
    assert part.surface.n_verts == bumpy.n_verts - 1 and int(part.number[7]) == -1
    places = torch.arange(bumpy.n_verts)
    back = carried_back(main_part(Surface.of(bumpy)), part, places[places != 7])
    assert torch.equal(back[places != 7], places[places != 7]) and 0 <= int(back[7]) < bumpy.n_verts


def test_sheets_that_only_touch_stay_apart():
    ball = icosphere(1)
    top = ball.verts[:, 2].argmax()
    other = ball.verts + torch.tensor([0.0, 0, 2]) * ball.verts[top, 2]
    two = Mesh(torch.cat([ball.verts, other]), torch.cat([ball.faces, ball.faces + ball.n_verts]))
    notes = main_part(Surface.of(two)).notes
    assert len(notes) == 1 and "2 components (50%, 50% of the area)" in notes[0]


def test_the_other_components_follow_by_their_position(bumpy):
    """Four parts onto themselves, turned, enlarged and shuffled: every vertex comes back."""
    parts = [bumpy, *(icosphere(1).to(torch.float64) for _ in range(3))]
    moved = [
        p.verts * s + torch.tensor([x, 0.0, 0])
        for p, s, x in zip(parts, (1, 0.3, 0.2, 0.1), (0, 2, -2, 3), strict=True)
    ]
    start = torch.tensor([0, *(len(v) for v in moved)]).cumsum(0)
    whole = Mesh(
        torch.cat(moved).double(),
        torch.cat([p.faces + s for p, s in zip(parts, start.tolist(), strict=False)]),
    )
    R = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    R = R * R.det().sign()
    order = torch.randperm(whole.n_verts, generator=torch.Generator().manual_seed(1))
    other = Mesh(5 * whole.verts[order] @ R.T + 1, torch.argsort(order)[whole.faces])
    at = torch.tensor([0, 100, 300, 500])
    found = match(whole, other, torch.stack([at, torch.argsort(order)[at]], 1), k=60)
    assert float((found.p2p_21 == order).double().mean()) > 0.99
    assert sum("4 components" in w for w in found.warnings) == 2


def test_vertices_in_no_face_go_with_their_neighbour_and_are_told(bumpy):
    loose = Mesh(torch.cat([bumpy.verts, bumpy.verts[7:8] * 1.01]), bumpy.faces)
    at = torch.tensor([0, 100, 300, 500])
    found = match(bumpy, loose, torch.stack([at, at], 1), k=60)
    assert found.p2p_21[-1] == 7 and int(found.p2p_12.max()) < bumpy.n_verts
    assert any("1 vertices in no face" in w or "1 vertex in no face" in w for w in found.warnings)


def test_landmarks_on_other_components_alone_are_refused(bumpy):
    ball = icosphere(0).to(torch.float64)
    more = Mesh(
        torch.cat([bumpy.verts, 0.1 * ball.verts + 5]), torch.cat([bumpy.faces, ball.faces + bumpy.n_verts])
    )
    with pytest.raises(ValueError, match="landmarks: expected some on the largest component"):
        match(more, more, torch.full((1, 2), bumpy.n_verts), k=20)


def test_a_component_with_a_landmark_moves_as_that_does(bumpy):
    """A ball that has moved far away from the rest comes back by one landmark on it."""
    ball = icosphere(2).to(torch.float64)
    n, faces = bumpy.n_verts, torch.cat([bumpy.faces, icosphere(2).faces + bumpy.n_verts])
    one, two = (
        Surface(torch.cat([bumpy.verts, 0.3 * ball.verts + bumpy.verts.new_tensor(at)]), faces)
        for at in ([2.0, 0, 0], [0, -5.0, 1])
    )
    same = torch.arange(n + ball.n_verts)
    parts = main_part(one), main_part(two)
    landmark = torch.tensor([[n + 5, n + 5], [3, 3]])
    assert torch.equal(carried_back(*parts, torch.arange(n), landmark), same)
