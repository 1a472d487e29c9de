"""Surface embeddings measured, and their confidence calibrated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from geoframe._check import check_choice
from geoframe.data.image_files import ImageItem, ImageSet
from geoframe.data.pixel_samples import PixelSamples
from geoframe.data.rendered import RenderedSet
from geoframe.heads.upright import TURNS, Glimpse
from geoframe.metrics.embeddings import mean_scores, mesh_error, pck, pixel_scores
from geoframe.models.surface_embedding.network import KERNEL, Evidence, Target, at_points
from geoframe.nearest.embedded import least_expected_distance, nearest_vertices

if TYPE_CHECKING:
    from geoframe.models.surface_embedding.predictor import Predictor
    from geoframe.pixels import PixelMap

KAPPA = 0.185  # sqrt(area); 0.255 m, the released code's, on a human surface of 1.9 square metres
_EVERY = 20  # of so many samples one is set aside, the last of all
_FEWEST, _MOST = 200, 300  # samples, below which none is; so many at most are
_CALIBRATED = 30  # pictures, below which nothing is fitted
_CARRIED = 50  # points at most that are carried from image to image
_TURNED = 200  # pictures at most that are looked at turned, to learn what tells which way is up
DECODES = ("likeliest", "least_expected")


def evaluate(
    predictor: Predictor,
    images: RenderedSet | ImageSet,
    *,
    kappa: float = KAPPA,
    flip: bool = True,
    decode: str = "likeliest",
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, float]:
    """Measure a predictor on rendered or annotated images, which it looks at as `Predictor.predict` does.

    Args:
        predictor: what is measured.
        images: rendered, with the truth of every pixel; or annotated objects with points, whose surface names the
            predictor knows, and with masks or without.
        kappa: of GPS, in sqrt(area).
        flip: see `Predictor.predict`.
        decode: "likeliest", the nearest vertex, as `predict` does; or "least_expected", see
            `geoframe.nearest.embedded.least_expected_distance`, which is slower.
        progress: called with (text, share done).

    Returns:
        Means over the images of what `geoframe.metrics.embeddings.pixel_scores` gives: `geodesic_error_mean` and
        `geodesic_error_median` (in sqrt(area)), `gps` (a vertex for every annotated pixel), `gps_misses_zero` (pixels
        outside the predicted mask score 0), `gpsm`, `mask_iou`, `mask_iou_inside`, `mirrored`; with `points`, the
        number of annotated pixels, `ap` and `ar` of GPSm, `images` and `kappa`. Measures of masks are missing where
        the images have none. `pck_10` and `pck_20` are those of `transferred`, missing where no two images show the
        same vertices.

    Raises:
        ValueError: no images, an unknown decoding.
    """
    scores = evaluate_each(predictor, images, kappa=kappa, flip=flip, decode=decode, progress=progress)
    carried = transferred(predictor, images, flip=flip, progress=progress)
    return mean_scores(list(scores.values())) | carried | {"images": float(len(scores)), "kappa": kappa}


def transferred(
    predictor: Predictor,
    images: RenderedSet | ImageSet,
    *,
    flip: bool = True,
    most: int = 40,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, float]:
    """PCK of points that are carried from each image to the next one by the embeddings of their pixels.

    The points are vertices that both images show, at most 50 spread evenly over their numbers, each at the first pixel
    from the top that shows it; the unit is the longer side of the box around all that are known in the second image.
    Images of more than a million pixels hold no embeddings: they are compared through the nearest vertices.

    Args:
        predictor: what is measured.
        images: see `evaluate`; neighbours of one surface are compared.
        flip: see `Predictor.predict`.
        most: look at so many images, the first ones.
        progress: called with (text, share done).

    Returns:
        `pck_10` and `pck_20` in [0, 1], the mean over pairs; nothing where there is no pair.
    """
    shares: list[Tensor] = []
    last: tuple[str, Tensor, PixelMap] | None = None
    for i, (_, (image, truth, _, name, box)) in enumerate(itertools.islice(_examples(images), most)):
        if progress is not None:
            progress(f"carrying points, {i + 1} images", 1.0)
        found = predictor.predict(image, [box], category=name, flip=flip)[0]
        if last is not None and last[0] == name:
            both = torch.tensor(sorted(set(last[1].unique().tolist()) & set(truth.unique().tolist()) - {-1}))
            if len(both):
                both = both[torch.linspace(0, len(both) - 1, min(len(both), _CARRIED)).long()]
                there = last[2].correspond(found, _places(last[1], both)).target
                known = torch.nonzero(truth >= 0)
                side = float((known.max(0).values - known.min(0).values + 1).max())
                true = _places(truth, both)
                shares.append(torch.stack([pck(there, true, side, alpha=a) for a in (0.1, 0.2)]))
        last = (name, truth, found)
    mean = torch.stack(shares).mean(0).tolist() if shares else []
    return dict(zip(("pck_10", "pck_20"), mean, strict=False))


def _places(truth: Tensor, vertices: Tensor) -> Tensor:
    """(N, 2) pixel x, pixel y: for each vertex the middle of the first pixel of `truth` (H, W) that shows it."""
    flat = torch.stack([torch.nonzero(truth.flatten() == v)[0, 0] for v in vertices])
    return torch.stack([flat % truth.shape[1], flat // truth.shape[1]], -1).float() + 0.5


def evaluate_each(
    predictor: Predictor,
    images: RenderedSet | ImageSet,
    *,
    kappa: float = KAPPA,
    flip: bool = True,
    decode: str = "likeliest",
    progress: Callable[[str, float], None] | None = None,
) -> dict[int, dict[str, float]]:
    """The measures of each image by its number; see `evaluate`.

    Images are left out of which nothing is to be seen, or whose object has no correspondence to the surface, as some
    aeroplanes of the zoo.

    Args:
        predictor: as in `evaluate`.
        images: as in `evaluate`.
        kappa: as in `evaluate`.
        flip: as in `evaluate`.
        decode: as in `evaluate`.
        progress: as in `evaluate`.

    Raises:
        ValueError: an unknown decoding.
    """
    check_choice(decode, DECODES, "decode")
    scores: dict[int, dict[str, float]] = {}
    total = len(images)
    for number, (image, truth, mask, name, box) in _examples(images):
        own, target = predictor.of(name), predictor.target(name)
        scores[number] = _scores(own, target, image, truth, mask, box, kappa, flip, decode)
        if progress is not None:
            progress(f"evaluating, {len(scores)} of {total} images", len(scores) / total)
    return scores


Example = tuple[Tensor, Tensor, "Tensor | None", str, "Tensor | None"]


def _examples(images: RenderedSet | ImageSet) -> Iterable[tuple[int, Example]]:
    """Number, and: image, true vertices (H, W), mask, name of the surface, box."""
    if isinstance(images, RenderedSet):
        for batch in images.batches(16):
            for i, number in enumerate(batch.category.tolist()):
                if bool((batch.vertex[i] >= 0).any()):
                    name = images.surface or images.categories[number]
                    example = batch.image[i], batch.vertex[i], batch.mask[i], name, None
                    yield int(batch.index[i]), example
        return
    for number, item in enumerate(images):
        if len(item.vertex):
            yield number, _annotated(item)


def _annotated(item: ImageItem) -> Example:
    image = item.read()
    truth = torch.full(image.shape[-2:], -1, dtype=torch.int64)
    last = torch.tensor([image.shape[2] - 1, image.shape[1] - 1])
    at = torch.minimum(item.points.long().clamp_min(0), last)
    truth[at[:, 1], at[:, 0]] = item.vertex
    return image, truth, None if item.mask is None else item.foreground(), item.surface, item.box


def _scores(
    predictor: Predictor,
    target: Target,
    image: Tensor,
    truth: Tensor,
    mask: Tensor | None,
    box: Tensor | None,
    kappa: float,
    flip: bool,
    decode: str,
) -> dict[str, float]:
    """All measures of one image."""
    rows, cols = torch.nonzero(truth >= 0, as_tuple=True)
    x, _, guess = _read(predictor, image, torch.stack([cols, rows], -1) + 0.5, box=box, flip=flip)
    seen = x.norm(dim=1) > 0  # not so outside of a box
    rows, cols, x = rows[seen], cols[seen], x[seen]
    vertex = torch.full_like(truth, -1)
    vertex[rows, cols] = _decoded(x, target, predictor.temperature, decode)
    true_mask = guess if mask is None else mask
    scores = pixel_scores(vertex, guess, truth, true_mask, target.rows, mirror=target.mirror, kappa=kappa)
    if mask is None:
        scores = {k: v for k, v in scores.items() if not k.startswith("mask")}
        scores["gpsm"] = scores["gps_misses_zero"]
    return scores


def _read(
    predictor: Predictor,
    image: Tensor,
    points: Tensor,
    *,
    box: Tensor | None = None,
    flip: bool = True,
    turn: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (N, D) at points (N, 2) of an image, 0 outside of a box; logits of the mask, and the mask (H, W)."""
    x = torch.zeros(len(points), predictor.model.dim)
    looks = predictor.looks(image, box, flip=flip, turn=turn)
    for (x0, y0, x1, y1), found in looks:
        at, size = points - torch.tensor([x0, y0]), torch.tensor([x1 - x0, y1 - y0])
        inside = ((at >= 0) & (at < size)).all(1)
        h, w = found.mask.shape
        x[inside] = at_points(found.embedding[None], (at[inside] * torch.tensor([w, h]) / size)[None], 1)[0]
    (x0, y0, x1, y1), found = looks[-1]
    logits = torch.full(image.shape[1:], -1.0)
    mask = torch.zeros(image.shape[1:], dtype=torch.bool)
    logits[y0:y1, x0:x1], mask[y0:y1, x0:x1] = predictor.masked(
        found, image[:, y0:y1, x0:x1], (y1 - y0, x1 - x0)
    )
    return x, logits, mask


