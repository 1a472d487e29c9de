"""The canonical surfaces of the zoo as targets: which vertex is the same place on another species, or other side."""

from __future__ import annotations

from torch import Tensor

from geoframe._templates import template, template_symmetry, templates
from geoframe.canonical.surface import Surface
from geoframe.data.rendered import categories, template_surface
from geoframe.nearest import nearest
from geoframe.surface.symmetry import Symmetry
from geoframe.zoo.rig import pose_template

_SYMMETRIC = 0.01  # residual of a mirror plane up to which it is used


def zoo_surface(name: str) -> Surface:
    """The canonical surface of a category of the zoo, as rendered sets have it."""
    surface = template_surface(name)
    if name in templates() and surface.n_verts == len(template_symmetry(name)):
        surface.once("symmetry", lambda: _known_symmetry(name, surface))  # to look for it takes ten seconds
    return surface


def _known_symmetry(name: str, surface: Surface) -> Symmetry:
    """The plane z = 0, in which the canonical surfaces are symmetric vertex by vertex."""
    mirror = template_symmetry(name)
    flipped = surface.verts * surface.verts.new_tensor([1.0, 1.0, -1.0])
    off = (flipped - surface.verts[mirror]).norm(dim=1).mean() / surface.area.sqrt()
    normal = surface.verts.new_tensor([0.0, 0.0, 1.0])
    return Symmetry(normal, surface.verts.new_zeros(()), mirror, float(off))


def zoo_correspondence(source: str, target: str) -> Tensor:
    """(V,) for each vertex of the canonical surface of a species the corresponding one of another species.

    Args:
        source: whose vertices are given.
        target: whose vertices are asked.
    """
    on_source = pose_template(target, [0], [None], on=source)[0]
    return nearest(template(target).verts.double(), on_source)[0]


def is_zoo(name: str, surface: Surface) -> bool:
    """Whether a surface is the zoo's own of that name, so that it need not be saved with a model.

    Args:
        name: of a category.
        surface: any.
    """
    return name in categories() and surface is zoo_surface(name)


def mirror_of(name: str, surface: Surface) -> Tensor | None:
    """(V,) the vertex on the other side; None where there is no mirror plane.

    Args:
        name: of the surface, if it is one of the zoo.
        surface: any.
    """
    if name in templates() and surface.n_verts == template(name).n_verts and is_zoo(name, surface):
        return template_symmetry(name)
    found = surface.symmetry
    return found.vertex_map if found.residual < _SYMMETRIC else None
