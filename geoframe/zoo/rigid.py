"""Rigid categories with named parts and exact correspondence: seeded members, their surfaces and point clouds."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe.zoo import _aeroplane, _car, _furniture, _motorbike
from geoframe.zoo.template import Draw, Member, surface_points

_MAKERS: dict[str, Callable[[Draw], Member]] = {
    "chair": _furniture.chair,
    "table": _furniture.table,
    "aeroplane": _aeroplane.aeroplane,
    "car": _car.car,
    "motorbike": _motorbike.motorbike,
}
_WIDER: dict[str, Callable[[Draw], Member]] = {"chair": _furniture.any_chair}
_PARTS = {
    "chair": _furniture.CHAIR_PARTS,
    "table": _furniture.TABLE_PARTS,
    "aeroplane": _aeroplane.PARTS,
    "car": _car.PARTS,
    "motorbike": _motorbike.PARTS,
}
CATEGORIES = tuple(_MAKERS)


def sample(category: str, seed: int, *, wide: bool = False) -> Member:
    """One member of a category; the same seed gives the same shape.

    Args:
        category: one of `CATEGORIES`.
        seed: at least 0.
        wide: chairs of any make: armchairs, bar stools, folding ones and so on, instead of such as stand at a table.
            The other categories have one variety.

    Raises:
        ValueError: unknown category, negative seed.
    """
    check_choice(category, CATEGORIES, "category")
    make = _WIDER.get(category, _MAKERS[category]) if wide else _MAKERS[category]
    return make(Draw(category, check_int(seed, "seed", low=0)))


def part_names(category: str) -> tuple[str, ...]:
    """The names that the part labels of a category count; a member has some of them."""
    check_choice(category, CATEGORIES, "category")
    return _PARTS[category]


def sample_points(
    category: str, seed: int, n_points: int, *, wide: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Random points spread evenly over the surface of ``sample(category, seed, wide=wide)``.

    Args:
        category: one of `CATEGORIES`.
        seed: of the shape and of the points, at least 0.
        n_points: how many.
        wide: see `sample`.

    Returns:
        points: (n_points, 3) float64.
        canonical: (n_points, 3), equal for corresponding points of all members.
        label: (n_points,) int64 into `part_names(category)`.
    """
    return surface_points(sample(category, seed, wide=wide), n_points, seed)
