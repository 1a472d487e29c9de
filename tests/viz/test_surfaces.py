"""Pictures: the z-buffer against a naive loop, views and alignment against known rotations, what the pixels show."""

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


def _naive_depth(
    screen: np.ndarray, faces: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    owner, depth = np.full((height, width), -1), np.full((height, width), -np.inf)
    for i, (a, b, c) in enumerate(screen[faces]):
        M = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
        for y in range(height):
            for x in range(width):
                w = np.linalg.solve(M, [x + 0.5, y + 0.5, 1])
                z = w @ [a[2], b[2], c[2]]
                if w.min() >= 0 and z > depth[y, x]:
                    owner[y, x], depth[y, x] = i, z
    return owner, depth


def test_the_z_buffer_agrees_with_a_naive_loop(monkeypatch):
    rng = np.random.default_rng(0)
    screen = rng.uniform(-4, 24, (30, 3))
    faces = rng.permutation(30).reshape(10, 3)
    owner, depth = _naive_depth(screen, faces, 18, 20)
    for fragments in (4_000_000, 50):  # all at once, and in chunks
        monkeypatch.setattr(viz.surfaces, "_FRAGMENTS", fragments)
        got, bary, z = viz.surfaces.rasterize_depth(screen, faces, 18, 20)
        np.testing.assert_array_equal(got, owner)
        np.testing.assert_allclose(z[got >= 0], depth[owner >= 0])
        at = (bary[got >= 0][:, :, None] * screen[faces[got[got >= 0]]]).sum(1)
        rows, cols = np.nonzero(got >= 0)
        np.testing.assert_allclose(at[:, :2], np.stack([cols, rows], 1) + 0.5)
    assert (owner >= 0).mean() > 0.2


def test_two_triangles_of_a_square_leave_no_crack_on_their_diagonal():
    square = np.array([[0, 0, 0], [16, 0, 0], [16, 16, 0], [0, 16, 0.0]])
    owner, _, _ = viz.surfaces.rasterize_depth(square, np.array([[0, 1, 2], [0, 2, 3]]), 16, 16)
    assert (owner >= 0).all()


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
    viz.surfaces.save_picture(picture, tmp_path / "sub" / "p.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sub" / "p.png")), picture)
