"""Geometric solvers: pose and deformation from 2D points, as-rigid-as-possible deformation, energies of meshes."""

from geoframe.solve.arap import Arap as Arap
from geoframe.solve.arap import ArapSolution as ArapSolution
from geoframe.solve.arap import ArapSolver as ArapSolver
from geoframe.solve.arap import arap_energy as arap_energy
from geoframe.solve.implicit import implicit_solution as implicit_solution
from geoframe.solve.pinhole import PinholeSolution as PinholeSolution
from geoframe.solve.pinhole import solve_pose_pinhole as solve_pose_pinhole
from geoframe.solve.pose import Solution as Solution
from geoframe.solve.pose import solve_pose as solve_pose
from geoframe.solve.regularisers import edge_energy as edge_energy
from geoframe.solve.regularisers import laplacian_energy as laplacian_energy
from geoframe.solve.regularisers import normal_energy as normal_energy
from geoframe.solve.regularisers import volume_energy as volume_energy
