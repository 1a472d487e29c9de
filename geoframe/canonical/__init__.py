"""Canonical surfaces: everything that is computed of a surface, once, and how one is made of any mesh."""

from geoframe.canonical.make import make_canonical as make_canonical
from geoframe.canonical.rows import GeodesicRows as GeodesicRows
from geoframe.canonical.surface import Origin as Origin
from geoframe.canonical.surface import Surface as Surface
from geoframe.canonical.surface import load_surface as load_surface
