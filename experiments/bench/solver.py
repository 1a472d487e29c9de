"""The To-The-Point layer beside torch's L-BFGS and the paper's figure, and ARAP beside libigl.

Problems as large as the paper's bird: 642 vertices, 16 coefficients, 64 samples a batch, 2 % noise, 40 % of the
points hidden. Seconds are per sample. The paper (table 5) reports 125.14 ms a sample for four alternations, on a
CPU (Xeon W-2255) or GPU alike. The measured peer is its released method: torch.optim.LBFGS on the whole batch as
one problem, for each of four alternations, coefficients in closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.bench._harness import Row, compare, data_folder, installed, main, measure, peer_label
from geoframe.solve import ArapSolver, arap_energy, solve_pose, solve_pose_pinhole
from geoframe.surface import Mesh, load
from geoframe.surface.shapes import torus
from geoframe.transforms import random_rotations, rotvec_to_rotation

BATCH, RIDGE, ALTERNATIONS = 64, 1e-2, 4
PAPER = 0.12514  # seconds a sample, four alternations


def problems(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Points (B, V, 2), visibility (B, V), template (V, 3), basis (K, V, 3), scale (B,)."""
    g = torch.Generator().manual_seed(0)
    V, K = 642, 16
    T = torch.randn(V, 3, generator=g) * torch.tensor([1.0, 0.7, 0.5])
    basis = 0.05 * torch.randn(K, V, 3, generator=g)
    R = random_rotations(BATCH, generator=g)
    X = T + torch.einsum("bk,kvi->bvi", torch.randn(BATCH, K, generator=g), basis)
    scale = 1 + torch.rand(BATCH, generator=g)
    u = scale[:, None, None] * (X @ R.mT)[..., :2] + torch.randn(BATCH, 1, 2, generator=g)
    u = u + 0.02 * u.std() * torch.randn(u.shape, generator=g)
    v = (torch.rand(BATCH, V, generator=g) > 0.4).float()
    return tuple(x.to(dtype) for x in (u, v, T, basis, scale))


def objective(
    u: Tensor, v: Tensor, T: Tensor, basis: Tensor, s: Tensor, R: Tensor, t: Tensor, c: Tensor
) -> Tensor:
    """Eq. 4 (B,) from all points."""
    X = T + torch.einsum("bk,kvi->bvi", c, basis)
    away = u - s[:, None, None] * (X @ R[:, :2].mT) - t[:, None]
    return (v * away.square().sum(-1)).sum(1) + RIDGE * c.square().sum(1)


