"""geoframe: geometry-first dense correspondence.

The names below are the ones to count on. They are loaded when first used, so that `import geoframe` and the
command line stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from geoframe._templates import template as template
    from geoframe._templates import template_landmarks as template_landmarks
    from geoframe._templates import templates as templates
    from geoframe.camera import Pinhole as Pinhole
    from geoframe.camera import WeakPerspective as WeakPerspective
    from geoframe.camera import look_at as look_at
    from geoframe.canonical import Surface as Surface
    from geoframe.canonical import load_surface as load_surface
    from geoframe.canonical import make_canonical as make_canonical
    from geoframe.maps import Match as Match
    from geoframe.maps import fmap_to_p2p as fmap_to_p2p
    from geoframe.maps import match as match
    from geoframe.maps import p2p_to_fmap as p2p_to_fmap
    from geoframe.maps import zoomout as zoomout
    from geoframe.render import rasterize as rasterize
    from geoframe.render import soft_silhouette as soft_silhouette
    from geoframe.solve import arap_energy as arap_energy
    from geoframe.solve import solve_pose as solve_pose
    from geoframe.spectral import Eigenbasis as Eigenbasis
    from geoframe.spectral import eigenbasis as eigenbasis
    from geoframe.spectral import hks as hks
    from geoframe.spectral import wks as wks
    from geoframe.surface import Mesh as Mesh
    from geoframe.surface import PointCloud as PointCloud
    from geoframe.surface import farthest_points as farthest_points
    from geoframe.surface import geodesic_distances as geodesic_distances
    from geoframe.surface import health as health
    from geoframe.surface import laplacian as laplacian
    from geoframe.surface import load as load
    from geoframe.surface import load_mesh as load_mesh
    from geoframe.surface import pair_landmarks as pair_landmarks
    from geoframe.surface import read_landmarks as read_landmarks
    from geoframe.surface import repair as repair
    from geoframe.surface import sample_surface as sample_surface
    from geoframe.surface import save as save
    from geoframe.viz.match_page import write_report as write_report
    from geoframe.viz.surfaces import draw_match as draw_match

_HOME = {
    "Eigenbasis": "geoframe.spectral",
    "Match": "geoframe.maps",
    "Mesh": "geoframe.surface",
    "Pinhole": "geoframe.camera",
    "PointCloud": "geoframe.surface",
    "Surface": "geoframe.canonical",
    "WeakPerspective": "geoframe.camera",
    "arap_energy": "geoframe.solve",
    "draw_match": "geoframe.viz.surfaces",
    "eigenbasis": "geoframe.spectral",
    "farthest_points": "geoframe.surface",
    "fmap_to_p2p": "geoframe.maps",
    "geodesic_distances": "geoframe.surface",
    "health": "geoframe.surface",
    "hks": "geoframe.spectral",
    "laplacian": "geoframe.surface",
    "load": "geoframe.surface",
    "load_mesh": "geoframe.surface",
    "load_surface": "geoframe.canonical",
    "look_at": "geoframe.camera",
    "make_canonical": "geoframe.canonical",
    "match": "geoframe.maps",
    "p2p_to_fmap": "geoframe.maps",
    "pair_landmarks": "geoframe.surface",
    "rasterize": "geoframe.render",
    "read_landmarks": "geoframe.surface",
    "repair": "geoframe.surface",
    "sample_surface": "geoframe.surface",
    "save": "geoframe.surface",
    "soft_silhouette": "geoframe.render",
    "solve_pose": "geoframe.solve",
    "template": "geoframe._templates",
    "template_landmarks": "geoframe._templates",
    "templates": "geoframe._templates",
    "wks": "geoframe.spectral",
    "write_report": "geoframe.viz.match_page",
    "zoomout": "geoframe.maps",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geoframe' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
