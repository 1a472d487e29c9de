"""`geoframe match-images`: matches and flow between two images, or between the successive frames of a folder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoframe.cli._common import PartFailed, given, progress_bar, save_json, warn

if TYPE_CHECKING:
    from torch import Tensor


def match_images(
    first: Path,
    second: Path | None = None,
    /,
    *,
    out: Path,
    model: Path | None = None,
    embedding: Path | None = None,
    radius: int | None = None,
    downscale: int | None = None,
    truth: Path | None = None,
) -> None:
    """Match two images: matches.npz, flow.flo, matches.png, flow.png, metrics.json and report.html.

    points0 and points1 in matches.npz are x and y in pixels, the centre of the first pixel at 0.5. With a folder
    instead of two images every frame is matched to the next, into a folder of OUT each; frames that cannot be read are
    told and left out, and the exit status is 1 then.

    Args:
        first: image 0, or a folder of frames.
        second: image 1.
        out: folder for the files; made if need be, written only when all is done.
        model: folder that training wrote; by default the descriptors made by hand.
        embedding: match two pictures of one category, such as two animals, by surface embeddings instead of patches:
            a folder that `geoframe embed train` wrote, or the word animals for the model that geoframe comes with.
        radius: how far matches are searched, pixels each way.
        downscale: match at 1 / downscale of the size; by default as needed to stay within about a gigabyte.
        truth: flow file (.flo or KITTI's PNG) to judge by; adds endpoint errors to metrics.json.
    """
    from geoframe.data.image_files import list_images, read_image
    from geoframe.models.deep_matching import load
    from geoframe.models.deep_matching import match_images as by_patches

    options = given(radius=radius, downscale=downscale) | (
        {} if model is None else {"matcher": load(model).model}
    )
    if embedding is not None and options:
        raise ValueError("--embedding: expected without --model, --radius and --downscale, found it with one")
    match: Callable[..., Any] = by_patches if embedding is None else _by_embedding(embedding)
    if first.is_dir() != (second is None):
        what = "a folder and more" if second else "one image"
        raise ValueError(f"expected two images, or one folder of frames, found {what}")
    if second is not None:
        known = None if truth is None else _truth(truth)
        images = read_image(first), read_image(second)
        found = match(*images, **options)
        _write(out, images, found, (first.name, second.name), known)
        print(
            f"{len(found.points0):,} matches; wrote matches.npz, flow.flo, pictures and report.html to {out}"
        )
        return
    if truth is not None:
        raise ValueError("--truth: expected with two images only, found with a folder")
    frames = list_images(first)
    if len(frames) < 2:
        raise ValueError(f"{first}: expected at least two frames, found {len(frames)}")
    bad = _each(frames, out, match, options)
    print(f"{len(frames) - 1 - bad} of {len(frames) - 1} pairs matched; wrote a folder each to {out}")
    if bad:
        raise PartFailed(f"{bad} of {len(frames) - 1} pairs were left out, see above")


def _each(frames: list[Path], out: Path, match: Any, options: dict[str, Any]) -> int:
    """Match every frame to the next; returns how many pairs failed."""
    from geoframe.data.image_files import read_image

    bad = 0
    with progress_bar(f"{len(frames) - 1} pairs") as progress:
        for i, (a, b) in enumerate(pairwise(frames)):
            try:
                images = read_image(a), read_image(b)
                _write(out / a.stem, images, match(*images, **options), (a.name, b.name), None)
            except ValueError as err:
                bad += 1
                warn(f"{a.name} to {b.name}: {err}")
            progress(a.name, (i + 1) / (len(frames) - 1))
    if bad == len(frames) - 1:
        raise ValueError("expected at least one pair that can be matched, found none; see above")
    return bad


def _by_embedding(folder: Path) -> Callable[[Tensor, Tensor], Any]:
    """A function that matches two images by surface embeddings, with the warnings of their maps."""
    from geoframe.models.deep_matching import match_pixel_maps
    from geoframe.models.surface_embedding import load

    predictor = load(folder)

    def match(image0: Tensor, image1: Tensor) -> Any:
        maps = predictor.predict([image0, image1])
        for number, found in enumerate(maps):
            for line in predictor.verdict(found).warnings:
                warn(f"image {number}: {line}")
        return match_pixel_maps(image0, image1, *maps)

    return match


def _truth(path: Path) -> Tensor:
    from geoframe.data.flow_files import read_flow

    return read_flow(path)


def _write(out: Path, images: Any, found: Any, names: tuple[str, str], truth: Any) -> None:
    from geoframe._files import staged_folder
    from geoframe.data.flow_files import write_flow
    from geoframe.metrics.flow import flow_measures
    from geoframe.viz.flow import draw_image_matches, flow_colors, write_flow_page
    from geoframe.viz.surfaces import save_picture

    measures: dict[str, Any] = {
        "matches": len(found.points0),
        "mean_score": float(found.score.mean()) if len(found.score) else None,
        "mean_confidence": found.mean_confidence,
        "warning": found.warning,
    }
    if found.warning:
        warn(f"{names[0]} to {names[1]}: {found.warning}")
    if truth is not None:
        measures |= flow_measures(found.flow, truth)
    with staged_folder(out) as folder:
        found.save(folder / "matches.npz")
        write_flow(folder / "flow.flo", found.flow)
        save_picture(draw_image_matches(images[0], images[1], found), folder / "matches.png")
        save_picture(flow_colors(found.flow), folder / "flow.png")
        save_json(measures, folder / "metrics.json")
        write_flow_page(folder / "report.html", images[0], images[1], found, names=names, measures=measures)
