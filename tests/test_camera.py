"""Cameras: closed forms, round trips, pytorch3d's own numbers, mirror images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.camera import (
    Pinhole,
    WeakPerspective,
    box_around,
    from_opencv,
    from_opengl,
    from_pytorch3d,
    look_at,
    mirrored,
    ndc_to_pixels,
    normalised_to_pixels,
    pinhole_view,
    pixels_to_ndc,
    pixels_to_normalised,
    to_opencv,
    to_opengl,
    to_pytorch3d,
    weak_view,
)

SIZE = (48, 80)


def _random(seed=0, *batch):
    g = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn((*batch, *shape), generator=g, dtype=torch.float64)


def _cameras(*batch):
    r = _random(3, *batch)
    R, _ = look_at(3 + r(3))
    focal, principal = 60 + r(2), 20 + 5 * r(2)
    return [
        Pinhole(R, r(3) + torch.tensor([0.0, 0, 9]).double(), focal, principal, SIZE),
        WeakPerspective(R, 30 + r(2), 10 + r(), SIZE),
    ]


def _same(a, b, points):
    torch.testing.assert_close(a.project(points), b.project(points), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_unproject_inverts_project(batch):
    points = _random(1, *batch)(7, 3)
    for camera in _cameras(*batch):
        assert camera.batch_shape == batch
        torch.testing.assert_close(camera.unproject(camera.project(points)), points)
        shared = camera.project(points.reshape(-1, 7, 3)[0])  # one set of points, every camera
        assert shared.shape == (*batch, 7, 3)


def test_a_pinhole_by_hand():
    eye3 = torch.eye(3)
    camera = Pinhole(eye3, torch.zeros(3), torch.tensor([10.0, 20.0]), torch.tensor([40.0, 24.0]), SIZE)
    got = camera.project(torch.tensor([[1.0, 1.0, 2.0]]))
    assert got.tolist() == [[45.0, 34.0, 2.0]]
    weak = WeakPerspective(eye3, torch.tensor([40.0, 24.0]), torch.tensor(10.0), SIZE)
    assert weak.project(torch.tensor([[1.0, 1.0, 2.0]])).tolist() == [[50.0, 34.0, 2.0]]


def test_look_at_puts_the_target_ahead_and_up_up():
    r = _random(0, 6)
    eye, target, up = 5 + r(3), r(3), torch.tensor([0.0, 1, 0]).double()
    R, t = look_at(eye, target)
    identity = torch.eye(3).double().expand(6, 3, 3)
    torch.testing.assert_close(R @ R.mT, identity)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(6).double())
    seen = (R @ target[..., None])[..., 0] + t
    torch.testing.assert_close(seen[:, :2], torch.zeros(6, 2).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(seen[:, 2], (target - eye).norm(dim=1))
    assert ((R @ up)[:, 1] < 0).all()  # y points down in the image
    with pytest.raises(ValueError, match="eye: expected a point off the axis"):
        look_at(torch.tensor([0.0, 2.0, 0.0]))


def test_views_frame_what_they_say():
    eye, target = torch.tensor([3.0, 1, 2]).double(), (0.3, -0.2, 0.1)
    middle = torch.tensor([target]).double()
    weak = weak_view(eye, SIZE, target=target, extent=2.0)
    assert weak.scale == 12
    torch.testing.assert_close(weak.project(middle)[0, :2], torch.tensor([40.0, 24.0]).double())
    pinhole = pinhole_view(eye, SIZE, target=target, fov=90.0)
    torch.testing.assert_close(pinhole.centre, eye)
    torch.testing.assert_close(pinhole.project(middle)[0, :2], torch.tensor([40.0, 24.0]).double())
    torch.testing.assert_close(pinhole.focal, torch.tensor([24.0, 24.0]).double())
    with pytest.raises(ValueError, match="fov: expected degrees between 0 and 180"):
        pinhole_view(eye, SIZE, fov=0.0)


def test_pytorch3d_projects_to_the_same_pixels():
    folder = os.environ.get("GEOFRAME_DATA")
    path = Path(folder or "").parent / "reference" / "cameras.npz"
    if not folder or not path.is_file():
        pytest.skip("needs reference/cameras.npz beside the folder named by GEOFRAME_DATA")
    d = {k: torch.as_tensor(v).double() for k, v in np.load(path).items()}
    camera = from_pytorch3d(d["R"], d["T"], d["focal_ndc"], d["principal_ndc"], SIZE)
    pixels = camera.project(d["points"])
    # pytorch3d's screen: the same pixels, and 1 / depth or depth in the third column
    torch.testing.assert_close(pixels[:, :2], d["screen_48x80"][:, :2], rtol=0, atol=2e-5)
    torch.testing.assert_close(pixels[:, 2], d["view"][:, 2], rtol=1e-6, atol=0)
    torch.testing.assert_close(pixels_to_ndc(pixels, SIZE)[:, :2], d["ndc"][:, :2], rtol=0, atol=1e-6)
    torch.testing.assert_close(camera.centre, d["centre"], rtol=1e-6, atol=0)
    flipped = camera.to_camera(d["points"]) * torch.tensor([-1.0, -1, 1])
    torch.testing.assert_close(flipped, d["view"], rtol=0, atol=1e-6)
    for ours, theirs in zip(
        to_pytorch3d(camera), (d["R"], d["T"], d["focal_ndc"], d["principal_ndc"]), strict=True
    ):
        torch.testing.assert_close(ours, theirs.expand_as(ours))


@pytest.mark.parametrize("batch", [(), (4,)])
def test_conversions_return(batch):
    points = _random(1, *batch)(9, 3)
    pinhole, weak = _cameras(*batch)
    _same(from_opencv(*to_opencv(pinhole), SIZE), pinhole, points)
    _same(from_pytorch3d(*to_pytorch3d(pinhole), SIZE), pinhole, points)
    for camera in (pinhole, weak):
        back = from_opengl(*to_opengl(camera, near=0.1, far=50.0), SIZE)
        assert type(back) is type(camera)
        _same(back, camera, points)


def test_opencv_counts_pixel_centres_from_zero():
    camera = _cameras()[0]
    K, R, t = to_opencv(camera)
    X = _random(5)(1, 3)
    u = K @ (R @ X[0] + t)
    torch.testing.assert_close(u[:2] / u[2] + 0.5, camera.project(X)[0, :2])
    K[0, 1] = 0.1
    with pytest.raises(ValueError, match=r"K: expected .* found skew"):
        from_opencv(K, R, t, SIZE)


def test_opengl_clips_where_it_should():
    near, far = 0.5, 20.0
    for camera in _cameras():
        view, projection = to_opengl(camera, near=near, far=far)
        for depth, expected in ((near, -1.0), (far, 1.0)):
            corner = camera.unproject(torch.tensor([[80.0, 0.0, depth]]).double())  # upper right of the image
            clip = projection @ view @ torch.cat([corner[0], torch.ones(1).double()])
            ndc = torch.tensor([1.0, 1.0, expected]).double()
            torch.testing.assert_close(clip[:3] / clip[3], ndc)
    skewed = projection.clone()
    skewed[0, 1] = 0.3
    with pytest.raises(ValueError, match="projection: expected no skew"):
        from_opengl(view, skewed, SIZE)
    with pytest.raises(ValueError, match="projection: expected square pixels"):
        from_opengl(view, projection, (48, 90))
    with pytest.raises(ValueError, match="projection: expected a last row"):
        from_opengl(view, projection + 1.0 * (torch.arange(16).view(4, 4) == 14), SIZE)


def test_a_mirrored_camera_sees_the_flipped_image():
    points, n = _random(1)(9, 3) / 2, torch.tensor([0.6, 0.0, 0.8]).double()
    S = torch.eye(3).double() - 2 * torch.outer(n, n)
    for camera in _cameras():
        twin = mirrored(camera, 2 * n)
        torch.testing.assert_close(torch.linalg.det(twin.R_wc), torch.ones(()).double())
        expected = camera.project(points) * torch.tensor([-1.0, 1, 1]) + torch.tensor([80.0, 0, 0])
        torch.testing.assert_close(twin.project(points @ S), expected)
        _same(mirrored(twin, n), camera, points)


def test_resizing_scales_the_pixels():
    points = _random(1)(9, 3)
    for camera in _cameras():
        half = camera.resized((24, 40))
        torch.testing.assert_close(half.project(points)[:, :2] * 2, camera.project(points)[:, :2])
    wide = _cameras()[0].resized((48, 40)).project(points)
    torch.testing.assert_close(wide[:, 0] * 2, _cameras()[0].project(points)[:, 0])
    with pytest.raises(ValueError, match="size: expected the proportions"):
        camera.resized((48, 40))


def test_image_coordinates():
    corners = torch.tensor([[0.0, 0.0], [80.0, 48.0]])
    expected = torch.tensor([[5 / 3, 1.0], [-5 / 3, -1.0]])  # x left, y up
    torch.testing.assert_close(pixels_to_ndc(corners, SIZE), expected)
    assert pixels_to_normalised(corners, SIZE).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    x = torch.rand(5, 3)
    torch.testing.assert_close(ndc_to_pixels(pixels_to_ndc(x, SIZE), SIZE), x)
    torch.testing.assert_close(normalised_to_pixels(pixels_to_normalised(x[:, :2], SIZE), SIZE), x[:, :2])


def test_batch_members_and_casts():
    for camera in _cameras(4):
        points = _random(1)(9, 3)
        torch.testing.assert_close(camera[2].project(points), camera.project(points)[2])
        assert camera[1:3].batch_shape == (2,)
        single = camera.to(torch.float32)
        assert single.project(points.float()).dtype == torch.float32


def test_bad_input():
    pinhole, weak = _cameras()
    with pytest.raises(TypeError, match=r"points: expected dtype torch.float64"):
        pinhole.project(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"points: expected shape \(..., N, 3\)"):
        weak.project(torch.zeros(3).double())
    with pytest.raises(ValueError, match=r"t: expected shape \(..., 3\)"):
        Pinhole(pinhole.R_wc, weak.t, pinhole.focal, pinhole.principal, SIZE)
    with pytest.raises(ValueError, match=r"scale: expected torch.float64"):
        WeakPerspective(weak.R_wc, weak.t, weak.scale.float(), SIZE)
    with pytest.raises(TypeError, match=r"size: expected a tuple \(H, W\)"):
        WeakPerspective(weak.R_wc, weak.t, weak.scale, 64)
    with pytest.raises(ValueError, match="size: expected an integer at least 1"):
        WeakPerspective(weak.R_wc, weak.t, weak.scale, (0, 4))


@pytest.mark.parametrize("kind", ["pinhole", "weak"])
def test_crop_and_roll_move_pixels(kind):
    """A cropped camera projects to the crop's pixels; a rolled one to pixels turned about the centre."""
    eye = torch.tensor([[1.0, 0.7, 3.0], [0.2, 2.0, 2.5]]).double()
    size = (40, 60)
    view = pinhole_view(eye, size) if kind == "pinhole" else weak_view(eye, size, extent=1.5)
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double() / 2
    pixels = view.project(points)
    box = box_around(pixels, margin=0.1, aspect=3 / 2)
    crop = view.cropped(box, (20, 30))
    inside = crop.project(points)
    expected = (pixels[..., :2] - box[:, None, :2]) * 20 / (box[:, 3] - box[:, 1])[:, None, None]
    torch.testing.assert_close(inside[..., :2], expected)
    torch.testing.assert_close(inside[..., 2], pixels[..., 2])
    assert inside[..., :2].min() >= 1 and (inside[..., 0] <= 29).all() and (inside[..., 1] <= 19).all()
    rolled = view.rolled(torch.tensor([90.0, 0.0]))
    turned = rolled.project(points)
    torch.testing.assert_close(turned[1], pixels[1])
    x, y = (pixels[0, :, :2] - torch.tensor([30.0, 20.0])).unbind(1)
    torch.testing.assert_close(
        turned[0, :, :2] - torch.tensor([30.0, 20.0]).double(), torch.stack([-y, x], 1)
    )
    torch.testing.assert_close(torch.linalg.det(rolled.R_wc), torch.ones(2).double())


