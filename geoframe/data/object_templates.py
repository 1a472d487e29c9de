"""Templates: a surface in as few vertices as a network can place in an image, and its mirror image.

A canonical surface has thousands of vertices; a network that says for each where it is wants hundreds. The smaller
surface knows where its vertices lie on the larger one, so what is known of one is known of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice, check_int, check_shape
from geoframe.canonical.surface import Surface
from geoframe.data.zoo_surfaces import zoo_surface
from geoframe.pixels import PixelMap
from geoframe.surface.closest import TriangleTree
from geoframe.surface.resize import resize
from geoframe.transforms import procrustes
from geoframe.zoo.animals import species
from geoframe.zoo.poses import draw_pose
from geoframe.zoo.rig import pose_template
from geoframe.zoo.things import THINGS, thing_shapes

_SYMMETRIC = 0.02  # residual of a mirror plane up to which it is used


@dataclass(frozen=True, eq=False)
class ObjectTemplate:
    """A surface of about 500 vertices, made of a larger one, in the unit of its own size.

    The vertices are moved and scaled so that the middle of their box is 0 and the farthest one is at distance 1.

    Attributes:
        surface: V vertices, with the landmarks of the larger surface.
        source: (V, 3) int64 vertices of the larger surface.
        weights: (V, 3) of sum 1: ``f = (weights[..., None] * f0[source]).sum(1)`` carries functions here.
        mirror_source: (V, 3) int64 vertices here around the mirror image of each vertex; its own number where the
            surface has no mirror plane.
        mirror_weights: (V, 3) their weights.
        reflection: (3, 3) the reflection about the mirror plane through 0; the identity where there is none.
    """

    surface: Surface
    source: Tensor
    weights: Tensor
    mirror_source: Tensor
    mirror_weights: Tensor
    reflection: Tensor

    @classmethod
    def of(cls, surface: Surface, n_verts: int = 500, *, seed: int = 0) -> ObjectTemplate:
        """A template of a surface.

        Args:
            surface: closed or open, manifold; its landmarks stay where they are. One of fewer vertices than wanted
                is taken as it is.
            n_verts: vertices wanted.
            seed: of the order in which edges are collapsed.

        Raises:
            ValueError: anything that `resize` cannot take.
        """
        check_int(n_verts, "n_verts", low=20)
        verts = surface.verts.detach().double().cpu()
        if surface.n_verts <= n_verts:
            faces, marks = surface.faces, dict(surface.landmarks)
            source = torch.arange(surface.n_verts)[:, None].expand(-1, 3)
            weights = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(surface.n_verts, 3)
        else:
            pins = torch.tensor(sorted(set(surface.landmarks.values())), dtype=torch.int64)
            small = resize(surface, n_verts, pins=pins, seed=seed)
            faces, source, weights = small.mesh.faces, small.source, small.weights.double()
            at = dict(zip(pins.tolist(), small.pins.tolist(), strict=True))
            marks = {name: at[v] for name, v in surface.landmarks.items()}
        x = (weights[..., None] * verts[source]).sum(1)
        plane = surface.symmetry
        symmetric = plane.residual < _SYMMETRIC
        middle = (x.amax(0) + x.amin(0)) / 2
        reflection = torch.eye(3, dtype=torch.float64)
        if symmetric:
            normal, offset = plane.normal.double(), plane.offset.double()
            middle = middle - (middle @ normal - offset) * normal  # onto the plane
            reflection = reflection - 2 * normal[:, None] * normal
        x = x - middle
        x = x / x.norm(dim=1).max()
        near, share = torch.arange(len(x))[:, None].expand(-1, 3), torch.tensor([1.0, 0.0, 0.0]).double()
        share = share.expand(len(x), 3)
        if symmetric:
            tree = TriangleTree(x.numpy(), faces.numpy())
            face, corner = tree.closest((x @ reflection).numpy(), 12)
            near, share = faces[torch.from_numpy(np.asarray(face))], torch.from_numpy(np.asarray(corner))
        return cls(
            Surface(x, faces.clone(), landmarks=marks),
            source.clone(),
            weights.clone(),
            near,
            share,
            reflection,
        )

    @property
    def n_verts(self) -> int:
        """V."""
        return self.surface.n_verts

    def carried(self, values: Tensor) -> Tensor:
        """Functions (..., V0, C) of the larger surface at the vertices here, (..., V, C)."""
        return (self.weights.to(values)[..., None] * values[..., self.source, :]).sum(-2)

    def mirrored(self, values: Tensor) -> Tensor:
        """Functions (..., V, C) as the vertices' mirror images have them."""
        check_shape(values, f"... {self.n_verts} C", "values")
        near = self.mirror_source.to(values.device)
        return (self.mirror_weights.to(values)[..., None] * values[..., near, :]).sum(-2)

    @property
    def is_symmetric(self) -> bool:
        """Whether there is a mirror plane."""
        return bool(torch.linalg.det(self.reflection) < 0)

    @property
    def landmark_swap(self) -> Tensor:
        """(L,) the number of each landmark's counterpart: the landmark nearest to its mirror image."""
        at = self.surface.verts[list(self.surface.landmarks.values())].double()
        return torch.cdist(at @ self.reflection.to(at), at).argmin(1)


