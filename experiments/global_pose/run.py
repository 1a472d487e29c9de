"""Does the joint pose solver find the global minimum? Random problems against scipy from many random starts.

``python -m experiments.global_pose.run --out DIR [--quick] [--seed S]`` writes DIR/results.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from geoframe._files import atomic_path
from geoframe._types import Floats
from geoframe.solve import solve_pose

STARTS = 20  # of scipy, a problem


def problem(rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats, float, float]:
    """Points (V, 2) with 2 % noise, visibility (V,) with 40 % hidden, template, random basis, scale and ridge."""
    V, K = int(rng.integers(20, 60)), int(rng.integers(1, 9))
    T = rng.standard_normal((V, 3)) * rng.uniform(0.3, 1, 3)
    basis = rng.uniform(0.05, 0.4) * rng.standard_normal((K, V, 3))
    X = T + np.tensordot(rng.standard_normal(K), basis, 1)
    scale = rng.uniform(1, 2)
    u = scale * X @ Rotation.random(rng=rng).as_matrix()[:2].T + rng.standard_normal(2)
    u = u + 0.02 * u.std() * rng.standard_normal(u.shape)
    return u, (rng.random(V) > 0.4).astype(float), T, basis, scale, 10 ** rng.uniform(-3, 0)


def lowest_of_scipy(
    u: Floats, v: Floats, T: Floats, basis: Floats, scale: float, ridge: float, rng: np.random.Generator
) -> float:
    """Lowest objective of scipy's least_squares, with exact derivatives, from STARTS random rotations."""
    K, root = len(basis), np.sqrt(v)
    seen = root > 0
    u, T, basis, root = u[seen], T[seen], basis[:, seen], root[seen, None]
    flat = basis.reshape(K, -1)

    def run(R0: Floats) -> float:
        def residuals(p: Floats) -> Floats:
            R = Rotation.from_rotvec(p[:3]).as_matrix() @ R0
            X = T + (p[5:] @ flat).reshape(-1, 3)
            return np.r_[(root * (u - scale * X @ R[:2].T - p[3:5])).ravel(), np.sqrt(ridge) * p[5:]]

        def jacobian(p: Floats) -> Floats:
            J = np.zeros((2 * len(u) + K, 5 + K))
            R = Rotation.from_rotvec(p[:3]).as_matrix() @ R0
            Y = (T + (p[5:] @ flat).reshape(-1, 3)) @ R.T
            # a rotation vector p + d turns by about left_jacobian(p) d more
            left = _left_jacobian(p[:3])
            for axis in range(3):
                J[: 2 * len(u), axis] = (-scale * root * np.cross(left[:, axis], Y)[:, :2]).ravel()
            for axis in range(2):
                J[axis : 2 * len(u) : 2, 3 + axis] = -root[:, 0]
            J[: 2 * len(u), 5:] = (-scale * root * (basis @ R[:2].T)).reshape(K, -1).T
            J[2 * len(u) :, 5:] = np.sqrt(ridge) * np.eye(K)
            return J

        return (
            2 * least_squares(residuals, np.zeros(5 + K), jacobian, method="lm", xtol=1e-12, ftol=1e-12).cost
        )

    return min(run(R) for R in Rotation.random(STARTS, rng=rng).as_matrix())


def _left_jacobian(w: Floats) -> Floats:
    angle = float(np.linalg.norm(w))
    W = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    if angle < 1e-6:
        return np.eye(3) + W / 2
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * W + (angle - np.sin(angle)) / angle**3 * W @ W


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="100 problems instead of 1,000")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    n = 100 if args.quick else 1000
    reached = told = better = 0
    ours = theirs = 0.0
    worst = 0.0
    for i in range(n):
        rng = np.random.default_rng([args.seed, i])
        u, v, T, basis, scale, ridge = given = problem(rng)
        start = time.perf_counter()
        tensors = (torch.from_numpy(x) for x in (u, v, T, basis))
        sol = solve_pose(*tensors, ridge=ridge, scale=torch.tensor(scale, dtype=torch.float64), mode="joint")
        middle = time.perf_counter()
        other = lowest_of_scipy(*given, rng)
        ours, theirs = ours + middle - start, theirs + time.perf_counter() - middle
        best, value = min(other, sol.value.item()), sol.value.item()
        reached += value <= best * (1 + 1e-6)
        better += value < other * (1 - 1e-6)
        told += not bool(sol.converged)
        worst = max(worst, value / best - 1)
        if (i + 1) % 100 == 0:
            print(f"{i + 1}: reached {reached}, scipy missed {better}, not converged {told}", flush=True)
    results = {
        "problems": n,
        "reached_share": reached / n,
        "scipy_missed_share": better / n,
        "not_converged": told,
        "worst_excess": worst,
        "ours_ms": 1e3 * ours / n,
        "scipy_ms": 1e3 * theirs / n,
    }
    with atomic_path(args.out / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
