"""Places told by landmarks: functions that say of every vertex how near it is to each landmark."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._check import as_tensor, check_index, check_shape
from geoframe.linalg import SpdFactor
from geoframe.surface.geodesics import geodesic_distances
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian

LEAK = 1e-8  # of the mass at unit area, added to the Laplacian: components without a landmark get zeros


def landmark_coordinates(mesh: Mesh, landmarks: Tensor) -> Tensor:
    """Shares of every vertex that belong to each of L landmarks, computed in two ways.

    First the harmonic functions that are 1 at one landmark and 0 at the others; then the inverse squares of the
    geodesic distances, divided by their sum. Both are shares: between two landmarks they give the position relative to
    the distance between them, so that legs or necks of different lengths become comparable. The square roots of the
    shares are returned: they spread out the neighbourhood of a landmark, where the shares themselves hardly change.

    Args:
        mesh: V vertices.
        landmarks: (L,) vertices, L >= 1.

    Returns:
        (V, 2 L) float64 in [0, 1].

    Raises:
        TypeError, ValueError: not integers, none, out of range; a mesh without triangles or with NaN.
    """
    landmarks = as_tensor(landmarks, "landmarks")
    check_index(landmarks, mesh.n_verts, "landmarks", what="vertices")
    if check_shape(landmarks, "L", "landmarks")["L"] < 1:
        raise ValueError("landmarks: expected at least 1 vertex, found none")
    at, column = np.unique(landmarks.cpu().numpy(), return_inverse=True)
    W, mass = laplacian(mesh)
    system = (W + sp.diags(LEAK * mass / mass.sum() + 1e-30)).tocsr()
    free = np.setdiff1d(np.arange(mesh.n_verts), at)
    harmonic = np.zeros((mesh.n_verts, len(at)))
    harmonic[at] = np.eye(len(at))
    if len(free):
        harmonic[free] = SpdFactor(system[free][:, free]).solve(-W[free][:, at].toarray())
    distance = geodesic_distances(mesh, torch.as_tensor(at)).double().cpu().numpy().T
    near = 1 / (distance / float(mesh.area) ** 0.5 + 1e-4) ** 2
    share = near / np.maximum(near.sum(1, keepdims=True), 1e-300)
    both = np.hstack([harmonic[:, column].clip(0, 1), share[:, column]])
    return torch.as_tensor(np.sqrt(both), device=mesh.device)
