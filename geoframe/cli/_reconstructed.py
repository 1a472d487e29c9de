"""What `geoframe reconstruct predict` does with each image, one after another or several at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from geoframe.cli._common import save_json

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.models.to_the_point import Predictor, Reconstruction

_CHUNK = 32  # images that a process is given at a time; it reads the model for each


class Done(NamedTuple):
    """What is told of an image, what the page shows of it, and what is wrong with its file."""

    row: dict[str, Any] | None
    shown: tuple[Tensor, Reconstruction, str] | None
    failed: str | None


class _Work(NamedTuple):
    """How images become files."""

    folder: Path
    masks: Path | None
    boxes: Mapping[str, Any]
    views: int
    show: int


def reconstructed(
    files: Sequence[Path],
    model: Path,
    folder: Path,
    *,
    masks: Path | None = None,
    boxes: Mapping[str, Any] | None = None,
    views: int = 8,
    show: int = 0,
    jobs: int = 1,
) -> Iterator[Done]:
    """Write the files of each image; in the images' order.

    Args:
        files: images of different names.
        model: folder that `geoframe reconstruct train` wrote.
        folder: for the results.
        masks: see `geoframe.cli.reconstruct.predict`.
        boxes: of some images, by name.
        views: see `predict`.
        show: of how many images at least the page's part is given back, where there are so many.
        jobs: see `predict`.
    """
    from geoframe._check import check_int
    from geoframe.models.to_the_point import load

    check_int(views, "views", low=0)
    check_int(show, "show", low=0)
    jobs = min(check_int(jobs, "jobs", low=1), len(files))
    predictor = load(model)  # what is wrong with it is told before any process is started
    work = _Work(folder, masks, boxes or {}, views, show)
    if jobs == 1:
        return _some(files, predictor, work)
    import joblib

    each = min(_CHUNK, -(-len(files) // jobs))
    chunks = [files[i : i + each] for i in range(0, len(files), each)]
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        found = joblib.Parallel(jobs, return_as="generator")(
            joblib.delayed(_chunk)(x, model, work) for x in chunks
        )
    return chain.from_iterable(found)


def _chunk(files: Sequence[Path], model: Path, work: _Work) -> list[Done]:
    """Some images, in a process of its own."""
    from geoframe.models.to_the_point import load

    return list(_some(files, load(model), work))


def _some(files: Sequence[Path], predictor: Predictor, work: _Work) -> Iterator[Done]:
    """One image after another; the page's part of the first of them."""
    from geoframe.data.image_files import read_image

    shown = 0
    for file in files:
        try:
            image = read_image(file)
            mask = None if work.masks is None else _mask_of(work.masks, file, image)
            found = predictor.predict(image, mask=mask, box=work.boxes.get(file.name))
        except ValueError as err:
            yield Done(None, None, str(err) if str(file) in str(err) else f"{file}: {err}")
            continue
        row = _write(work.folder, file, image, found, work.views)
        yield Done(row, (image, found, file.name) if shown < work.show else None, None)
        shown += 1


def _mask_of(folder: Path, file: Path, image: Tensor) -> Tensor:
    """The mask of an image from a folder of masks."""
    from geoframe.data.image_files import read_mask

    path = folder / f"{file.stem}.png"
    mask = read_mask(path)
    if mask.shape != image.shape[-2:]:
        raise ValueError(f"{path}: expected a mask of {tuple(image.shape[-2:])}, found {tuple(mask.shape)}")
    return mask


def told_once(rows: list[dict[str, Any]]) -> list[str]:
    """The warnings of images; what is true of a model, and so of each of several, is told once."""
    from geoframe.models.to_the_point.evaluate import UNCALIBRATED

    once = {UNCALIBRATED} if len(rows) > 1 else set()
    each = [f"{row['image']}: {x}" for row in rows for x in row["warnings"] if x not in once]
    return [*(x for x in once if any(x in row["warnings"] for row in rows)), *each]


def _write(folder: Path, file: Path, image: Tensor, found: Reconstruction, views: int) -> dict[str, Any]:
    """All files of one image, and its row of predictions.json."""
    import numpy as np

    from geoframe.viz.images import contact_sheet
    from geoframe.viz.reconstruction_page import draw_on_image, draw_turntable, save_textured, save_turntable
    from geoframe.viz.surfaces import save_picture

    stem = file.stem
    save_textured(image, found, folder / f"{stem}.obj")
    found.pixels.save(folder / f"{stem}.npz")
    pictures: list[Any] = [image, draw_on_image(image, found)]
    if views:
        strip = draw_turntable(found, n=views)
        save_turntable(strip, folder / f"{stem}.gif")
        pictures += np.split(strip, views, 1)
    columns = 2 if len(pictures) < 5 else -(-len(pictures) // 2)
    save_picture(contact_sheet(pictures, columns=columns, size=200), folder / f"{stem}.png")
    row = {
        "image": file.name,
        "rotation": found.rotation.tolist(),
        "translation": found.translation.tolist(),
        "scale": found.scale,
        "confidence": found.confidence,
        "warnings": list(found.warnings),
    }
    save_json(row | {"placed": found.placed.tolist(), "seen": found.seen.tolist()}, folder / f"{stem}.json")
    return row
