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
_PARTS = {
    "chair": _furniture.CHAIR_PARTS,
    "table": _furniture.TABLE_PARTS,
    "aeroplane": _aeroplane.PARTS,
    "car": _car.PARTS,
    "motorbike": _motorbike.PARTS,
}
CATEGORIES = tuple(_MAKERS)


def sample(category: str, seed: int) -> Member:
    """One member of a category; the same seed gives the same shape.

    Args:
        category: one of `CATEGORIES`.
        seed: at least 0.

    Raises:
        ValueError: unknown category, negative seed.
    """
    check_choice(category, CATEGORIES, "category")
    return _MAKERS[category](Draw(category, check_int(seed, "seed", low=0)))


def part_names(category: str) -> tuple[str, ...]:
    """The names that the part labels of a category count; a member has some of them."""
    check_choice(category, CATEGORIES, "category")
    return _PARTS[category]


def sample_points(category: str, seed: int, n_points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random points spread evenly over the surface of ``sample(category, seed)``.

    Args:
        category: one of `CATEGORIES`.
        seed: of the shape and of the points, at least 0.
        n_points: how many.

    Returns:
        points: (n_points, 3) float64.
        canonical: (n_points, 3), equal for corresponding points of all members.
        label: (n_points,) int64 into `part_names(category)`.
    """
    return surface_points(sample(category, seed), n_points, seed)
