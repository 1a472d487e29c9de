"""The confidence fitted to maps that are known to be right or wrong, and how well it tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geoframe.maps.verdict import RIGHT, SURE, confidence, features

Row = dict[str, Any]
RIDGE = 0.5  # penalty of the squared weights of standardised features, as of so many maps
STEPS = 20_000
SIGNS = np.array([1.0, 1.0, -1.0, -1.0, -1.0])  # of the weights of `features`


def fitted(rows: Sequence[Row]) -> dict[str, list[float]]:
    """NAMED and UNNAMED of `geoframe.maps.verdict` from rows of final maps; right and wrong ones count alike."""
    final = [r for r in rows if r["level"] == "final"]
    wrong = np.array([r["error"] >= RIGHT for r in final])
    x = [features(r) for r in final]
    named = np.array([len(v) for v in x]) == max(map(len, x))
    every = np.array([v[:4] for v in x])
    return {
        "NAMED": logistic(np.array([v for v in x if len(v) == 5]), ~wrong[named]),
        "UNNAMED": logistic(every, ~wrong),
    }


def logistic(x: np.ndarray, right: np.ndarray) -> list[float]:
    """The constant and the weights of a ridge-penalised logistic regression in which both classes weigh the same.

    No weight may have the wrong sign: alikeness can only speak for a map, the rest only against it.
    """
    middle, spread = x.mean(0), x.std(0)
    z = np.c_[np.ones(len(x)), SIGNS[: x.shape[1]] * (x - middle) / spread]
    weight = np.where(right, 0.5 / right.mean(), 0.5 / (1 - right).mean()) / len(x)
    penalty = RIDGE / len(x) * np.r_[0.0, np.ones(x.shape[1])]
    step = 1 / (0.25 * np.linalg.eigvalsh(z.T @ (weight[:, None] * z)).max() + penalty.max())
    w = np.zeros(z.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-z @ w))
        w -= step * (z.T @ (weight * (p - right)) + penalty * w)
        w[1:] = w[1:].clip(min=0)
    slopes = SIGNS[: x.shape[1]] * w[1:] / spread
    return [float(w[0] - slopes @ middle), *slopes.tolist()]


def report(rows: Sequence[Row]) -> dict[str, float]:
    """How well the confidence that is in the library tells right maps from wrong ones.

    Returns:
        auc of all final maps; of those called sure the share that is right; of the wrong ones the share called
        doubtful; of the right ones the share called sure; brier, the mean squared error of the confidence; and of
        what `match` itself returns: pairs, wrong_maps, mean_error of the right ones.
    """
    final = [r for r in rows if r["level"] == "final"]
    if not final:
        return {}
    sure = np.array([confidence(r) for r in final])
    right = np.array([r["error"] < RIGHT for r in final])
    mine = [r for r in final if r["chosen"]]
    out = {
        "maps": float(len(final)),
        "wrong": float((~right).sum()),
        "auc": auc(sure, right),
        "sure_are_right": _share(right[sure >= SURE]),
        "wrong_are_doubted": _share(sure[~right] < SURE),
        "right_are_sure": _share(sure[right] >= SURE),
        "brier": float(((sure - right) ** 2).mean()),
        "pairs": float(len(mine)),
        "wrong_maps": float(sum(r["error"] >= RIGHT for r in mine)),
        "mean_error": float(np.mean([r["error"] for r in mine if r["error"] < RIGHT] or [np.nan])),
    }
    return out


def auc(score: np.ndarray, right: np.ndarray) -> float:
    """Chance that a right map has a higher score than a wrong one, ties counting half."""
    more = score[right][:, None] - score[~right]
    return float(((more > 0) + 0.5 * (more == 0)).mean()) if more.size else float("nan")


def _share(x: np.ndarray) -> float:
    return float(x.mean()) if len(x) else float("nan")
