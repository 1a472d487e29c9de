"""As-rigid-as-possible deformation: the energy of a deformation, and the solver that moves handles.

    E(x) = sum_i min_{R_i} sum_{j in N(i)} w_ij |(x_i - x_j) - R_i (t_i - t_j)|^2

with rest positions t, one rotation R_i a vertex ("spokes"), and the cotangent weights ``w_ij = (cot a + cot b) / 2``
of the rest mesh. E is zero for rigid motions only, in squared mesh units. Source: Sorkine & Alexa 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._check import check_finite, check_float, check_index, check_int, check_shape, check_tensor
from geoframe._types import Floats
from geoframe.linalg import SpdFactor
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian
from geoframe.surface.topology import vertex_components
from geoframe.transforms import nearest_rotation

FLOOR = 1e-6  # least weight of an edge, of the mean weight, where weights are clamped


class Arap:
    """The energy of deformations of one rest mesh, its weights computed once.

    Args:
        mesh: the rest mesh, single. Its coordinates may require gradients; the weights are constants.
        clamp: raise weights below zero, of edges with obtuse angles on both sides, to (almost) zero, without
            which E is not bounded below; as the released code of To The Point. False keeps them, as libigl.

    Degenerate triangles are fattened just enough to have finite weights (see `mollify_intrinsic`).
    """

    def __init__(self, mesh: Mesh, *, clamp: bool = True) -> None:
        W = sp.triu(laplacian(mesh, kind="cotangent")[0], 1).tocoo()
        w = -W.data
        if clamp and len(w):
            w = np.maximum(w, FLOOR * np.abs(w).mean())
        self.mesh = mesh
        self.edges = torch.from_numpy(np.stack([W.row, W.col], 1).astype(np.int64)).to(mesh.device)
        self.weights = torch.from_numpy(w).to(mesh.device, mesh.dtype)

    def energy(self, verts: Tensor) -> Tensor:
        """E (...) of positions (..., V, 3) of the rest mesh's vertices.

        Differentiable: the rotations minimise E, so holding them fixed gives its exact gradient, finite
        everywhere. (Second derivatives taken through it hold them fixed too.)
        """
        rest, moved = self._differences(verts)
        with torch.no_grad():
            R = self._rotations(rest, moved, verts.shape)
        total: Tensor = verts.new_zeros(())
        for end in range(2):
            turned = (R[..., self.edges[:, end], :, :] @ rest[..., None])[..., 0]
            total = total + (self.weights * (moved - turned).square().sum(-1)).sum(-1)
        return total

    def rotations(self, verts: Tensor) -> Tensor:
        """(..., V, 3, 3) the best rotation of each vertex's neighbourhood from rest to `verts`."""
        return self._rotations(*self._differences(verts), verts.shape)

    def _differences(self, verts: Tensor) -> tuple[Tensor, Tensor]:
        check_shape(check_float(verts, "verts"), f"... {self.mesh.n_verts} 3", "verts")
        i, j = self.edges.unbind(1)
        return self.mesh.verts[i] - self.mesh.verts[j], verts[..., i, :] - verts[..., j, :]

    def _rotations(self, rest: Tensor, moved: Tensor, shape: torch.Size) -> Tensor:
        outer = moved[..., :, None] * (self.weights[:, None] * rest)[..., None, :]
        S = torch.zeros(*shape[:-1], 3, 3, dtype=outer.dtype, device=outer.device)
        for end in range(2):  # both ends see the same product of differences
            S = S.index_add(-3, self.edges[:, end], outer)
        return nearest_rotation(S)


def arap_energy(mesh: Mesh, verts: Tensor, *, clamp: bool = True) -> Tensor:
    """As-rigid-as-possible energy of a deformation, in squared units of the mesh.

    Zero for rigid motions. For a loss on a deformation pass the deformed vertices; on the components of a basis
    (K, V, 3), ``mesh.verts + basis``. To evaluate often keep ``Arap(mesh)``, of which this is the one-shot form.

    Args:
        mesh: at rest, V vertices.
        verts: (..., V, 3) deformed.
        clamp: as in `Arap`.

    Returns:
        (...).

    Source: Sorkine & Alexa 2007; To The Point, section 3.4 (which divides by V: do so where it matters).
    """
    return Arap(mesh, clamp=clamp).energy(verts)


@dataclass(frozen=True, eq=False)
class ArapSolution:
    """A deformed mesh.

    Attributes:
        verts: (V, 3) positions, in the dtype and on the device of the rest mesh; handles are where they should be.
        energy: E of them. converged: whether the last step moved no vertex by more than the tolerance.
        steps: local/global steps taken.
    """

    verts: Tensor
    energy: float
    converged: bool
    steps: int


