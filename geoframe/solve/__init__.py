"""Geometric solvers: pose and deformation from 2D points, as-rigid-as-possible deformation, energies of meshes."""

from geoframe.solve.implicit import implicit_solution as implicit_solution
from geoframe.solve.pose import Solution as Solution
from geoframe.solve.pose import solve_pose as solve_pose
