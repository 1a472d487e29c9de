"""How good matches and flow are, on pairs of images with a true flow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from geoframe.metrics.flow import flow_measures, spread_matches
from geoframe.models.deep_matching.network import DeepMatcher
from geoframe.models.deep_matching.predictor import match_images


def evaluate(
    pairs: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    matcher: DeepMatcher | None = None,
    on_pair: Callable[[int, dict[str, float]], None] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Measure a matcher on pairs of images; every number is the mean over the pairs.

    - matches_acc1 ... matches_acc10: percent of the pixels with a true flow that the best match within 8 pixels along
      both axes carries to within so many pixels of the truth; pixels without a match near are wrong;
    - spread_epe, spread_acc10: the same of the nearest match, however far;
    - flow_epe, flow_acc1 ... flow_acc10: of the dense flow;
    - n_matches, seconds: matches of a pair, wall time of matching it.

    Args:
        pairs: (image0 (3, H, W), image1 (3, H1, W1), true flow (2, H, W), NaN where it is unknown).
        matcher: by default the one made by hand.
        on_pair: called with the number of each pair and its measures.
        options: of `match_images`.

    Raises:
        ValueError: no pairs.
    """
    rows: list[dict[str, float]] = []
    for number, (image0, image1, truth) in enumerate(pairs):
        start = time.perf_counter()
        found = match_images(image0, image1, matcher=matcher, **options)
        row = {"n_matches": float(len(found.score)), "seconds": time.perf_counter() - start}
        size = (truth.shape[1], truth.shape[2])
        near = spread_matches(found.points0, found.points1, found.score, size)
        far = spread_matches(found.points0, found.points1, found.score, size, radius=None)
        for name, flow in (("matches", near), ("spread", far), ("flow", found.flow)):
            row |= {f"{name}_{key}": value for key, value in flow_measures(flow, truth).items()}
        rows.append(row)
        if on_pair is not None:
            on_pair(number, row)
    if not rows:
        raise ValueError("pairs: expected at least one pair of images, found none")
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
