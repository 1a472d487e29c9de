"""The compiled loop of pictures of surfaces: each pixel blended, lit and averaged in one pass."""

from __future__ import annotations

import numpy as np

from geoframe._compiled import compiled, share
from geoframe._types import Array


def lit(
    seen: tuple[Array, Array],
    faces: Array,
    looks: tuple[Array, Array, Array],
    occlusion: Array,
    lights: tuple[Array, Array, float, Array, float, int],
) -> Array:
    """(H, W, 3) float32, linear colours on white, each pixel the mean of its samples.

    Args:
        seen: of all samples the face, -1 for none (H n, W n), and barycentric coordinates (H n, W n, 3).
        faces: (F, 3).
        looks: normals (V, 3) and the sign of each face (F,) that turns them to the viewer, linear colours (V, 3).
        occlusion: (H, W), what light is multiplied by.
        lights: directions (L, 3), strengths (L,), ambient light, direction of the gloss (3,), its strength, and the
            power of its cosine.
    """
    height, width = occlusion.shape
    out = np.ones((height, width, 3), np.float32)
    bands = 8
    edges = [height * i // bands for i in range(bands + 1)]

    arrays = [np.ascontiguousarray(x) for x in (*seen, faces, *looks, occlusion)]

    def run(i: int) -> None:
        _lit_rows(*arrays, *lights, edges[i], edges[i + 1], out)

    share(run, [(i,) for i in range(bands)])
    return out


@compiled
def _lit_rows(
    owner,
    bary,
    faces,
    normals,
    sign,
    albedo,
    occlusion,
    ways,
    strengths,
    ambient,
    half,
    gloss,
    power,
    y0,
    y1,
    out,
):
    over = len(owner) // len(occlusion)
    part = 1.0 / (over * over)
    for row in range(y0, y1):
        for col in range(out.shape[1]):
            red, green, blue, n = 0.0, 0.0, 0.0, 0
            for y in range(row * over, (row + 1) * over):
                for x in range(col * over, (col + 1) * over):
                    f = owner[y, x]
                    if f < 0:
                        continue
                    n += 1
                    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                    a, b, c = bary[y, x, 0], bary[y, x, 1], bary[y, x, 2]
                    nx = a * normals[i, 0] + b * normals[j, 0] + c * normals[k, 0]
                    ny = a * normals[i, 1] + b * normals[j, 1] + c * normals[k, 1]
                    nz = a * normals[i, 2] + b * normals[j, 2] + c * normals[k, 2]
                    long = sign[f] / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-30)
                    nx, ny, nz = nx * long, ny * long, nz * long
                    light = ambient * (0.75 + 0.25 * ny)
                    for w in range(len(strengths)):
                        toward = ways[w, 0] * nx + ways[w, 1] * ny + ways[w, 2] * nz
                        light += strengths[w] * max((toward + 0.25) / 1.25, 0.0)
                    light *= 1.12 * occlusion[row, col]
                    shine = gloss * max(half[0] * nx + half[1] * ny + half[2] * nz, 0.0) ** power
                    red += light * (a * albedo[i, 0] + b * albedo[j, 0] + c * albedo[k, 0]) + shine
                    green += light * (a * albedo[i, 1] + b * albedo[j, 1] + c * albedo[k, 1]) + shine
                    blue += light * (a * albedo[i, 2] + b * albedo[j, 2] + c * albedo[k, 2]) + shine
            if n:
                white = over * over - n
                out[row, col, 0] = part * (red + white)
                out[row, col, 1] = part * (green + white)
                out[row, col, 2] = part * (blue + white)