class ArapSolver:
    """Moves some vertices, the handles, and lets the others follow as rigidly as possible.

    The system is factored once for a choice of handles; ``solve`` then takes local steps (rotations) and global
    steps (one sparse solve) in turn. Float64 on the CPU.

    Args:
        mesh: rest mesh, single.
        handles: (H,) int64 different vertices, at least one in each connected component.
        clamp: as in `Arap`.

    Raises:
        ValueError: handles out of range, repeated, or missing in a component; weights that leave the system
            indefinite (clamp=False on a bad mesh).
    """

    def __init__(self, mesh: Mesh, handles: Tensor, *, clamp: bool = True) -> None:
        check_shape(check_tensor(handles, "handles"), "H", "handles")
        check_index(handles, mesh.n_verts, "handles", what="vertices")
        fixed = handles.cpu().long().numpy()
        if len(np.unique(fixed)) != len(fixed):
            raise ValueError("handles: expected different vertices, found some twice; keep the first of each")
        _, label = vertex_components(mesh.faces.cpu().numpy(), mesh.n_verts)
        free_components = np.setdiff1d(np.unique(label), label[fixed])
        if len(free_components):
            vertex = int(np.flatnonzero(label == free_components[0])[0])
            raise ValueError(
                f"handles: expected one in each connected component, found none in {len(free_components)}, "
                f"such as that of vertex {vertex}; add handles there, or drop the component (geoframe.repair)"
            )
        self.mesh, self._fixed = mesh, fixed
        self._free = np.setdiff1d(np.arange(mesh.n_verts), fixed)
        self._system = _System(Arap(mesh.to(torch.float64).to("cpu"), clamp=clamp))
        L = self._system.L.tocsr()
        self._to_fixed = L[self._free][:, fixed]
        self._factor = SpdFactor(L[self._free][:, self._free]) if len(self._free) else None

    def solve(
        self, targets: Tensor, *, init: Tensor | None = None, max_steps: int = 200, tolerance: float = 1e-6
    ) -> ArapSolution:
        """Positions of all vertices for given positions of the handles.

        Args:
            targets: (H, 3) where the handles should be.
            init: (V, 3) positions to start from; None for the rest mesh.
            max_steps: local/global steps at most.
            tolerance: of the motion in one step, relative to the extent of the rest mesh.
        """
        check_shape(check_float(targets, "targets"), f"{len(self._fixed)} 3", "targets")
        check_finite(targets, "targets")
        check_int(max_steps, "max_steps", low=1)
        x = (self.mesh.verts if init is None else init).detach().double().cpu().numpy().copy()
        check_shape(x, f"{self.mesh.n_verts} 3", "init")
        x[self._fixed] = targets.detach().double().cpu().numpy()
        held = self._to_fixed @ x[self._fixed]
        small = tolerance * float(np.ptp(self._system.rest, axis=0).max())
        motion, steps = np.inf, 0
        while steps < max_steps and motion > small and self._factor is not None:
            b = self._system.pull(self._system.rotations(x))
            new = self._factor.solve(b[self._free] - held)
            motion, steps = float(np.abs(new - x[self._free]).max()), steps + 1
            x[self._free] = new
        verts = torch.from_numpy(x)
        energy = float(self._system.cells.energy(verts))
        done = motion <= small or self._factor is None
        return ArapSolution(verts.to(self.mesh.device, self.mesh.dtype), energy, done, steps)


class _System:
    """Sparse matrices of the two steps: Laplacian L (V, V), and K (3 V, V) with ``S = K x`` the covariances of all
    vertices, whose transpose gives the global step's right-hand side, ``L x = K^T R / 2``."""

    def __init__(self, cells: Arap) -> None:
        self.cells, self.rest = cells, cells.mesh.verts.detach().numpy()
        i, j = cells.edges.numpy().T
        w, V = cells.weights.numpy(), len(self.rest)
        off = sp.coo_array((np.r_[w, w], (np.r_[i, j], np.r_[j, i])), shape=(V, V)).tocsr()
        self.L = (sp.diags_array(off.sum(1)) - off).tocsr()
        e = w[:, None] * (self.rest[i] - self.rest[j])  # of the edge seen from i; from j it is the opposite
        blocks = []
        for axis in e.T:
            far = sp.coo_array((np.r_[-axis, axis], (np.r_[i, j], np.r_[j, i])), shape=(V, V)).tocsr()
            blocks.append(sp.diags_array(-far.sum(1)) + far)
        self.K = sp.vstack(blocks).tocsr()
        self.KT = (self.K.T / 2).tocsr()

    def rotations(self, x: Floats) -> Floats:
        """(V, 3, 3) best rotations for positions x (V, 3)."""
        S = (self.K @ x).reshape(3, -1, 3)  # [b, i, a]
        return nearest_rotation(torch.from_numpy(S).permute(1, 2, 0)).numpy()

    def pull(self, R: Floats) -> Floats:
        """(V, 3) right-hand side of the global step."""
        return self.KT @ np.ascontiguousarray(R.transpose(2, 0, 1)).reshape(-1, 3)