def test_bad_boxes_and_rolls():
    weak = weak_view(torch.tensor([0.0, 0.0, 1.0]), (8, 8))
    with pytest.raises(ValueError, match="box: expected x0 < x1"):
        weak.cropped([1, 1, 1, 2], (4, 4))
    with pytest.raises(ValueError, match="box: expected the proportions of size"):
        weak.cropped([1.0, 1.0, 3.0, 2.0], (4, 4))
    with pytest.raises(ValueError, match="points: expected shape"):
        box_around(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="aspect: expected a positive number"):
        box_around(torch.zeros(3, 2), aspect=0.0)
    stretched = pinhole_view(torch.tensor([0.0, 0.0, 1.0]), (8, 8)).resized((8, 16))
    with pytest.raises(ValueError, match="focal: expected equal numbers"):
        stretched.rolled(10.0)


def test_other_programs_must_give_rotations():
    K, t = torch.tensor([[9.0, 0, 4], [0, 9, 4], [0, 0, 1]]), torch.zeros(3)
    eye = torch.eye(3)
    mirror = torch.diag(torch.tensor([1.0, 1, -1]))
    for R, message in ((1.01 * eye, "R.T R off the identity by 0.02"), (mirror, "found a reflection")):
        with pytest.raises(ValueError, match=message):
            from_opencv(K, R, t, (8, 8))
        with pytest.raises(ValueError, match=message):
            from_pytorch3d(R, t, torch.ones(2), torch.zeros(2), (8, 8))
        view = torch.eye(4)
        view[:3, :3] = R
        with pytest.raises(ValueError, match=message):
            from_opengl(view, torch.eye(4), (8, 8))
    rounded = torch.tensor([[0.707, -0.707, 0], [0.707, 0.707, 0], [0, 0, 1]])
    from_opencv(K.numpy(), rounded.numpy(), [0.0, 0.0, 0.0], (8, 8))  # three digits are enough


def test_half_precision_becomes_single():
    view = pinhole_view(torch.tensor([0.0, 1.0, 3.0]).bfloat16(), (8, 8))
    assert view.R_wc.dtype == torch.float32 and view.to(torch.float16).R_wc.dtype == torch.float32
    assert view.project(torch.zeros(2, 3).half()).dtype == torch.float32
