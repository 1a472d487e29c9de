"""The studies of the paper on rendered pictures, and what a model trained on renders does on photographs.

``python -m experiments.surface_embedding.run --study a --out DIR [--quick] [--seed S]`` writes DIR/results.json:

a  the loss (plain, smoothed) and the dimension D of the embedding
b  the number M of eigenfunctions, and a free table
c  the share of annotated pixels
d  a new species: from scratch, pre-trained on another one, and with its embedding carried over (E' = T E)
e  one network for each species, one with a surface each, one that knows no categories
p  photographs (``GEOFRAME_DATA``): horses, and joints in videos, with the model that geoframe comes with
r  unseen renders, with the same model: all of them, and by what makes a picture hard
w  with the same model, the weight of the embedding beside raw features, on pairs of renders

All networks of a to e are frozen EfficientNet-Lite0 with a head of half a million weights. They see pictures of 64
pixels, and learn from maps of the backbone that are computed once. Rows of a to e are written as they come: a run that
was killed goes on with the next. ``--quick`` shrinks everything until it only runs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoframe._files import atomic_path
from geoframe.data.pixel_samples import PixelSamples, joined, rendered_samples
from geoframe.data.rendered import RenderedSet, render_set, template_surface
from geoframe.data.zoo_surfaces import zoo_correspondence
from geoframe.heads.backbone import backbone
from geoframe.models.surface_embedding import FROZEN, Predictor, Recipe, evaluate
from geoframe.models.surface_embedding.recipe import build, take_over, train_network

NINE = ("horse", "cow", "sheep", "dog", "cat", "bear", "lion", "giraffe", "elephant")
KEYS = ("geodesic_error_mean", "gps", "gps_misses_zero", "mask_iou", "mirrored")


@dataclass(frozen=True)
class Size:
    """How much is done: pictures, their pixels, steps, test pictures; the model of p, r and w, None for ours."""

    pictures: int = 1500
    pixels: int = 64
    steps: int = 1000
    test: int = 150
    model: str | None = None
    quick: bool = False

    @property
    def recipe(self) -> Recipe:
        """The recipe at this size."""
        losses = replace(FROZEN.losses, columns=320)
        batches = replace(FROZEN.batches, n_points=48)
        short = replace(FROZEN, losses=losses, batches=batches, image_size=self.pixels)
        return short.lasting(steps=self.steps)


FULL, QUICK = Size(), Size(pictures=64, steps=6, test=6, quick=True)


class Rows:
    """The rows of a study, written as they come, so that a run that was killed goes on with the next.

    Attributes:
        found: the measures by name of the row.
    """

    def __init__(self, study: str, results: dict[str, Any], file: Path) -> None:
        self.found: dict[str, dict[str, float]] = results.setdefault(study, {})
        self._results, self._file = results, file

    def add(self, name: str, measure: Callable[[], dict[str, float]]) -> None:
        """Measure a row, unless it is there."""
        if name not in self.found:
            self.found[name] = measure()
            save(self._results, self._file)


def save(results: Mapping[str, Any], file: Path) -> None:
    """Write all results, whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def begun(file: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run with the same settings has left, or the settings alone.

    Raises:
        ValueError: a file of other settings, whose rows would be lost.
    """
    if not file.is_file():
        return dict(about)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if (theirs := {k: found.get(k) for k in about}) != about:
        raise ValueError(
            f"--out: expected no results or those of {about}, found {file} of {theirs}; choose another"
        )
    return found


@cache
def pictures(category: str, size: Size, seed: int) -> PixelSamples:
    """Pictures of a species on its own surface, with the backbone's maps."""
    made = render_set(category, size.pictures, size=size.pixels, seed=seed)
    samples = rendered_samples(made, [category], [0], n_points=256, seed=seed)
    return samples.with_maps(backbone(FROZEN.backbone), skip=1)


@cache
def unseen(category: str, size: Size) -> RenderedSet:
    """Test pictures: other identities, poses, coats and backgrounds."""
    return render_set(category, size.test, size=size.pixels, seed=10_007)


def learned(
    recipe: Recipe,
    samples: PixelSamples,
    *,
    seed: int,
    start: Predictor | None = None,
    matches: Mapping[str, Tensor | None] | None = None,
) -> Predictor:
    """A predictor trained by a recipe."""
    surfaces = {name: template_surface(name) for name in samples.names}
    model = build(recipe, surfaces, seed=seed)
    if start is not None:
        take_over(model, start, matches or {})
    with tempfile.TemporaryDirectory() as out:
        train_network(model, samples, out=out, recipe=recipe, seed=seed, accelerator="cpu")
    return Predictor(model, recipe.image_size, recipe.losses.temperature)


def trained(recipe: Recipe, samples: PixelSamples, test: RenderedSet, **options: Any) -> dict[str, float]:
    """The measures of what `learned` makes."""
    return measured(learned(recipe, samples, **options), test)


def measured(predictor: Predictor, images: RenderedSet) -> dict[str, float]:
    """The measures that tables show."""
    found = evaluate(predictor, images)
    return {k: round(found[k], 4) for k in KEYS}


def study_a(size: Size, seed: int, rows: Rows) -> None:
    """Loss and dimension, horse."""
    samples, test = pictures("horse", size, seed), unseen("horse", size)
    for dim in (2, 4, 16, 64) if not size.quick else (2, 16):
        for target in ("plain", "squared"):
            recipe = replace(size.recipe, dim=dim, losses=replace(size.recipe.losses, target=target))
            rows.add(f"D={dim}, {target}", partial(trained, recipe, samples, test, seed=seed))


def study_b(size: Size, seed: int, rows: Rows) -> None:
    """Eigenfunctions, horse."""
    samples, test = pictures("horse", size, seed), unseen("horse", size)
    for functions in (32, 64, 128, 256, 1024, None) if not size.quick else (32, None):
        recipe = replace(size.recipe, functions=functions)
        name = "free table" if functions is None else f"M={functions}"
        rows.add(name, partial(trained, recipe, samples, test, seed=seed))


def study_c(size: Size, seed: int, rows: Rows) -> None:
    """Share of annotated pixels, horse: of the 256 pixels of each picture."""
    samples, test = pictures("horse", size, seed), unseen("horse", size)
    for percent in (1, 5, 10, 50, 100) if not size.quick else (1, 100):
        n = max(round(samples.points.shape[1] * percent / 100), 1)
        fewer = replace(samples, points=samples.points[:, :n], vertex=samples.vertex[:, :n])
        for target in ("plain", "squared"):
            recipe = replace(size.recipe, losses=replace(size.recipe.losses, target=target))
            rows.add(f"{percent} %, {target}", partial(trained, recipe, fewer, test, seed=seed))


def study_d(size: Size, seed: int, rows: Rows) -> None:
    """A new species, dog, after horses."""
    source = learned(size.recipe, pictures("horse", size, seed), seed=seed)
    dogs, test = pictures("dog", size, seed + 1), unseen("dog", size)
    to_dog = {"dog": zoo_correspondence("horse", "dog")}
    rows.add("no dog, aligned", lambda: measured(source, test))
    for n in (50, 500) if not size.quick else (16,):
        recipe = size.recipe.lasting(steps=max(size.steps * 3 // 10, 2))
        one = partial(trained, recipe, dogs[:n], test, seed=seed)
        rows.add(f"{n} dogs, scratch", one)
        rows.add(f"{n} dogs, pre-trained", partial(one, start=source, matches={"dog": None}))
        rows.add(f"{n} dogs, pre-trained and aligned", partial(one, start=source, matches=to_dog))


def study_e(size: Size, seed: int, rows: Rows) -> None:
    """Single class, multi-class, class-agnostic, over nine animals; a third of the pictures each."""
    names = NINE if not size.quick else NINE[:2]
    each = max(size.pictures // 3, 16)
    part = replace(size, pictures=each)
    for name in names:
        mine = pictures(name, part, seed)
        rows.add(f"single, {name}", partial(trained, size.recipe, mine, unseen(name, size), seed=seed))
    longer = size.recipe.lasting(steps=size.steps * len(names) // 3)
    for kind in ("multi-class", "class-agnostic"):
        if any(f"{kind}, {name}" not in rows.found for name in names):
            network = learned(longer, several_species(kind, names, part, seed), seed=seed)
            for name in names:
                rows.add(f"{kind}, {name}", partial(measured, network, unseen(name, size)))
    for kind in ("single", "multi-class", "class-agnostic"):
        several = [rows.found[f"{kind}, {n}"] for n in names]
        rows.add(f"{kind}, mean", partial(mean_of, several))


def several_species(kind: str, names: Sequence[str], part: Size, seed: int) -> PixelSamples:
    """Pictures of all species, each on its own surface ("multi-class") or all on that of the first."""
    if kind == "class-agnostic":
        return with_joined_maps([on_anchor(pictures(n, part, seed), names[0]) for n in names])
    several = [replace(pictures(n, part, seed), names=tuple(names)) for n in names]
    return with_joined_maps(
        [replace(s, surface=torch.full_like(s.surface, i)) for i, s in enumerate(several)]
    )


def mean_of(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure."""
    return {k: round(sum(m[k] for m in several) / len(several), 4) for k in KEYS}


def with_joined_maps(several: Sequence[PixelSamples]) -> PixelSamples:
    """Sets as one, with their maps."""
    maps = tuple(torch.cat(x) for x in zip(*(s.maps for s in several), strict=True))
    return replace(joined(several), maps=maps)


def on_anchor(samples: PixelSamples, anchor: str) -> PixelSamples:
    """Pictures of one species whose vertices are told on the surface of another."""
    name = samples.names[0]
    if name == anchor:
        return samples
    p2p = zoo_correspondence(anchor, name)  # for each vertex of the species one of the anchor
    vertex = torch.where(samples.vertex >= 0, p2p[samples.vertex.clamp_min(0)], -1)
    return replace(samples, vertex=vertex, names=(anchor,))


def study_p(size: Size, seed: int) -> dict[str, Any]:
    """Photographs."""
    from experiments.surface_embedding.photographs import horses, videos
    from geoframe.models.surface_embedding import load

    folder = os.environ.get("GEOFRAME_DATA")
    if not folder:
        raise SystemExit("study p: expected GEOFRAME_DATA, the folder with horses/ and video/, found none")
    predictor = load(size.model)
    found, _ = horses(predictor, Path(folder) / "horses", every=1 if not size.quick else 40)
    found.pop("rows")
    return {"horses": found, "videos": videos(predictor, Path(folder) / "video")}


def study_r(size: Size, seed: int) -> dict[str, Any]:
    """Unseen renders of horses."""
    from experiments.surface_embedding.renders import renders
    from geoframe.models.surface_embedding import load

    return renders(load(size.model), "horse", 100 if not size.quick else 4, seed=9001 + seed)


def study_w(size: Size, seed: int) -> dict[str, Any]:
    """The weight of the embedding beside raw features."""
    from experiments.surface_embedding.renders import weights
    from geoframe.models.surface_embedding import load

    return weights(load(size.model), 20 if not size.quick else 3, seed=777 + seed)


TRAINED = {"a": study_a, "b": study_b, "c": study_c, "d": study_d, "e": study_e}
MEASURED = {
    "p": study_p,
    "r": study_r,
    "w": study_w,
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the studies that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", nargs="+", choices=[*TRAINED, *MEASURED], default=["a"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pictures", type=int, default=FULL.pictures)
    parser.add_argument("--steps", type=int, default=FULL.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="of studies p, r and w; by default the shipped one")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else replace(FULL, pictures=options.pictures, steps=options.steps)
    size = replace(size, model=options.model)
    file = options.out / "results.json"
    results = begun(file, {"seed": options.seed, "size": vars(size)})
    for name in options.study:
        began = time.perf_counter()
        if name in TRAINED:
            TRAINED[name](size, options.seed, Rows(name, results, file))
        else:
            results[name] = MEASURED[name](size, options.seed)
        before = results.get(f"{name}_minutes", 0.0) if name in TRAINED else 0.0
        results[f"{name}_minutes"] = round(before + (time.perf_counter() - began) / 60, 2)
        save(results, file)
    return results


if __name__ == "__main__":
    main()
