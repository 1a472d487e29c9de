"""Surfaces: meshes and point clouds, their files, health, operators, distances and symmetry."""

from geoframe.surface.health import Health as Health
from geoframe.surface.health import health as health
from geoframe.surface.io import load as load
from geoframe.surface.io import save as save
from geoframe.surface.landmarks import check_landmarks as check_landmarks
from geoframe.surface.landmarks import pair_landmarks as pair_landmarks
from geoframe.surface.landmarks import read_landmarks as read_landmarks
from geoframe.surface.landmarks import read_named_landmarks as read_named_landmarks
from geoframe.surface.mesh import Mesh as Mesh
from geoframe.surface.mesh import PointCloud as PointCloud
from geoframe.surface.repair import Repair as Repair
from geoframe.surface.repair import repair as repair
