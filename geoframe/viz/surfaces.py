"""Pictures of surfaces and of the maps between them, drawn on the CPU without a screen.

Everything here is for looking at: `geoframe.render.rasterize` finds what each pixel sees, the shading is plain numpy.
Colours travel along a map as any function does: ``colors2 = colors1[p2p_21]``.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_shape
from geoframe._files import atomic_path
from geoframe._threads import together
from geoframe._types import Array
from geoframe.camera import WeakPerspective
from geoframe.render import rasterize
from geoframe.surface.mesh import Mesh
from geoframe.transforms import nearest_rotation
from geoframe.viz.page import packed, png

_FILL = 0.92  # of the picture, that the surface fills
_LIGHTS = (((-0.45, 0.75, 0.60), 0.62), ((0.85, 0.15, 0.45), 0.20))  # direction in view axes, strength
_AMBIENT = 0.34
_GLOSS = (0.10, 40)  # between the first light and the viewer: strength, power of the cosine
_BLUE, _WHITE, _RED = (0.13, 0.40, 0.67), (0.97, 0.97, 0.97), (0.70, 0.09, 0.17)
_DOT, _DOT_RIM = (225, 30, 75), (255, 255, 255)


def as_numpy(x: Any) -> Array:
    """A tensor of any device, or what numpy takes, as an array."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def _geometry(mesh: Mesh) -> tuple[Array, Array]:
    """(V, 3) float64 positions, NaN rows moved to the centroid, and (F, 3) faces that touch none of them."""
    check_shape(mesh.verts, "V 3", "verts")
    verts, faces = as_numpy(mesh.verts).astype(np.float64), as_numpy(mesh.faces)
    good = np.asarray(np.isfinite(verts).all(axis=1))
    if not good.all():
        verts = np.where(good[:, None], verts, verts[good].mean(0) if good.any() else 0.0)
        faces = faces[good[faces].all(1)]
    return verts, faces


def _stands(verts: Array, up: Array) -> bool:
    """Whether the surface, set down along `up`, rests on a base that holds its centre."""
    from scipy.spatial import ConvexHull, QhullError

    height = verts @ up
    low = height < height.min() + 0.04 * np.ptp(height)
    plane = np.linalg.svd(up[None])[2][1:]
    try:
        hull = ConvexHull(verts[low] @ plane.T)
    except (QhullError, ValueError):
        return False
    centre = plane @ (verts.min(0) + verts.max(0)) / 2
    return bool((hull.equations[:, :2] @ centre + hull.equations[:, 2] <= 0).all())


def good_view(mesh: Mesh) -> Array:
    """A three-quarter view: (3, 3) rotation whose rows are the picture's right, up and towards-the-viewer.

    Up is the file's y axis, or its z axis if the surface stands on that one only. The surface is then turned
    about it to show its broadest side, and 35 degrees further so that its finer half (where the vertices
    are denser: the face of an animal) comes to the front; the camera looks down by 15 degrees.
    """
    verts, faces = _geometry(mesh)
    y, z = np.eye(3)[1], np.eye(3)[2]
    up = z if _stands(verts, z) and not _stands(verts, y) else y
    first = np.roll(up, 1) if up is y else np.eye(3)[0]
    second = np.cross(up, first)
    a, b, c = verts[faces].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)

    def towards(angle: float) -> Array:
        return np.cos(angle) * first + np.sin(angle) * second

    angles = np.linspace(0, np.pi, 36, endpoint=False)
    side = angles[np.argmax([np.abs(normals @ towards(t)).sum() for t in angles])]
    areas = np.linalg.norm(normals, axis=1)[:, None]
    detail = verts[np.unique(faces)].mean(0) - ((a + b + c) / 3 * areas).sum(0) / max(areas.sum(), 1e-300)
    turns = [side + flank + turn for flank in (0, np.pi) for turn in (-0.61, 0.61)]
    # the finer half comes forward; of the two flanks take the one where it points left, as in a profile
    best = max(turns, key=lambda t: detail @ towards(t) - 0.5 * detail @ np.cross(up, towards(t)))
    back = np.cos(0.26) * towards(best) + np.sin(0.26) * up
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back])


def align_rotation(verts1: Array, verts2: Array, p2p_21: Array) -> Array:
    """(3, 3) rotation R with ``verts2 @ R.T`` turned as ``verts1[p2p_21]`` is (Procrustes without reflection or scale).

    Args:
        verts1: (V1, 3).
        verts2: (V2, 3).
        p2p_21: (V2,) for every vertex of surface 2 its vertex of surface 1.
    """
    pulled = verts1[p2p_21] - verts1[p2p_21].mean(0)
    return nearest_rotation(torch.from_numpy(pulled.T @ (verts2 - verts2.mean(0)))).numpy()