def _decoded(x: Tensor, target: Target, temperature: float, decode: str) -> Tensor:
    if decode == "likeliest":
        return nearest_vertices(x, target.table)
    part = target.table[target.chosen]
    distances = target.rows.rows(target.chosen)
    return least_expected_distance(x, part, distances, temperature=temperature)[0]


def evaluate_meshes(predictor: Predictor, pairs: dict[tuple[str, str], Tensor]) -> dict[str, float]:
    """How well the embeddings of surfaces match them with one another; means over the pairs of surfaces.

    Args:
        predictor: knows the surfaces.
        pairs: (name 1, name 2) -> (L, 2) vertices that correspond.

    Returns:
        `mesh_geodesic_error` in sqrt(area) of surface 2, and `mesh_gps` in [0, 1].
    """
    found = [
        mesh_error(predictor.target(a).table, predictor.target(b).table, pair, predictor.target(b).rows)
        for (a, b), pair in pairs.items()
    ]
    n = len(found)
    return {
        "mesh_geodesic_error": sum(f["geodesic_error_mean"] for f in found) / n,
        "mesh_gps": sum(f["gps"] for f in found) / n,
    }


def parted(samples: PixelSamples) -> tuple[PixelSamples, PixelSamples]:
    """Samples to learn from, and the last twentieth to calibrate on: none of fewer than 200, 300 at most."""
    kept = len(samples) - (min(len(samples) // _EVERY, _MOST) if len(samples) >= _FEWEST else 0)
    return samples[:kept], samples[kept:]


def calibrate(predictor: Predictor, samples: PixelSamples, nothing: Tensor | None = None) -> None:
    """Fit confidence, limits and what tells which way is up, on upright pictures that were not trained on.

    Args:
        predictor: changed in place; not by fewer than 30 pictures, nor where all pixels are right, or all wrong.
        samples: annotated pictures, with masks.
        nothing: (n, 3, S, S) in [0, 1], pictures of other things; None leaves the limit of the score as it is.
    """
    clues, right, scores, sides, mirrored = [], [], [], [], []
    for i in range(len(samples)):
        name = samples.names[int(samples.surface[i])]
        own, target = predictor.of(name), predictor.target(name)
        known = samples.vertex[i] >= 0
        vertex, points = samples.vertex[i][known], samples.points[i][known]
        n = len(vertex)
        if bool(samples.masked[i]):  # as many pixels where the map would be wrong to say anything
            outside = torch.nonzero(~samples.mask[i]).flip(1)
            outside = outside[torch.linspace(0, len(outside) - 1, n).long()] + 0.5
            points = torch.cat([points, outside.float()]) if len(outside) else points
        x, logits, mask = _read(own, samples.image[i].float() / 255, points, turn=False)
        cols, rows = points.long().clamp_max(samples.size - 1).T
        seen = mask[rows, cols]
        if not bool(seen.any()):
            continue
        answer = nearest_vertices(x, target.table)
        error = torch.full((len(x),), torch.inf)
        error[:n] = target.rows.pairs(vertex, answer[:n])
        clue = own.evidence(x[seen], logits[rows, cols][seen], target)
        clues.append(clue)
        right.append(error[seen] < KERNEL)
        sides.append(float(x[:n].norm(dim=1)[seen[:n]].mean()) if bool(seen[:n].any()) else 0.0)
        if target.mirror is not None and bool(seen[:n].any()):
            other = target.rows.pairs(target.mirror[vertex], answer[:n])
            mirrored.append(float((other < error[:n])[seen[:n]].float().mean()) > 0.5)
        else:
            mirrored.append(False)
    kinds = torch.cat(right) if right else torch.zeros(0, dtype=torch.bool)
    if len(clues) < _CALIBRATED or bool(kinds.all()) or not bool(kinds.any()):
        return
    evidence = Evidence(*(torch.cat(x) for x in zip(*clues, strict=True)))
    calibration = predictor.model.calibration
    calibration.fit(evidence, kinds)
    predictor.model.upright.fit(_turned(predictor, samples))
    limits = calibration.limits
    assert isinstance(limits, Tensor)
    scores = [float(calibration(c).mean()) for c in clues]
    if nothing is not None:
        wrong = [predictor.verdict(predictor.predict(x)[0]).score for x in nothing]
        limits[0] = best_limit(torch.tensor(wrong), torch.tensor(scores))
    bad = torch.tensor(mirrored)
    if bool(bad.any()) and not bool(bad.all()):
        agreed = torch.tensor(sides)
        limits[1] = best_limit(agreed[bad], agreed[~bad])


def _turned(predictor: Predictor, samples: PixelSamples) -> list[list[Glimpse | None]]:
    """What is seen of some of the samples, each turned by `TURNS`."""
    out = []
    for i in torch.linspace(0, len(samples) - 1, min(len(samples), _TURNED)).long().tolist():
        own, image = predictor.of(samples.names[int(samples.surface[i])]), samples.image[i].float() / 255
        size = own.image_size
        out.append([own.glimpse(own.fields(image, size=size, turned=degrees)) for degrees in TURNS])
    return out


def best_limit(low: Tensor, high: Tensor) -> float:
    """The limit between two samples of numbers with the least sum of the shares on the wrong side of it; at most 5 %
    of the higher sample lie below it."""
    both = torch.cat([low, high]).sort().values
    middle = (both[1:] + both[:-1]) / 2
    wrong = (low > middle[:, None]).float().mean(1) + (high < middle[:, None]).float().mean(1)
    return min(float(middle[wrong.argmin()]), float(high.quantile(0.05)))
