"""Surfaces: meshes and point clouds, their files, health, operators, distances and symmetry."""

from geoframe.surface.bridges import from_pytorch3d as from_pytorch3d
from geoframe.surface.bridges import from_torch_geometric as from_torch_geometric
from geoframe.surface.bridges import from_trimesh as from_trimesh
from geoframe.surface.bridges import to_pytorch3d as to_pytorch3d
from geoframe.surface.bridges import to_torch_geometric as to_torch_geometric
from geoframe.surface.bridges import to_trimesh as to_trimesh
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
from geoframe.surface.sampling import SurfaceSamples as SurfaceSamples
from geoframe.surface.sampling import farthest_points as farthest_points
from geoframe.surface.sampling import knn as knn
from geoframe.surface.sampling import sample_surface as sample_surface
