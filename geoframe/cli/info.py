"""`geoframe info`: what a mesh file holds."""

from __future__ import annotations

from pathlib import Path

from geoframe.cli._common import load_mesh


def info(mesh: Path, /, *, json: bool = False) -> None:
    """Tell what a mesh file holds and what is wrong with it.

    Args:
        mesh: OBJ, OFF, PLY, STL, GLB or glTF file.
        json: print one JSON object instead of the table.
    """
    from json import dumps

    from geoframe.surface import health

    found = health(load_mesh(mesh))
    print(dumps(found.as_dict(), indent=1) if json else f"{mesh}\n{found}")