def position_colors(verts: Array, view: Array) -> Array:
    """(V, 3) sRGB in [0, 1]: a smooth colour for every position, hue along the body, lightness upwards.

    The two flanks differ in hue, so that a left-right flip shows.
    """
    p = verts @ view.T
    p = 2 * (p - p.min(0)) / np.maximum(np.ptp(p, axis=0), 1e-300) - 1
    hue = 0.9 + 1.9 * p[:, 0] - 1.0 * p[:, 2]
    L, C = 0.74 + 0.09 * p[:, 1], 0.135
    lab = np.stack([L, C * np.cos(hue), C * np.sin(hue)], 1)
    return _oklab_to_srgb(lab)


def canonical_colors(mesh: Mesh) -> Array:
    """(V, 3) sRGB in [0, 1]: a colour for every place of a surface, the same in each picture that is drawn of it.

    Smooth, by `position_colors` as `good_view` sees the surface: hue runs along the body, up it where the surface is
    higher than it is long, and the two flanks differ.

    Args:
        mesh: the canonical surface (V, 3), in the pose in which it is kept.
    """
    verts, view = _geometry(mesh)[0], good_view(mesh)
    wide, high = np.ptp(verts @ view.T, axis=0)[:2]
    return position_colors(verts, view if wide >= high else view[[1, 0, 2]])


def two_sided(values: Array, full: float = 0.98) -> Array:
    """Colours of numbers with a sign: near white at 0, red above, blue below.

    Args:
        values: (...) any numbers.
        full: the quantile of their size, in (0, 1], where a colour is full.

    Returns:
        (..., 3) sRGB in [0, 1].
    """
    t = np.clip(values / max(float(np.quantile(np.abs(values), full)), 1e-300), -1, 1)[..., None]
    white = np.array(_WHITE)
    return white + np.abs(t) * (np.where(t > 0, _RED, _BLUE) - white)


def _oklab_to_srgb(lab: Array) -> Array:
    """(..., 3) OKLab to sRGB in [0, 1], clipped. Source: Ottosson 2020, "A perceptual color space"."""
    to_lms = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    return _linear_to_srgb(((lab @ to_lms.T) ** 3) @ to_rgb.T)


