"""The canonical surfaces that come with geoframe (the folder `meshes/` of the repository)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from geoframe._check import check_choice
from geoframe._files import read_text
from geoframe.surface.io import load
from geoframe.surface.landmarks import read_named_landmarks
from geoframe.surface.mesh import Mesh


def templates() -> list[str]:
    """Names of the canonical surfaces, sorted."""
    return sorted(path.stem for path in _folder().glob("*.obj"))


def template(name: str, *, dtype: torch.dtype = torch.float64) -> Mesh:
    """A canonical surface, verts (V, 3), by name: y up, looking along +x, its left at -z.

    Raises:
        ValueError: unknown name.
    """
    check_choice(name, tuple(templates()), "name")
    mesh = load(_folder() / f"{name}.obj", dtype=dtype)
    assert isinstance(mesh, Mesh)
    return mesh


def template_landmarks(name: str) -> dict[str, int]:
    """Landmark name -> vertex (0-based) of a canonical surface; equal names mark corresponding places.

    Raises:
        ValueError: unknown name.
    """
    check_choice(name, tuple(templates()), "name")
    return read_named_landmarks(_folder() / f"{name}.json")


def template_symmetry(name: str) -> Tensor:
    """(V,) int64: for each vertex of a canonical surface the one on its other side; an involution.

    Raises:
        ValueError: unknown name.
    """
    check_choice(name, tuple(templates()), "name")
    text = read_text(_folder() / f"{name}.json")
    return torch.tensor(json.loads(text)["symmetry"], dtype=torch.int64)


def _folder() -> Path:
    """Beside this module where installed from a wheel, beside the package in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "meshes" if (here / "meshes").is_dir() else here.parent / "meshes"
