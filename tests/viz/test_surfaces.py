"""Pictures: camera, views and alignment against known rotations, what the pixels show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import viz
from geoframe.surface import Mesh


def _sphere(n: int = 24, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Mesh:
    """A closed latitude-longitude sphere, outward oriented, stretched along the axes."""
    theta = np.linspace(0, np.pi, n + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
    t, p = (x.ravel() for x in np.meshgrid(theta, phi, indexing="ij"))
    verts = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], 1)
    verts = np.concatenate([verts, [[0, 1, 0], [0, -1, 0]]]) * stretch
    at = np.arange(len(t)).reshape(n - 1, 2 * n)
    a, b, c, d = at[:-1], np.roll(at, -1, 1)[:-1], at[1:], np.roll(at, -1, 1)[1:]
    top, low = np.full(2 * n, len(t)), np.full(2 * n, len(t) + 1)
    faces = [(a, c, b), (b, c, d), (top, at[0], np.roll(at[0], -1)), (low, np.roll(at[-1], -1), at[-1])]
    faces = np.concatenate([np.stack([x.ravel() for x in f], 1) for f in faces])
    return Mesh(torch.tensor(verts), torch.tensor(faces))


def test_the_camera_centres_what_is_used_and_fills_the_picture():
    verts = np.random.default_rng(0).normal(size=(9, 3)) * (5, 1, 2)
    verts[8] = 100.0  # of no face
    faces = np.array([[0, 1, 2], [3, 4, 5], [5, 6, 7]])
    view = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    view *= np.linalg.det(view)
    camera = viz.surfaces._camera(verts, faces, view, (120, 200))
    pixels = camera.project(torch.tensor(verts)).numpy()
    low, high = pixels[:8, :2].min(0), pixels[:8, :2].max(0)
    np.testing.assert_allclose((low + high) / 2, (100, 60))
    assert ((high - low) / (200, 120)).max() == pytest.approx(0.92)
    np.testing.assert_allclose(np.diff(pixels[:, 0]), float(camera.scale) * np.diff(verts @ view[0]))
    np.testing.assert_allclose(np.diff(pixels[:, 1]), -float(camera.scale) * np.diff(verts @ view[1]))
    np.testing.assert_allclose(np.diff(pixels[:, 2]), -np.diff(verts @ view[2]))  # depth grows away


def test_the_nearer_of_two_sheets_is_seen():
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=torch.float64)
    verts = torch.cat([square, 0.5 * square + torch.tensor([0.0, 0.0, 1.0])])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    colors = np.repeat([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]], 4, 0)
    front = viz.surfaces.draw_surface(
        Mesh(verts, faces), colors=colors, view=np.eye(3), size=(64, 64)
    ).astype(int)
    assert front[32, 32, 2] > front[32, 32, 0] and front[8, 8, 0] > front[8, 8, 2]
    back = viz.surfaces.draw_surface(
        Mesh(verts, faces), colors=colors, view=np.diag([-1.0, 1.0, -1.0]), size=(64, 64)
    ).astype(int)
    assert back[32, 32, 0] > back[32, 32, 2]  # from behind the large one hides the small one


def test_two_sided_colours_have_the_sign_and_the_size():
    values = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    colors = viz.surfaces.two_sided(values, 1.0)
    redness = colors[:, 0] - colors[:, 2]
    np.testing.assert_array_equal(np.sign(redness), np.sign(values))
    assert redness[4] > 2 * redness[3] > 0 > redness[1] and redness[0] < 2 * redness[1]
    np.testing.assert_array_equal(viz.surfaces.two_sided(np.zeros(3)), np.full((3, 3), colors[2]))


def test_a_sheet_keeps_the_pictures_and_leaves_room_for_titles_only():
    pictures = [np.full((30, 20, 3), tone, np.uint8) for tone in (10, 90, 200)]
    plain = viz.surfaces.sheet(pictures, columns=2)
    assert plain.shape == (60, 40, 3)
    np.testing.assert_array_equal(plain[:30, 20:], pictures[1])
    assert (plain[30:, 20:] == 255).all()
    titled = viz.surfaces.sheet(pictures, ("a", "b", "c"), columns=2)
    band = (len(titled) - 60) // 2
    np.testing.assert_array_equal(titled[30 + band : 60 + band, :20], pictures[2])
    assert (titled[30 : 30 + band] < 200).any()


def test_alignment_recovers_a_rotation_and_never_reflects():
    rng = np.random.default_rng(1)
    verts = rng.normal(size=(50, 3)) * (3, 2, 1)
    R, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    R *= np.linalg.det(R)
    p2p = rng.permutation(50)
    moved = verts[p2p] @ R + 5.0
    np.testing.assert_allclose(viz.surfaces.align_rotation(verts, moved, p2p), R, atol=1e-12)
    mirrored = viz.surfaces.align_rotation(verts, verts * (1, 1, -1), np.arange(50))
    assert np.linalg.det(mirrored) == pytest.approx(1)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_thing_that_stands_on_one_side_only_is_drawn_upright(axis):
    e = np.eye(3)
    up, right, front = e[axis], e[0], e[3 - axis]
    verts = np.array([-right - front, right - front, right + front, -right + front, 3 * up])
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    view = viz.surfaces.good_view(Mesh(torch.tensor(verts), torch.tensor(faces)))
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view) == pytest.approx(1)
    assert view[1] @ up > 0.9


def test_a_long_body_is_seen_from_its_side():
    view = viz.surfaces.good_view(_sphere(stretch=(4.0, 1.0, 1.0)))
    assert abs(view[0, 0]) > 0.7  # the long axis lies across the picture
    assert abs(view[0, 1]) < 1e-9  # and the horizon is level


def test_a_sphere_is_a_lit_disc_on_white():
    picture = viz.surfaces.draw_surface(
        _sphere(), colors=np.full((1106, 3), (0.2, 0.4, 0.9)), size=(120, 160)
    )
    assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8
    drawn = (picture < 250).any(-1)
    radius = 0.92 * 120 / 2
    assert drawn.sum() == pytest.approx(np.pi * radius**2, rel=0.02)
    assert (picture[0, 0] == 255).all()
    body = picture[drawn].astype(int)
    assert (body[:, 2] >= body[:, 0]).mean() > 0.99  # blue stays blue
    assert picture[30, 70].sum() > picture[95, 90].sum() + 60  # lit from above, left


def test_inside_out_faces_are_drawn_alike():
    mesh = _sphere()
    inverted = Mesh(mesh.verts, mesh.faces.flip(1))
    view = np.eye(3)
    difference = viz.surfaces.draw_surface(mesh, view=view, size=(60, 60)).astype(
        int
    ) - viz.surfaces.draw_surface(inverted, view=view, size=(60, 60))
    assert np.abs(difference).max() <= 1


def test_dots_in_front_are_discs_and_dots_behind_are_specks():
    mesh = _sphere()
    front, behind = int(mesh.verts[:, 2].argmax()), int(mesh.verts[:, 2].argmin())
    plain = viz.surfaces.draw_surface(mesh, view=np.eye(3), size=(200, 200))

    def red(dots):
        picture = viz.surfaces.draw_surface(mesh, view=np.eye(3), size=(200, 200), dots=dots).astype(int)
        return int((picture[..., 0] - picture[..., 1] > 60).sum()), int((picture != plain).any(-1).sum())

    assert red([]) == (0, 0)
    assert red([front])[0] > 4
    assert red([behind])[0] == 0 and 0 < red([behind])[1] < red([front])[1]


def test_colours_are_smooth_and_tell_the_flanks_apart():
    mesh = _sphere(stretch=(2.0, 1.0, 1.0))
    verts = mesh.verts.numpy()
    colors = viz.surfaces.position_colors(verts, np.eye(3))
    assert colors.min() >= 0 and colors.max() <= 1
    edges = mesh.faces.numpy()[:, :2]
    assert np.linalg.norm(colors[edges[:, 0]] - colors[edges[:, 1]], axis=1).max() < 0.25
    left, right = verts[:, 2] > 0.9, verts[:, 2] < -0.9
    assert np.linalg.norm(colors[left].mean(0) - colors[right].mean(0)) > 0.3


def test_the_identity_gives_two_equal_halves_and_a_flip_does_not():
    mesh = _sphere(stretch=(3.0, 1.0, 1.5))
    same = viz.surfaces.draw_match(mesh, mesh, torch.arange(mesh.n_verts), size=(100, 140))
    np.testing.assert_array_equal(same[:, :140], same[:, 140:])
    mirrored = mesh.verts * torch.tensor([1.0, 1.0, -1.0])
    flip = torch.cdist(mesh.verts, mirrored).argmin(1)
    flipped = viz.surfaces.draw_match(mesh, mesh, flip, size=(100, 140)).astype(int)
    assert np.abs(flipped[:, :140] - flipped[:, 140:]).max() > 40


def test_titles_add_a_line_below():
    mesh = _sphere(8)
    p2p = torch.arange(mesh.n_verts)
    plain = viz.surfaces.draw_match(mesh, mesh, p2p, size=(60, 80))
    titled = viz.surfaces.draw_match(mesh, mesh, p2p, size=(60, 80), titles=("a", "b"))
    np.testing.assert_array_equal(titled[: len(plain)], plain)
    assert (titled[len(plain) :] < 200).any()


def test_a_nan_vertex_is_left_out():
    mesh = _sphere(8)
    verts = mesh.verts.clone()
    verts[3] = float("nan")
    assert (viz.surfaces.draw_surface(Mesh(verts, mesh.faces), size=(40, 40)) < 250).any()


def test_bad_input(tmp_path):
    mesh = _sphere(4)
    with pytest.raises(ValueError, match=r"verts: expected shape \(V, 3\)"):
        viz.surfaces.draw_surface(Mesh(mesh.verts.expand(2, -1, -1), mesh.faces))
    with pytest.raises(ValueError, match="colors: expected shape"):
        viz.surfaces.draw_surface(mesh, colors=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="p2p_21: expected shape"):
        viz.surfaces.draw_match(mesh, mesh, torch.arange(3))
    with pytest.raises(ValueError, match="cannot write"):
        (tmp_path / "file").touch()
        viz.surfaces.save_picture(np.zeros((4, 4, 3), np.uint8), tmp_path / "file" / "x.png")


def test_save_picture_round_trip(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3)).astype(np.uint8)
    for photograph in (False, True):
        viz.surfaces.save_picture(picture, tmp_path / "sub" / "p.png", photograph=photograph)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sub" / "p.png")), picture)
