"""Surfaces: meshes and point clouds, their files, health, operators, distances and symmetry."""

from geoframe.surface.mesh import Mesh as Mesh
from geoframe.surface.mesh import PointCloud as PointCloud
