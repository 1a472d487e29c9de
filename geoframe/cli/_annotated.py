"""Annotated images for `geoframe embed train`: read, cut out, a part set aside to compare start and model on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from geoframe.cli._common import counted, warn

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.canonical.surface import Surface
    from geoframe.data.image_files import ImageSet
    from geoframe.data.pixel_samples import PixelSamples
    from geoframe.models.surface_embedding import Predictor

_EVERY, _FEWEST = 5, 10  # every so many-th image is set aside, where there are at least so many


def annotated(
    data: Path,
    surface: Path | None,
    name: str | None,
    folder: Path | None,
    divisor: int,
    n: int,
    size: int,
    seed: int,
) -> tuple[PixelSamples, dict[str, Surface], ImageSet | None]:
    """Annotated images, each in several crops, their surface, and those that are set aside, if there are ten and more.

    All objects of an image go the same way.
    """
    from dataclasses import replace

    from geoframe.canonical import load_surface
    from geoframe.data.pixel_samples import image_samples

    if surface is None:
        raise ValueError("--surface: expected the surface that the data's points refer to, found none")
    mesh = load_surface(surface)
    called = name or surface.stem
    images = read_images(data, mesh, called, folder, divisor)
    names = list(dict.fromkeys(item.name for item in images))
    aside = set(names[_EVERY - 1 :: _EVERY]) if len(names) >= _FEWEST else set()
    held = replace(images, items=[item for item in images if item.name in aside and len(item.vertex)])
    images = replace(images, items=[item for item in images if item.name not in aside])
    copies = max(round(n / max(len(images), 1)), 1)
    samples = image_samples(images, [called], size=size, copies=min(copies, 50), seed=seed)
    return samples, {called: mesh}, held if len(held) else None


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
        return read_coco(data, folder, {name: surface}, divisor=divisor)
    return read_points(data, surface, name=name)


def read_match(path: Path, first: Predictor, matched: str | None, surface: Surface) -> Tensor:
    """p2p_21 of map.npz, onto the first surface of the model."""
    import zipfile

    import numpy as np
    import torch

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
    return p2p_21


def told_of_held(
    predictor: Predictor,
    first: Predictor | None,
    matches: Mapping[str, Tensor],
    matched: str | None,
    held: ImageSet,
) -> str:
    """A line on what model and start say of images that were set aside; a warning where the start says more.

    Args:
        predictor: the model.
        first: that it went on from.
        matches: by name of the surface, see `train`.
        matched: name of the surface of `first` that the matches belong to.
        held: the images.
    """
    from geoframe.models.surface_embedding import evaluate

    name = next(iter(held.surfaces))
    now = evaluate(predictor, held)["gps"]
    line = f"GPS {100 * now:.1f} on {counted(len(held), 'object')} of images set aside"
    if first is not None and name in matches:
        first = first.with_surface(name, held.surfaces[name], matches[name], matched)
    if first is None or name not in first.names:
        return line
    before = evaluate(first, held)["gps"]
    if before > now:
        warn(
            f"the start says more of the images set aside than the model (GPS {100 * before:.1f} and {100 * now:.1f}): "
            "annotate more images, or use the start with the map alone (Predictor.with_surface)"
        )
    return f"{line}, {100 * before:.1f} before the training"
