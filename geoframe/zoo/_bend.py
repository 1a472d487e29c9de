"""Compiled loops over the vertices of a template: skinning by few bones a vertex, and vertex normals."""

from __future__ import annotations

from geoframe._compiled import compiled


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
