"""Linear regression with a penalty that cross-validation chooses, from one example to thousands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import check_int, check_shape

PENALTIES = tuple(
    10.0 ** (k / 2) for k in range(-14, 5)
)  # of the largest eigenvalue; the last leaves the mean


@dataclass(frozen=True, eq=False)
class Ridge:
    """``y = (x - x_mean) W + y_mean``.

    Attributes:
        x_mean: (d,).
        weight: (d, m).
        y_mean: (m,).
        penalty: what was added to the squares, in parts of the largest eigenvalue.
    """

    x_mean: Tensor
    weight: Tensor
    y_mean: Tensor
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Answers (..., m) to (..., d)."""
        return (x - self.x_mean) @ self.weight + self.y_mean


def fit_ridge(x: Tensor, y: Tensor, penalty: float) -> Ridge:
    """The weights that minimise ``|y - x W|^2 + penalty s |W|^2``, both sides centred.

    Args:
        x: (n, d).
        y: (n, m).
        penalty: in parts of s, the largest eigenvalue of x^T x. Solved in the smaller of the two spaces.
    """
    n = check_shape(x, "N D", "x")["N"]
    check_shape(y, f"{n} M", "y")
    return _Solved(x, y).ridge(penalty)


def cross_validated_ridge(
    x: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    penalties: tuple[float, ...] = PENALTIES,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Ridge, Tensor]:
    """Ridge regression with the penalty that predicts left-out groups best.

    Args:
        x: (n, d).
        y: (n, m).
        groups: (n,) int64, rows that are left out together, such as copies of one picture; all apart by default.
        penalties: to choose from, see `fit_ridge`.
        folds: how many parts the groups are split into. Of a single group the rows are split; of a single row the
            largest penalty is taken.
        seed: of the split.

    Returns:
        ridge: of all rows.
        left_out: (n, m) what was predicted for each row when it was left out.
    """
    check_int(folds, "folds", low=2)
    n = len(x)
    if groups is None or len(torch.unique(groups)) == 1:
        groups = torch.arange(n)
    fold = fold_of(groups, folds, seed=seed)
    count = int(fold.max()) + 1
    if count < 2:
        ridge = _Solved(x, y).ridge(max(penalties))
        return ridge, ridge(x)
    predicted = y.new_empty(len(penalties), *y.shape)
    for k in range(count):
        out = fold == k
        solved = _Solved(x[~out], y[~out])
        for i, penalty in enumerate(penalties):
            predicted[i, out] = solved.ridge(penalty)(x[out])
    best = int((predicted - y).square().sum((1, 2)).argmin())
    return _Solved(x, y).ridge(penalties[best]), predicted[best]


def fold_of(groups: Tensor, folds: int, *, seed: int = 0) -> Tensor:
    """Number of the fold (n,) of each row; rows of a group (n,) are in one fold."""
    kinds, index = torch.unique(groups, return_inverse=True)
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    return (order % min(folds, len(kinds)))[index]


class _Solved:
    """An eigendecomposition of the smaller Gram matrix, which serves all penalties."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.dtype, self.x_mean, self.y_mean = x.dtype, x.mean(0), y.mean(0)
        xc, yc = (x - self.x_mean).double(), (y - self.y_mean).double()
        self.dual = len(x) <= x.shape[1]
        gram = xc @ xc.T if self.dual else xc.T @ xc
        vals, vecs = torch.linalg.eigh(gram)
        self.vals = vals.clamp_min(0)
        self.left = xc.T @ vecs if self.dual else vecs
        self.right = vecs.T @ yc if self.dual else vecs.T @ (xc.T @ yc)

    def ridge(self, penalty: float) -> Ridge:
        most = self.vals[-1]
        scale = self.vals + penalty * most
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of identical rows: no slope at all
        W = self.left @ (self.right / scale[:, None])
        return Ridge(self.x_mean, W.to(self.dtype), self.y_mean, penalty)
