"""Compiled loops that light what a picture sees and average its samples."""

from __future__ import annotations

from geoframe._compiled import compiled


@compiled
def light_samples(
    face, bary, faces, tint, color, normal, place, open_, n_own, grain, grain_scale, grain_size, lamp, out
):
    """Colours of the samples of one picture, times how much is there: out (h, w, 4).

    Args:
        face: (h, w) int64, -1 where there is nothing.
        bary: (h, w, 3).
        faces: (F, 3).
        tint: (F, 3) of each face, multiplied by what the vertices have.
        color: (V, 3) of the vertices.
        normal: (V, 3) of unit length about.
        place: (V, 3) where the grain of the material is read.
        open_: (V,) how much of the sky a vertex sees.
        n_own: faces from here on are not of the object and have no grain.
        grain: (n, n, n) noise.
        grain_scale: two numbers, cells a unit of `place`.
        grain_size: two strengths.
        lamp: (6, 3): towards the sun, its colour, the sky's, the ground's, half way between sun and viewer,
            and strength, power and wrap.
        out: (h, w, 4).
    """
    n = grain.shape[0]
    sx, sy, sz = lamp[0, 0], lamp[0, 1], lamp[0, 2]
    hx, hy, hz = lamp[4, 0], lamp[4, 1], lamp[4, 2]
    gloss, power, wrap = lamp[5, 0], lamp[5, 1], lamp[5, 2]
    for row in range(face.shape[0]):
        for col in range(face.shape[1]):
            f = face[row, col]
            if f < 0:
                for c in range(4):
                    out[row, col, c] = 0
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            a, b, d = bary[row, col, 0], bary[row, col, 1], bary[row, col, 2]
            nx = a * normal[i, 0] + b * normal[j, 0] + d * normal[k, 0]
            ny = a * normal[i, 1] + b * normal[j, 1] + d * normal[k, 1]
            nz = a * normal[i, 2] + b * normal[j, 2] + d * normal[k, 2]
            size = 1 / max((nx * nx + ny * ny + nz * nz) ** 0.5, 1e-6)
            nx, ny, nz = nx * size, ny * size, nz * size
            seen = a * open_[i] + b * open_[j] + d * open_[k]
            rough = 1.0
            if f < n_own:
                px = a * place[i, 0] + b * place[j, 0] + d * place[k, 0]
                py = a * place[i, 1] + b * place[j, 1] + d * place[k, 1]
                pz = a * place[i, 2] + b * place[j, 2] + d * place[k, 2]
                for s in range(2):
                    g = grain_scale[s]
                    rough += grain_size[s] * grain[int(px * g) % n, int(py * g) % n, int(pz * g) % n]
            sun = max((sx * nx + sy * ny + sz * nz + wrap) / (1 + wrap), 0.0) * min(1.0, 0.35 + seen)
            up = 0.5 + 0.5 * ny
            shine = gloss * max(hx * nx + hy * ny + hz * nz, 0.0) ** power * (sun > 0) * seen
            for c in range(3):
                albedo = (a * color[i, c] + b * color[j, c] + d * color[k, c]) * tint[f, c] * rough
                lit = lamp[1, c] * sun + (lamp[2, c] * up + lamp[3, c] * (1 - up)) * seen
                out[row, col, c] = min(max(albedo * lit + shine * lamp[1, c], 0.0), 1.0)
            out[row, col, 3] = 1


@compiled
def mean_samples(samples, out):
    """Mix (2 S + 1, 2 S + 1, C) samples, half a pixel apart from border to border, into pixels: a tent of one pixel."""
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            for c in range(out.shape[2]):
                total = 0.0
                for y in range(3):
                    for x in range(3):
                        total += (2 - abs(y - 1)) * (2 - abs(x - 1)) * samples[2 * row + y, 2 * col + x, c]
                out[row, col, c] = total / 16
