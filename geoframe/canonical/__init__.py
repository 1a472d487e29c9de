"""Canonical surfaces: everything that is computed of a surface, once, and how one is made of any mesh."""

from geoframe.canonical.make import Canonical as Canonical
from geoframe.canonical.make import load_canonical as load_canonical
from geoframe.canonical.make import make_canonical as make_canonical
from geoframe.canonical.make import save_canonical as save_canonical