def lbfgs(u: Tensor, v: Tensor, T: Tensor, basis: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The released alternation: R, t, c."""
    g = torch.Generator().manual_seed(0)
    w = torch.rand(BATCH, 3, generator=g).to(u.dtype).requires_grad_()
    t = torch.zeros(BATCH, 2, dtype=u.dtype, requires_grad=True)
    c = torch.zeros(BATCH, len(basis), dtype=u.dtype)
    for _ in range(ALTERNATIONS):
        optimiser = torch.optim.LBFGS(
            [w, t],
            lr=1,
            max_iter=100,
            tolerance_grad=1e-7,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def closure(optimiser: Any = optimiser, c: Tensor = c) -> Tensor:
            optimiser.zero_grad()
            loss = objective(u, v, T, basis, s, rotvec_to_rotation(w), t, c).mean()
            loss.backward()
            return loss

        optimiser.step(closure)
        with torch.no_grad():
            M = s[:, None, None] * rotvec_to_rotation(w)[:, :2]
            omega = torch.einsum("bij,kvj->bvik", M, basis).flatten(1, 2)
            rest = (u - t[:, None] - T @ M.mT).flatten(1)
            weighted = (v.repeat_interleave(2, 1)[..., None] * omega).mT
            A = weighted @ omega + RIDGE * torch.eye(len(basis), dtype=u.dtype)
            c = torch.linalg.solve(A, (weighted @ rest[..., None])[..., 0])
    return rotvec_to_rotation(w).detach(), t.detach(), c


def ttp_forward() -> list[Row]:
    u, v, T, basis, s = data = problems()
    ours = measure(
        lambda: solve_pose(u, v, T, basis, ridge=RIDGE, scale=s, steps=ALTERNATIONS), warmup=5, repeats=25
    )
    theirs = measure(lambda: lbfgs(*data), warmup=0, repeats=1)  # minutes on a busy machine
    best = solve_pose(u, v, T, basis, ridge=RIDGE, scale=s, mode="joint").value
    poses = ((ours.value.R, ours.value.t, ours.value.alpha), theirs.value)
    share = [float((objective(*data, *pose) <= 1.01 * best).float().mean()) for pose in poses]
    note = f"within 1 % of the joint minimum: {share[0]:.0%} of samples, theirs {share[1]:.0%}"
    seconds, ratio = ours.median / BATCH, theirs.median / ours.median
    return [
        Row("ttp-fwd", seconds, theirs.median / BATCH, ratio, "torch.optim.LBFGS", note),
        _beside_paper(seconds, "ttp-fwd-paper", "forward"),
    ]


def _beside_paper(seconds: float, case: str, what: str) -> Row:
    return Row(
        case, seconds, PAPER, PAPER / seconds, "To The Point, table 5", f"recorded, not run here; {what}"
    )


def ttp_backward() -> list[Row]:
    u, v, T, basis, s = problems()
    leaves = [x.requires_grad_() for x in (u, v, T, basis)]

    def step() -> None:
        sol = solve_pose(*leaves, ridge=RIDGE, scale=s, steps=ALTERNATIONS)
        torch.autograd.grad(sol.R.sum() + sol.t.sum() + sol.alpha.sum(), leaves)

    seconds = measure(step, warmup=5, repeats=25).median / BATCH
    return [_beside_paper(seconds, "ttp-bwd", "ours forward and backward, theirs forward only")]


def other_modes() -> list[Row]:
    u, v, T, basis, s = problems()
    joint = measure(lambda: solve_pose(u, v, T, basis, ridge=RIDGE, scale=s, mode="joint"), repeats=5)
    f, pp = torch.tensor([500.0, 500.0]), torch.tensor([128.0, 128.0])
    far = torch.tensor([0.0, 0.0, 8.0])
    R = random_rotations(BATCH, generator=torch.Generator().manual_seed(1))
    Y = T @ R.mT + far
    seen = f * Y[..., :2] / Y[..., 2:] + pp
    pinhole = measure(lambda: solve_pose_pinhole(seen, v, T, basis, focal=f, principal=pp), repeats=3)
    return [
        Row(
            "ttp-joint",
            joint.median / BATCH,
            note=f"converged {float(joint.value.converged.float().mean()):.0%}",
        ),
        Row(
            "pinhole",
            pinhole.median / BATCH,
            note=f"converged {float(pinhole.value.converged.float().mean()):.0%}",
        ),
    ]


def arap() -> list[Row]:
    """Ten local/global steps on about 5,000 vertices, one end held, the other twisted and moved."""
    folder = data_folder()
    path = folder / "animals/camel_gallop/camel-gallop-01.off" if folder else None
    mesh = load(path) if path is not None and path.is_file() else torus(n_around=100, n_tube=50)
    assert isinstance(mesh, Mesh)
    mesh = mesh.to(torch.float64)
    order = mesh.verts[:, 1].argsort()
    ends = torch.cat([order[:100], order[-100:]])
    to = mesh.verts[ends].clone()
    to[100:] += 0.1 * (mesh.verts[:, 1].max() - mesh.verts[:, 1].min())
    solver = ArapSolver(mesh, ends, clamp=False)
    theirs = None
    if installed("igl"):
        import igl

        V, data = mesh.verts.numpy(), igl.ARAPData()
        data.max_iter, data.energy = 10, igl.ARAP_ENERGY_TYPE_SPOKES
        igl.arap_precomputation(V, mesh.faces.numpy(), 3, ends.numpy().astype(np.int32), data)

        def theirs() -> Any:
            return igl.arap_solve(to.numpy(), data, V.copy())

    def check(a: Any, b: Any) -> str:
        if b is None:
            return f"energy {a.energy:.6g}"
        return f"energy {a.energy:.6g} / {float(arap_energy(mesh, torch.from_numpy(b), clamp=False)):.6g}"

    return [
        compare(
            "arap-5k-10",
            lambda: solver.solve(to, max_steps=10, tolerance=0.0),
            theirs,
            peer_name=peer_label("libigl"),
            check=check,
        )
    ]


CASES = {"ttp-fwd": ttp_forward, "ttp-bwd": ttp_backward, "other-modes": other_modes, "arap-5k-10": arap}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