def _linear_to_srgb(x: Array) -> Array:
    x = np.clip(x, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def _srgb_to_linear(x: Array) -> Array:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def draw_surface(
    mesh: Mesh,
    *,
    colors: Any = None,
    view: Array | None = None,
    size: tuple[int, int] = (640, 640),
    dots: Any = (),
) -> Array:
    """Draw one surface, lit, on white.

    Args:
        mesh: one surface (V, 3), not a batch. Faces are lit from both sides.
        colors: (V, 3) sRGB in [0, 1]; None takes the mesh's own, else a light grey.
        view: (3, 3) rotation, rows right, up, towards the viewer; None takes `good_view`.
        size: (height, width) in pixels.
        dots: (n,) vertex indices to mark; those hidden from the viewer are small specks.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    from geoframe.viz._lit_numba import lit

    verts, faces = _geometry(mesh)
    height, width = size
    if colors is None:
        colors = np.full((len(verts), 3), 0.8) if mesh.colors is None else as_numpy(mesh.colors)[:, :3]
    colors = as_numpy(colors)
    check_shape(colors, f"{len(verts)} 3", "colors")
    view = good_view(mesh) if view is None else view
    over = 2  # samples a pixel, each way
    camera = _camera(verts, faces, view, (height * over, width * over))
    surface = Mesh(torch.from_numpy(verts), torch.from_numpy(faces))
    seen = rasterize(surface.verts, surface.faces, camera)
    owner, depth = seen.face_id.numpy(), seen.depth.numpy()
    middle = np.s_[over // 2 :: over, over // 2 :: over]
    image = lit(
        (owner, seen.barycentric.numpy()),
        faces,
        (
            surface.vertex_normals.numpy() @ view.T,
            np.where(
                surface.face_normals_scaled.numpy() @ view[2] < 0, -1.0, 1.0
            ),  # those seen from the inside
            _srgb_to_linear(colors.clip(0, 1)).astype(np.float64),
        ),
        _occlusion(np.where(owner[middle] < 0, np.inf, depth[middle])),
        _lights(),
    )
    picture = np.full((height, width, 3), 255, np.uint8)
    drawn = (owner.reshape(height, over, width, over) >= 0).any((1, 3))
    picture[drawn] = (_linear_to_srgb(image[drawn]) * 255 + 0.5).astype(np.uint8)
    if len(dots):
        reach = 0.02 * np.ptp((verts @ view.T)[faces.ravel()], axis=0).max() if len(faces) else 0.0
        points = camera.project(surface.verts).numpy()[as_numpy(dots).astype(np.int64)]
        row = np.clip(points[:, 1].astype(int), 0, owner.shape[0] - 1)
        col = np.clip(points[:, 0].astype(int), 0, owner.shape[1] - 1)
        hidden = (owner[row, col] >= 0) & (depth[row, col] < points[:, 2] - reach)
        picture = _draw_dots(picture, points[:, :2] / over, hidden)
    return picture


def _lights() -> tuple[Array, Array, float, Array, float, int]:
    """Two soft lights, a sky and a little gloss, as `lit` takes them; directions in view axes."""
    ways = np.array([way for way, _ in _LIGHTS])
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    half = ways[0] + (0, 0, 1)
    return ways, np.array([s for _, s in _LIGHTS]), _AMBIENT, half / np.linalg.norm(half), *_GLOSS


def _camera(verts: Array, faces: Array, view: Array, size: tuple[int, int]) -> WeakPerspective:
    """The orthographic camera of a view, with the vertices in use centred in the picture."""
    R_wc = (
        np.diag([1.0, -1.0, -1.0]) @ view
    )  # the view's rows are right, up, towards; the camera's right, down, away
    used = (verts[np.unique(faces)] if len(faces) else verts) @ R_wc[:2].T
    centre = (used.min(0) + used.max(0)) / 2
    height, width = size
    scale = _FILL * (np.array([width, height]) / np.maximum(np.ptp(used, axis=0), 1e-300)).min()
    t = np.array([width / 2, height / 2]) - scale * centre
    return WeakPerspective(torch.from_numpy(R_wc), torch.from_numpy(t), torch.tensor(scale), size)


def _occlusion(depth: Array) -> Array:
    """(H, W) in (0, 1]: darker where the surroundings stand nearer to the viewer than the pixel itself.

    `depth` (H, W) grows away from the viewer, infinite where nothing is seen.
    """
    from geoframe.flow.descriptors import smooth  # scipy's filters are slow to import

    hit = np.isfinite(depth)
    if not hit.any():
        return np.ones(depth.shape)
    filled = np.where(hit, depth, 0.0)
    buried = np.zeros(depth.shape)
    every_other = torch.as_tensor(np.stack([filled, hit])[:, ::2, ::2], dtype=torch.float32)  # smooth: enough
    for radius in (0.006, 0.02):
        sigma = radius * max(depth.shape) / 2
        sums, weights = smooth(every_other[None], sigma)[0].numpy()
        around = (
            (sums / np.maximum(weights, 1e-6)).repeat(2, 0).repeat(2, 1)[: depth.shape[0], : depth.shape[1]]
        )
        buried += np.clip((filled - around) / max(0.12 * np.ptp(depth[hit]), 1e-300), 0, 1)
    return 1 - 0.45 * np.clip(buried, 0, 1)


def _draw_dots(picture: Array, points: Array, hidden: Array) -> Array:
    """Discs at `points` (n, 2), pixels; small specks where something hides them (n,)."""
    height, width = picture.shape[:2]
    out = picture.astype(np.float32)
    for i in np.argsort(~hidden, kind="stable"):
        x, y = points[i]
        r = 0.0085 * max(height, width) * (0.4 if hidden[i] else 1.0) + 0.25
        top, left = max(int(y - r) - 1, 0), max(int(x - r) - 1, 0)
        part = out[top : int(y + r) + 2, left : int(x + r) + 2]
        down, right = np.indices(part.shape[:2]) + 0.5
        away = np.hypot(right + left - x, down + top - y)
        discs = [(r, _DOT_RIM)] if hidden[i] else [(r, _DOT_RIM), (0.75 * r, _DOT)]
        for radius, color in discs:
            cover = np.clip(radius - away + 0.5, 0, 1)[..., None]
            part += cover * (np.array(color, np.float32) - part)
    return (out + 0.5).astype(np.uint8)


def page_surface(mesh: Mesh, *, name: str, view: Array | None = None, dots: Any = ()) -> dict[str, Any]:
    """What `surface_view.js` draws: positions turned to the first view and scaled to the unit ball, faces, dots.

    Args:
        mesh: one surface (V, 3).
        name: how the page calls it.
        view: (3, 3) rotation, rows right, up, towards the viewer; None takes `good_view`.
        dots: (n,) vertex indices to mark.
    """
    verts = (
        np.nan_to_num(as_numpy(mesh.verts).astype(np.float64)) @ (good_view(mesh) if view is None else view).T
    )
    verts = verts - (verts.min(0) + verts.max(0)) / 2
    return {
        "name": name,
        "verts": packed(verts / max(np.linalg.norm(verts, axis=1).max(), 1e-300), "<f4"),
        "faces": packed(as_numpy(mesh.faces), "<u4"),
        "landmarks": as_numpy(dots).tolist(),
    }


def surface_caption(name: str, mesh: Mesh) -> str:
    """What stands below a surface, as HTML."""
    size = f"{mesh.n_verts:,} vertices, {mesh.n_faces:,} faces"
    return f'<b>{html.escape(name)}</b> <span class="dim">{size}</span>'


def draw_match(
    mesh1: Mesh,
    mesh2: Mesh,
    p2p_21: Any,
    *,
    landmarks: Any = None,
    titles: tuple[str, str] = ("", ""),
    size: tuple[int, int] = (620, 760),
) -> Array:
    """Both surfaces side by side, seen from the same side, a smooth colouring of the first pulled to the second.

    Args:
        mesh1: surface 1 (V1, 3).
        mesh2: surface 2 (V2, 3).
        p2p_21: (V2,) for every vertex of surface 2 its vertex of surface 1; ``colors2 = colors1[p2p_21]``.
        landmarks: (L, 2) pairs of a vertex of surface 1 and one of surface 2, drawn as dots; or None.
        titles: written under the two surfaces.
        size: (height, width) of each half in pixels.

    Returns:
        (H, 2 W, 3) uint8 sRGB; a line of text is added below when there are titles.
    """
    p2p = as_numpy(p2p_21).astype(np.int64)
    check_shape(p2p, f"{mesh2.n_verts}", "p2p_21")
    verts1, verts2 = _geometry(mesh1)[0], _geometry(mesh2)[0]
    view1 = good_view(mesh1)
    view2 = view1 @ align_rotation(verts1, verts2, p2p)
    colors1 = position_colors(verts1, view1)
    pairs = np.zeros((0, 2), np.int64) if landmarks is None else as_numpy(landmarks).astype(np.int64)
    halves = together(
        lambda: draw_surface(mesh1, colors=colors1, view=view1, size=size, dots=pairs[:, 0]),
        lambda: draw_surface(mesh2, colors=colors1[p2p], view=view2, size=size, dots=pairs[:, 1]),
    )
    return sheet(np.split(_trim(np.concatenate(halves, axis=1)), 2, axis=1), titles, columns=2)


def sheet(pictures: Sequence[Array], titles: Sequence[str] = (), *, columns: int = 4) -> Array:
    """Pictures of one size in rows on white, each with its title below.

    Args:
        pictures: n of (H, W, 3) uint8 sRGB.
        titles: one for each picture, or none; where all are empty no room is left for them.
        columns: pictures a row, fewer where there are fewer pictures.

    Returns:
        (rows * (H + a line), columns * W, 3) uint8 sRGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    line = max(24, height // 16) if any(titles) else 0
    band = round(1.4 * line)
    image = Image.new("RGB", (columns * width, rows * (height + band)), "white")
    draw = ImageDraw.Draw(image)
    for i, picture in enumerate(pictures):
        x, y = i % columns * width, i // columns * (height + band)
        image.paste(Image.fromarray(picture), (x, y))
        if line:
            font = ImageFont.load_default(size=round(0.62 * line))
            at = (x + width / 2, y + height + band / 2)
            draw.text(at, titles[i], fill=(70, 70, 70), font=font, anchor="mm")
    return np.asarray(image)


def _trim(picture: Array) -> Array:
    """Cut the white rows above and below down to a small margin."""
    rows = np.flatnonzero((picture < 255).any((1, 2)))
    if not len(rows):
        return picture
    margin = picture.shape[0] // 24
    return picture[max(rows[0] - margin, 0) : rows[-1] + margin]


def save_picture(picture: Array, path: str | Path, *, photograph: bool = False) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        picture: (H, W, 3) uint8.
        path: of the file.
        photograph: see `geoframe.viz.page.png`.

    Raises:
        ValueError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(png(picture, photograph=photograph))