def zoo_template(category: str, n_verts: int = 500) -> ObjectTemplate:
    """The template of a category of the zoo.

    Args:
        category: see `geoframe.data.rendered.categories`.
        n_verts: vertices wanted.

    Raises:
        ValueError: an unknown category.
    """
    return ObjectTemplate.of(zoo_surface(category), n_verts)


def zoo_shapes(category: str, template: ObjectTemplate, n: int = 400, *, seed: int = 0) -> Tensor:
    """Random individuals of a category, animals in random poses, as shapes of its template.

    Args:
        category: of the zoo; of things those of the structure that the category's surface has.
        template: as `zoo_template` makes it.
        n: how many, at least 1.
        seed: of individuals and poses.

    Returns:
        (n, V, 3), each turned, moved and scaled as near to the template as it gets.

    Raises:
        ValueError: an unknown category, a template of another surface.
    """
    check_choice(category, (*species(), *THINGS), "category")
    check_int(n, "n", low=1)
    if category in THINGS:
        verts = torch.from_numpy(thing_shapes(category, n, seed=seed))
    else:
        first = 1 + seed * n
        numbers = list(range(first, first + n))
        verts = pose_template(category, numbers, [draw_pose(category, seed=i) for i in numbers])
    if int(template.source.max()) >= verts.shape[1]:
        raise ValueError(f"template: expected one of the zoo's surface of a {category}, found another")
    x = template.carried(verts.double())
    rest = template.surface.verts.to(x).expand(n, -1, -1)
    return procrustes(rest, x, scale=True).inverse()(x)


def points_of_pixels(
    pixels: PixelMap, mask: Tensor, template: ObjectTemplate, surface: Surface, *, most: int = 400
) -> tuple[Tensor, Tensor, Tensor]:
    """What a pixel map says of a template's vertices: correspondences to start a reconstruction from.

    Args:
        pixels: of a square picture, on the surface that the template was made of.
        mask: (S, S) bool, the object; only pixels inside count.
        template: whose vertices are wanted.
        surface: that the template was made of.
        most: pixels that are kept, evenly.

    Returns:
        Positions (m, 2) in halves of the side from the middle, vertices (m,) of the template, confidences (m,).

    Raises:
        ValueError: another surface.
    """
    if surface.n_verts <= int(template.source.max()) or pixels.surface.n_verts != surface.n_verts:
        raise ValueError(
            f"surface: expected the one that the template was made of, found one of {surface.n_verts} vertices"
        )
    verts = surface.verts.double()
    near = template.surface.once(
        ("nearest", surface.n_verts), lambda: torch.cdist(verts, template.carried(verts)).argmin(1)
    )
    S = mask.shape[-1]
    at = torch.nonzero(pixels.mask & mask)
    at = at[torch.linspace(0, len(at) - 1, min(most, len(at))).round().long()] if len(at) else at
    where = 2 * (at.flip(1).float() + 0.5) / S - 1
    rows, cols = at.unbind(1)
    return where, near[pixels.vertex[rows, cols]], pixels.confidence[rows, cols]
