"""A surface through a cloud of points, so that it can be matched: triangles between neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree

from geoframe._check import check_finite
from geoframe._types import Floats, Ints
from geoframe.canonical.surface import Surface, load_surface
from geoframe.maps.shells import rim_length
from geoframe.surface.io import load
from geoframe.surface.mesh import Mesh, PointCloud

NEIGHBOURS = 10  # of a point, through which its plane is laid
NOTE = (  # of a surface through points
    "is a cloud of points: it was matched by triangles between neighbours, and measures that need faces are those of "
    "these"
)
# Length of the rims of the triangles between points, over sqrt(area), from which there are too few points for thin
# parts: people of 5,000 and 2,500 evenly spread points have 15 and 19, of 1,500 28; animals of 200 to 1,000 22 to 53.
RAGGED = 21.0
THIN = 0.6  # factor of the confidence then: of 12 pairs of animals and people with 500 to 700 points 5 were right
SPARSE = 50  # points, at least: of fewer the neighbours are not those along the surface


def surface_of_points(cloud: PointCloud) -> Surface:
    """The points with triangles between neighbours, turned outwards, as far as the points tell.

    Each point has a normal, across the plane of its neighbours; signs are spread from one point to those whose planes
    are most alike, and all are turned at last so that the volume inside is positive. Around each point its neighbours
    are triangulated in the tangent plane (Delaunay), as for the robust Laplacian of points. A triangle is taken if the
    normals of its corners are on one side of it and if no other has an edge of it on that side; those that more of
    their corners have around them come first, then the smaller ones. So the surface has holes where points are too few
    for its curvature, or where sheets come closer than the points, and a thin limb may be turned inwards; a map
    between eigenfunctions takes no harm from small holes.

    Args:
        cloud: N points, one cloud. Every point stays, in its order; normals are not used.

    Raises:
        ValueError: a batch, fewer than 50 points, NaN, no triangle.

    Source: signs of the normals: Hoppe et al. 1992, Surface reconstruction from unorganized points.
    """
    if cloud.points.ndim != 2:
        raise ValueError(f"cloud: expected one cloud (N, 3), found {tuple(cloud.points.shape)}")
    if cloud.n_points < SPARSE:
        raise ValueError(
            f"cloud: expected at least {SPARSE} points, found {cloud.n_points}; give it triangles"
        )
    check_finite(cloud.points, "cloud")
    points = cloud.points.detach().double().cpu().numpy()
    points = (points - points.mean(0)) / max(np.ptp(points, axis=0).max(), 1e-300)
    normals = _normals(points)
    faces = _without_third_faces(_one_sided(_triangles(points), points, normals))
    if not len(faces):
        raise ValueError("cloud: expected points of a surface, found no triangle between neighbours")
    if np.linalg.det(points[faces]).sum() < 0:  # six times the volume, the points' mean being 0
        faces = faces[:, ::-1].copy()
    return Surface(cloud.points, torch.as_tensor(faces).to(cloud.device), notes=(NOTE,))


def as_surface(given: Mesh | PointCloud, name: str) -> tuple[Surface, tuple[str, ...]]:
    """The mesh, or triangles between the points of a cloud, and a sentence that tells.

    Args:
        given: one pose or one cloud.
        name: what the sentence calls it.

    Raises:
        ValueError: as `surface_of_points`.
    """
    surface = Surface.of(given) if isinstance(given, Mesh) else surface_of_points(given)
    notes = [f"{name} {NOTE}"] if NOTE in surface.notes else []
    if is_ragged(surface):
        notes.append(
            f"{name} has too few points for its thin parts, its triangles leave rims of {rim_length(surface):.0f} "
            f"sqrt(area) (enough points: below {RAGGED:.0f}); give it more points or triangles"
        )
    return surface, tuple(notes)


def is_ragged(surface: Surface) -> bool:
    """Whether a surface was made of points that are too few for its thin parts, so that no map of it can be trusted."""
    return NOTE in surface.notes and rim_length(surface) > RAGGED


def load_matched(path: str | Path) -> Surface:
    """The surface of a mesh file, of a folder that ``geoframe canonical`` wrote, or through a file of points.

    Raises:
        ValueError: a file that cannot be read, or as `surface_of_points`, naming the file.
    """
    path = Path(path)
    if path.is_dir():
        return load_surface(path)
    held = load(path)
    try:
        return as_surface(held, str(path))[0]
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def _triangles(points: Floats) -> Ints:
    """Triangles (F, 3), each once, those first that more of their corners have around them, then the smaller ones."""
    import potpourri3d

    fans = potpourri3d.PointCloudLocalTriangulation(points).get_local_triangulation()
    three = np.sort(fans.reshape(-1, 3).astype(np.int64), axis=1)
    three = three[(three >= 0).all(1) & (np.diff(three, axis=1) > 0).all(1)]
    faces, count = np.unique(three, axis=0, return_counts=True)
    a, b, c = (points[faces[:, i]] for i in range(3))
    longest = np.max([((x - y) ** 2).sum(1) for x, y in ((a, b), (b, c), (c, a))], axis=0)
    return faces[np.lexsort((longest, -count))]


def _normals(points: Floats) -> Floats:
    """(N, 3) unit normals of the planes through the neighbours, with signs that agree along a tree of like ones."""
    near = cKDTree(points).query(points, k=NEIGHBOURS + 1)[1]
    around = points[near] - points[near].mean(1, keepdims=True)
    normals = np.linalg.eigh(around.transpose(0, 2, 1) @ around)[1][:, :, 0]
    i, j = np.repeat(np.arange(len(points)), NEIGHBOURS), near[:, 1:].ravel()
    unlike = 1.001 - np.abs((normals[i] * normals[j]).sum(1))
    links = sp.coo_array((unlike, (i, j)), shape=(len(points), len(points))).tocsr()
    tree = sp.csgraph.minimum_spanning_tree(links.maximum(links.T))
    first = int((points**2).sum(1).argmax())
    order, parent = sp.csgraph.breadth_first_order(tree, first, directed=False)
    for v in order[1:]:
        if normals[v] @ normals[parent[v]] < 0:
            normals[v] *= -1
    return normals


def _one_sided(faces: Ints, points: Floats, normals: Floats) -> Ints:
    """The triangles (F, 3) whose corners' normals are all on one side of them, turned that way."""
    a, b, c = (points[faces[:, i]] for i in range(3))
    side = np.einsum("fd,fkd->fk", np.cross(b - a, c - a), normals[faces])
    back = (side < 0).all(1)
    faces[back] = faces[back][:, ::-1]
    return faces[back | (side > 0).all(1)]


def _without_third_faces(faces: Ints) -> Ints:
    """The faces, one after another, but those that would be the second on one side of an edge."""
    taken: set[tuple[int, int]] = set()
    kept = []
    for i, (a, b, c) in enumerate(faces.tolist()):
        edges = ((a, b), (b, c), (c, a))  # a neighbour that looks the same way has it the other way round
        if taken.isdisjoint(edges):
            kept.append(i)
            taken.update(edges)
    return faces[kept]
