"""Annotated images for `geoframe embed train`: read, cut out, a part set aside to compare start and model on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from geoframe.cli._common import about, counted, warn

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.canonical.surface import Surface
    from geoframe.data.image_files import ImageSet
    from geoframe.data.pixel_samples import PixelSamples
    from geoframe.models.surface_embedding import Predictor

_EVERY = 5  # of so many images one is set aside
_FEWEST, _MOST = 10, 50  # images with points, below which none is; so many at most are


def annotated(
    data: Path,
    surface: Path | None,
    name: str | None,
    folder: Path | None,
    divisor: int,
    n: int,
    size: int,
    seed: int,
    aside: bool,
) -> tuple[PixelSamples, dict[str, Surface], ImageSet | None, PixelSamples]:
    """Annotated images in several crops each, their surface, the images set aside, if any are, and a crop of each."""
    from geoframe.canonical import load_surface
    from geoframe.data.pixel_samples import crop_box, image_samples

    if surface is None:
        raise ValueError("--surface: expected the surface that the data's points refer to, found none")
    mesh = load_surface(surface)
    called = name or surface.stem
    images = read_images(data, mesh, called, folder, divisor)
    parts = _parted(images) if aside else (images, None)
    if parts[1] is not None:
        held = image_samples(parts[1], [called], size=size, seed=seed)
        for item in parts[1]:
            with about(Path(item.name)):  # told now, not after hours of training
                H, W = item.read().shape[-2:]
                crop_box(item.box, (H, W))
    copies = max(round(n / max(len(parts[0]), 1)), 1)
    samples = image_samples(parts[0], [called], size=size, copies=min(copies, 50), seed=seed)
    return samples, {called: mesh}, parts[1], samples[:0] if parts[1] is None else held


def _parted(images: ImageSet) -> tuple[ImageSet, ImageSet | None]:
    """What is learned from, and every fifth image with points, fifty at most; None of fewer than ten.

    All objects of an image go the same way.
    """
    from dataclasses import replace

    files = list(dict.fromkeys(str(item.image) for item in images if len(item.vertex)))
    if len(files) < _FEWEST:
        return images, None
    there = set(files[_EVERY - 1 :: _EVERY][:_MOST])
    held = [item for item in images if str(item.image) in there and len(item.vertex)]
    mine = [item for item in images if str(item.image) not in there]
    return replace(images, items=mine), replace(images, items=held)


def read_images(data: Path, surface: Surface, name: str, images: Path | None, divisor: int) -> ImageSet:
    """The objects of a JSON file of either kind."""
    import json

    from geoframe._files import read_text
    from geoframe.data.coco_files import read_coco
    from geoframe.data.image_files import read_points

    try:
        content = json.loads(read_text(data))
    except json.JSONDecodeError as err:
        raise ValueError(f"{data}: not valid JSON ({str(err)[:80]})") from err
    if isinstance(content, Mapping) and "annotations" in content:
        folder = data.parent if images is None else images
        if images is None and (data.parent / "images").is_dir():  # as geoframe render writes them
            listed = [str(x.get("file_name")) for x in content.get("images", []) if isinstance(x, Mapping)]
            folder = folder if any((folder / x).is_file() for x in listed[:1]) else data.parent / "images"
        return read_coco(data, folder, {name: surface}, divisor=divisor)
    return read_points(data, surface, name=name)


def read_match(
    path: Path, first: Predictor | None, matched: str | None, surfaces: Mapping[str, Surface]
) -> dict[str, Tensor]:
    """p2p_21 of map.npz from a surface of the model to the first of `surfaces`, by the name of that."""
    import zipfile

    import numpy as np
    import torch

    if first is None:
        raise ValueError("--match: expected --start, whose surface the map belongs to, found none")
    name, surface = next(iter(surfaces.items()))
    try:
        with np.load(path) as file:
            p2p_21 = torch.from_numpy(file["p2p_21"]).long()
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise ValueError(f"{path}: expected map.npz of geoframe match, found {str(err)[:80]}") from err
    source = first.target(matched).surface
    if len(p2p_21) != surface.n_verts or int(p2p_21.max()) >= source.n_verts:
        raise ValueError(
            f"{path}: expected a map from the {source.n_verts} vertices of {matched or first.names[0]} to the "
            f"{surface.n_verts} of the surface, found one to {len(p2p_21)}; run geoframe match SOURCE SURFACE"
        )
    return {name: p2p_21}


def compared(
    predictor: Predictor,
    first: Predictor | None,
    matches: Mapping[str, Tensor],
    matched: str | None,
    held: ImageSet,
    progress: Callable[[str, float], None] | None = None,
) -> str:
    """A line on the GPS of a model on images that were set aside, and of its start, if that knows the surface.

    Args:
        predictor: the model.
        first: that it went on from.
        matches: by name of the surface, see `train`.
        matched: name of the surface of `first` that the matches belong to.
        held: the images.
        progress: called with (text, share done).
    """
    from geoframe.metrics.embeddings import mean_scores
    from geoframe.models.surface_embedding.evaluate import evaluate_each

    def measured(model: Predictor) -> float:
        return mean_scores(list(evaluate_each(model, held, progress=progress).values()))["gps"]

    name, surface = next(iter(held.surfaces.items()))
    now = measured(predictor)
    if first is not None and name in matches:
        first = first.with_surface(name, surface, matches[name], matched)
    try:
        known = first is not None and first.target(name).surface.n_verts == surface.n_verts
    except ValueError:  # an unknown name
        known = False
    before = measured(first) if first is not None and known else None
    return "\n" + told(now, before, len(held))


def told(now: float, before: float | None, n: int) -> str:
    """A line on what `compared` found on n objects; a warning where the start is better.

    Args:
        now: GPS of the model.
        before: of its start, or None.
        n: objects.
    """
    if before is not None and before > now:
        warn(
            f"on {counted(n, 'object')} set aside the start is better than the trained model (GPS {100 * before:.1f} "
            f"and {100 * now:.1f}): annotate more images, or use the start with the map alone "
            "(in Python, Predictor.with_surface)"
        )
    line = f"GPS {100 * now:.1f} on {counted(n, 'object')} of images set aside"
    return line if before is None else f"{line}, {100 * before:.1f} before the training"
