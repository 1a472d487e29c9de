"""Compiled loops that find what a picture sees, light it, and average its samples."""

from __future__ import annotations

from math import ceil, floor

from geoframe._compiled import compiled


@compiled
def nearest_faces(screen, faces, face, bary, depth):
    """What is seen half-way between pixels, at their borders and corners and at their centres.

    As `geoframe.render.rasterize` of a size of 2 S + 1, without its checks, gradients and outlines.

    Args:
        screen: (V, 3) pixel x, pixel y, and depth; what is not in front of the viewer is left out.
        faces: (F, 3).
        face: (2 S + 1, 2 S + 1) int64 of -1, becomes the nearest face at x = column / 2, y = row / 2.
        bary: (2 S + 1, 2 S + 1, 3) zeros, becomes the weights of its corners in space.
        depth: (2 S + 1, 2 S + 1) of infinity, becomes how far it is.
    """
    last = len(face) - 1
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = 2 * screen[i, 0], 2 * screen[i, 1], screen[i, 2]
        bx, by, bz = 2 * screen[j, 0], 2 * screen[j, 1], screen[j, 2]
        cx, cy, cz = 2 * screen[k, 0], 2 * screen[k, 1], screen[k, 2]
        twice = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if twice == 0 or az <= 0 or bz <= 0 or cz <= 0:
            continue
        left, right = max(ceil(min(ax, bx, cx)), 0), min(floor(max(ax, bx, cx)), last)
        if left > right:
            continue
        za, zb, zc = 1 / az, 1 / bz, 1 / cz
        for row in range(max(ceil(min(ay, by, cy)), 0), min(floor(max(ay, by, cy)), last) + 1):
            for col in range(left, right + 1):
                wa = ((bx - col) * (cy - row) - (by - row) * (cx - col)) / twice
                wb = ((cx - col) * (ay - row) - (cy - row) * (ax - col)) / twice
                wc = 1 - wa - wb
                if wa < 0 or wb < 0 or wc < -1e-12:
                    continue
                z = 1 / (wa * za + wb * zb + wc * zc)
                if z < depth[row, col]:
                    depth[row, col] = z
                    face[row, col] = f
                    bary[row, col, 0], bary[row, col, 1], bary[row, col, 2] = (
                        wa * za * z,
                        wb * zb * z,
                        wc * zc * z,
                    )


@compiled
def light_samples(
    face, bary, faces, color, normal, place, open_, n_own, grain, grain_scale, grain_size, lamp, out
):
    """Colours of the samples of one picture, times how much is there: out (h, w, 4).

    Args:
        face: (h, w) int64, -1 where there is nothing.
        bary: (h, w, 3).
        faces: (F, 3).
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
            shine = hx * nx + hy * ny + hz * nz
            if gloss > 0 and sun > 0 and shine > 0:
                shine = gloss * shine**power * seen
            else:
                shine = 0.0
            for c in range(3):
                albedo = (a * color[i, c] + b * color[j, c] + d * color[k, c]) * rough
                lit = lamp[1, c] * sun + (lamp[2, c] * up + lamp[3, c] * (1 - up)) * seen
                out[row, col, c] = min(max(albedo * lit + shine * lamp[1, c], 0.0), 1.0)
            out[row, col, 3] = 1


@compiled
def compose(samples, behind, light, out):
    """Mix (2 S + 1, 2 S + 1, 4) samples, half a pixel apart from border to border, into pixels, by a tent of one pixel,
    and put them before a background (S, S, 3) in its light (S, S): out (S, S, 3).
    """
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            r, c = 2 * row, 2 * col
            for k in range(3):
                out[row, col, k] = behind[row, col, k] * light[row, col]
            total = 0.0
            for y in range(3):
                for x in range(3):
                    total += (2 - abs(y - 1)) * (2 - abs(x - 1)) * samples[r + y, c + x, 3]
            if total == 0:
                continue
            for k in range(3):
                mean = 0.0
                for y in range(3):
                    for x in range(3):
                        mean += (2 - abs(y - 1)) * (2 - abs(x - 1)) * samples[r + y, c + x, k]
                out[row, col, k] = mean / 16 + (1 - total / 16) * out[row, col, k]
