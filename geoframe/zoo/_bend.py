"""Compiled loops over the vertices of a template: skinning by few bones a vertex, and vertex normals."""

from __future__ import annotations

from math import cos, radians, sin

from geoframe._compiled import compiled


@compiled
def turn_bones(angles, parents, out):
    """Rotation of each bone in the world's axes into out (J, 3, 3): its own, about x, then y, then z, after its
    parent's. Angles (J, 3) are in degrees; parents come before their children, -1 is none.
    """
    for j in range(len(angles)):
        a, b, c = radians(angles[j, 0]), radians(angles[j, 1]), radians(angles[j, 2])
        ca, sa, cb, sb, cc, sc = cos(a), sin(a), cos(b), sin(b), cos(c), sin(c)
        own = (
            (cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa),
            (sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa),
            (-sb, cb * sa, cb * ca),
        )
        p = parents[j]
        for i in range(3):
            for k in range(3):
                if p < 0:
                    out[j, i, k] = own[i][k]
                else:
                    out[j, i, k] = (
                        out[p, i, 0] * own[0][k] + out[p, i, 1] * own[1][k] + out[p, i, 2] * own[2][k]
                    )


@compiled
def bone_maps(joints, own, parents, out):
    """Matrix and shift of each bone that turns by own (J, 3, 3) about its joint, which its parent carries along, into
    out (J, 12); joints (J, 3).
    """
    for j in range(len(joints)):
        p = parents[j]
        for i in range(3):
            place = joints[j, i]
            if p >= 0:
                place = out[p, 9 + i]
                for k in range(3):
                    place += out[p, 3 * i + k] * joints[j, k]
            shift = place
            for k in range(3):
                out[j, 3 * i + k] = own[j, i, k]
                shift -= own[j, i, k] * joints[j, k]
            out[j, 9 + i] = shift


@compiled
def weighted_sums(starts, columns, shares, points, relief, out):
    """Sums of points (n, 3) by the rows of a sparse matrix, plus relief (V, 3), into out (V, 3): row i has the entries
    ``starts[i]:starts[i + 1]`` of `columns` and `shares`.
    """
    for i in range(len(out)):
        x, y, z = 0.0, 0.0, 0.0
        for k in range(starts[i], starts[i + 1]):
            s, j = shares[k], columns[k]
            x += s * points[j, 0]
            y += s * points[j, 1]
            z += s * points[j, 2]
        out[i, 0], out[i, 1], out[i, 2] = x + relief[i, 0], y + relief[i, 1], z + relief[i, 2]


@compiled
def blend(color, share, other):
    """Mix share (n,) of one colour, other (3,), into color (n, 3), in place."""
    for i in range(len(color)):
        s = share[i]
        if s != 0:
            for c in range(3):
                color[i, c] += s * (other[c] - color[i, c])


@compiled
def bend(verts, starts, bones, shares, affine, out):
    """Linear blend skinning of verts (n, 3) into out (n, 3).

    Vertex i follows the bones ``bones[starts[i]:starts[i + 1]]`` by `shares` of sum 1; affine (J, 12) is the 3 x 3
    matrix of each bone, row by row, and its shift.
    """
    a = affine[0].copy()
    for i in range(len(verts)):
        a[:] = 0
        for k in range(starts[i], starts[i + 1]):
            share, bone = shares[k], bones[k]
            for c in range(12):
                a[c] += share * affine[bone, c]
        x, y, z = verts[i, 0], verts[i, 1], verts[i, 2]
        for c in range(3):
            out[i, c] = a[3 * c] * x + a[3 * c + 1] * y + a[3 * c + 2] * z + a[9 + c]


@compiled
def normals(verts, faces, out):
    """Unit normals (n, 3) of vertices into out: means of those of the faces around, by area."""
    out[:] = 0
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = verts[j, 0] - verts[i, 0], verts[j, 1] - verts[i, 1], verts[j, 2] - verts[i, 2]
        vx, vy, vz = verts[k, 0] - verts[i, 0], verts[k, 1] - verts[i, 1], verts[k, 2] - verts[i, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (i, j, k):
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for i in range(len(out)):
        size = (out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) ** 0.5
        if size > 0:
            out[i, 0] /= size
            out[i, 1] /= size
            out[i, 2] /= size
