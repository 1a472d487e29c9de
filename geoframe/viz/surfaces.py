"""Pictures of surfaces and of the maps between them, drawn on the CPU without a screen.

Everything here is for looking at: an orthographic z-buffer with smooth shading in plain numpy. Colours travel
along a map as any function does: ``colors2 = colors1[p2p_21]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from geoframe._check import check_shape
from geoframe._files import atomic_path
from geoframe._types import Array
from geoframe.surface.mesh import Mesh

_FRAGMENTS = 200_000  # fragments in flight at once: bounds the memory of the z-buffer, and fits the caches
_LIGHTS = (((-0.45, 0.75, 0.60), 0.62), ((0.85, 0.15, 0.45), 0.20))  # direction in view axes, strength
_AMBIENT = 0.34
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


def _normals(verts: Array, faces: Array) -> Array:
    """(V, 3) area-weighted unit normals."""
    a, b, c = verts[faces].transpose(1, 0, 2)
    n = np.cross(b - a, c - a)
    out = np.zeros_like(verts)
    for i in range(3):
        np.add.at(out, faces[:, i], n)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-300)


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
    """(3, 3) rotation R with ``verts2 @ R.T`` turned as ``verts1[p2p_21]`` is (Kabsch; no reflection, no scale)."""
    pulled = verts1[p2p_21] - verts1[p2p_21].mean(0)
    u, _, vt = np.linalg.svd(pulled.T @ (verts2 - verts2.mean(0)))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


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


def _twice_area(screen: Array, faces: Array) -> Array:
    """(F,) twice the signed area of each face in the picture plane."""
    a, b, c = screen[faces][..., :2].transpose(1, 0, 2)
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])


def rasterize_depth(screen: Array, faces: Array, height: int, width: int) -> tuple[Array, Array, Array]:
    """Orthographic z-buffer; the nearest face (largest depth) wins in every pixel.

    Args:
        screen: (V, 3) x right and y down in pixels, depth growing towards the viewer.
        faces: (F, 3).

    Returns:
        (H, W) face index or -1, (H, W, 3) barycentric coordinates, (H, W) depth (-inf where empty).
    """
    twice = _twice_area(screen, faces)
    corners = screen[faces]
    low = np.clip(np.ceil(corners[..., :2].min(1) - 0.5), 0, (width, height)).astype(np.int64)
    high = np.clip(np.floor(corners[..., :2].max(1) - 0.5) + 1, 0, (width, height)).astype(np.int64)
    size = np.maximum(high - low, 0) * (twice != 0)[:, None]
    counts = size.prod(1)
    weights = _plane_coordinates(corners, np.where(twice == 0, 1.0, twice))
    depth = np.full(height * width, -np.inf)
    owner = np.full(height * width, -1, dtype=np.int64)
    chunk = np.cumsum(counts) // _FRAGMENTS
    for part in np.split(np.arange(len(faces)), np.flatnonzero(np.diff(chunk)) + 1):
        f = np.repeat(part, counts[part])
        k = np.arange(len(f)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        row = k // size[f, 0]
        x, y = low[f, 0] + k - row * size[f, 0], low[f, 1] + row
        w1, w2 = (w[f, 0] * (x + 0.5) + w[f, 1] * (y + 0.5) + w[f, 2] for w in weights)
        inside = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1)
        f, pixel, w1, w2 = f[inside], (y * width + x)[inside], w1[inside], w2[inside]
        z = corners[f, :, 2]
        d = z[:, 0] + w1 * (z[:, 1] - z[:, 0]) + w2 * (z[:, 2] - z[:, 0])
        order = np.argsort(d)
        order = order[d[order] > depth[pixel[order]]]
        depth[pixel[order]], owner[pixel[order]] = (
            d[order],
            f[order],
        )  # of one pixel's fragments the last stays
    bary = np.zeros((height * width, 3))
    pixel = np.flatnonzero(owner >= 0)
    f, x, y = owner[pixel], pixel % width + 0.5, pixel // width + 0.5
    for i, w in enumerate(weights, 1):
        bary[pixel, i] = w[f, 0] * x + w[f, 1] * y + w[f, 2]
    bary[pixel, 0] = 1 - bary[pixel, 1] - bary[pixel, 2]
    shape = (height, width)
    return owner.reshape(shape), bary.reshape(*shape, 3), depth.reshape(shape)


def _plane_coordinates(corners: Array, twice: Array) -> tuple[Array, Array]:
    """Two (F, 3) arrays: the weight of corner 1 (of corner 2) at (x, y) is the row's product with (x, y, 1)."""
    (ax, ay), (bx, by), (cx, cy) = corners[..., :2].transpose(1, 2, 0)
    one = np.stack([cy - ay, ax - cx, cx * ay - ax * cy], 1) / twice[:, None]
    two = np.stack([ay - by, bx - ax, ax * by - bx * ay], 1) / twice[:, None]
    return one, two


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
    verts, faces = _geometry(mesh)
    height, width = size
    if colors is None:
        colors = np.full((len(verts), 3), 0.8) if mesh.colors is None else as_numpy(mesh.colors)[:, :3]
    colors = as_numpy(colors)
    check_shape(colors, f"{len(verts)} 3", "colors")
    view = good_view(mesh) if view is None else view
    over = 2  # samples a pixel, each way
    screen = _to_screen(verts, faces, view, height * over, width * over)
    owner, bary, depth = rasterize_depth(screen, faces, height * over, width * over)
    hit = owner >= 0
    corners, weights = faces[owner[hit]], bary[hit].astype(np.float32)
    normal = _blend(weights, (_normals(verts, faces) @ view.T)[corners])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    normal[(_twice_area(screen, faces) > 0)[owner[hit]]] *= -1  # seen from the inside (y points down)
    albedo = _blend(weights, _srgb_to_linear(colors.clip(0, 1))[corners])
    occlusion = _occlusion(depth[over // 2 :: over, over // 2 :: over]).repeat(over, 0).repeat(over, 1)
    image = np.ones((height * over, width * over, 3), np.float32)
    image[hit] = _shade(albedo, normal, occlusion[hit].astype(np.float32))
    image = np.mean([image[i::over, j::over] for i in range(over) for j in range(over)], axis=0)
    picture = (_linear_to_srgb(image) * 255 + 0.5).astype(np.uint8)
    if len(dots):
        reach = 0.02 * np.ptp(screen[faces.ravel()], axis=0).max() if len(faces) else 0.0
        picture = _draw_dots(picture, screen[as_numpy(dots).astype(np.int64)], depth, over, reach)
    return picture


def _blend(weights: Array, values: Array) -> Array:
    """(n, C) float32: the three corners' values (n, 3, C) by their weights (n, 3)."""
    return np.einsum("nk,nkc->nc", weights, values.astype(np.float32))


def _to_screen(verts: Array, faces: Array, view: Array, height: int, width: int) -> Array:
    """(V, 3) pixels and depth, the used vertices centred and filling 92 % of the picture."""
    p = verts @ view.T
    used = p[np.unique(faces)] if len(faces) else p
    centre = (used.min(0) + used.max(0)) / 2
    extent = np.maximum(np.ptp(used, axis=0), 1e-300)
    scale = 0.92 * min(width / extent[0], height / extent[1])
    p = (p - centre) * scale
    return np.stack([width / 2 + p[:, 0], height / 2 - p[:, 1], p[:, 2]], 1)


def _occlusion(depth: Array) -> Array:
    """(H, W) in (0, 1]: darker where the surroundings stand nearer to the viewer than the pixel itself."""
    from scipy.ndimage import gaussian_filter

    hit = np.isfinite(depth)
    if not hit.any():
        return np.ones(depth.shape)
    filled = np.where(hit, depth, 0.0)
    buried = np.zeros(depth.shape)
    for radius in (0.006, 0.02):
        sigma = radius * max(depth.shape)
        around = gaussian_filter(filled, sigma) / np.maximum(gaussian_filter(hit.astype(float), sigma), 1e-6)
        buried += np.clip((around - filled) / max(0.12 * np.ptp(depth[hit]), 1e-300), 0, 1)
    return 1 - 0.45 * np.clip(buried, 0, 1)


def _shade(albedo: Array, normal: Array, occlusion: Array) -> Array:
    """Linear colours lit by two soft lights, a sky and a little gloss; `normal` in view axes."""
    light = _AMBIENT * (0.75 + 0.25 * normal[:, 1])
    for direction, strength in _LIGHTS:
        d = np.array(direction) / np.linalg.norm(direction)
        light += strength * np.clip((normal @ d + 0.25) / 1.25, 0, 1)
    d = np.array(_LIGHTS[0][0]) / np.linalg.norm(_LIGHTS[0][0]) + (0, 0, 1)
    gloss = 0.10 * np.clip(normal @ (d / np.linalg.norm(d)), 0, 1) ** 40
    return albedo * (1.12 * light * occlusion)[:, None] + gloss[:, None]


def _draw_dots(picture: Array, points: Array, depth: Array, over: int, reach: float) -> Array:
    """Discs at `points` (n, 3); a small white speck where something lies in front by more than `reach`."""
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((width * over, height * over), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    radius = 0.0085 * max(height, width) * over
    rows = np.clip(points[:, 1].astype(int), 0, depth.shape[0] - 1)
    cols = np.clip(points[:, 0].astype(int), 0, depth.shape[1] - 1)
    hidden = depth[rows, cols] > points[:, 2] + reach
    for i in np.argsort(~hidden, kind="stable"):
        x, y = points[i, :2]
        r = radius * (0.4 if hidden[i] else 1.0)
        fill, rim = (_DOT_RIM, 0) if hidden[i] else (_DOT, max(1, round(r / 3)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=_DOT_RIM, width=rim)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


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
        mesh1, mesh2: the surfaces (V1, 3), (V2, 3).
        p2p_21: (V2,) for every vertex of surface 2 its vertex of surface 1; ``colors2 = colors1[p2p_21]``.
        landmarks: (L, 2) pairs of a vertex of surface 1 and one of surface 2, drawn as dots; or None.
        titles: written under the two surfaces.
        size: (height, width) of each half in pixels.

    Returns:
        (H, 2 W, 3) uint8 sRGB; a line of text is added below when there are titles.
    """
    from PIL import Image, ImageDraw, ImageFont

    p2p = as_numpy(p2p_21).astype(np.int64)
    check_shape(p2p, f"{mesh2.n_verts}", "p2p_21")
    verts1, verts2 = _geometry(mesh1)[0], _geometry(mesh2)[0]
    view1 = good_view(mesh1)
    view2 = view1 @ align_rotation(verts1, verts2, p2p)
    colors1 = position_colors(verts1, view1)
    pairs = np.zeros((0, 2), np.int64) if landmarks is None else as_numpy(landmarks).astype(np.int64)
    halves = [
        draw_surface(mesh1, colors=colors1, view=view1, size=size, dots=pairs[:, 0]),
        draw_surface(mesh2, colors=colors1[p2p], view=view2, size=size, dots=pairs[:, 1]),
    ]
    picture = _trim(np.concatenate(halves, axis=1))
    if not any(titles):
        return picture
    line = max(24, size[0] // 16)
    image = Image.new("RGB", (picture.shape[1], picture.shape[0] + 2 * line), "white")
    image.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=round(0.62 * line))
    for i, title in enumerate(titles):
        at = (size[1] * (i + 0.5), picture.shape[0] + 0.7 * line)
        draw.text(at, title, fill=(70, 70, 70), font=font, anchor="mm")
    return np.asarray(image)


def _trim(picture: Array) -> Array:
    """Cut the white rows above and below down to a small margin."""
    rows = np.flatnonzero((picture < 255).any((1, 2)))
    if not len(rows):
        return picture
    margin = picture.shape[0] // 24
    return picture[max(rows[0] - margin, 0) : rows[-1] + margin]


def save_picture(picture: Array, path: str | Path) -> None:
    """Write a (H, W, 3) uint8 picture as PNG, whole or not at all.

    Raises:
        ValueError: the file cannot be written.
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
