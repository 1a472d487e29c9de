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
    shown: frozenset[Path]


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
        show: of how many images the page's part is given back.
        jobs: see `predict`.
    """
    from geoframe._check import check_int
    from geoframe.models.to_the_point import load

    check_int(views, "views", low=0)
    jobs = min(check_int(jobs, "jobs", low=1), -(-len(files) // _CHUNK))
    predictor = load(model)  # what is wrong with it is told before any process is started
    work = _Work(folder, masks, boxes or {}, views, frozenset(files[:show]))
    if jobs == 1:
        return (_one(file, predictor, work) for file in files)
    import joblib

    chunks = [files[i : i + _CHUNK] for i in range(0, len(files), _CHUNK)]
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        found = joblib.Parallel(jobs, return_as="generator")(
            joblib.delayed(_some)(x, model, work) for x in chunks
        )
    return chain.from_iterable(found)


def _some(files: Sequence[Path], model: Path, work: _Work) -> list[Done]:
    """A chunk, in a process of its own."""
    from geoframe.models.to_the_point import load

    predictor = load(model)
    return [_one(file, predictor, work) for file in files]


def _one(file: Path, predictor: Predictor, work: _Work) -> Done:
    from geoframe.data.image_files import read_image

    try:
        image = read_image(file)
        mask = None if work.masks is None else _mask_of(work.masks, file, image)
        found = predictor.predict(image, mask=mask, box=work.boxes.get(file.name))
    except ValueError as err:
        return Done(None, None, str(err) if str(file) in str(err) else f"{file}: {err}")
    row = _write(work.folder, file, image, found, work.views)
    return Done(row, (image, found, file.name) if file in work.shown else None, None)


def _mask_of(folder: Path, file: Path, image: Tensor) -> Tensor:
    """The mask of an image from a folder of masks."""
    from geoframe.data.image_files import read_mask

    path = folder / f"{file.stem}.png"
    mask = read_mask(path)
    if mask.shape != image.shape[-2:]:
        raise ValueError(f"{path}: expected a mask of {tuple(image.shape[-2:])}, found {tuple(mask.shape)}")
    return mask


def told_once(rows: list[dict[str, Any]]) -> list[str]:
    """The warnings of images; what is true of each of several is told once."""
    every = set.intersection(*(set(row["warnings"]) for row in rows)) if len(rows) > 1 else set()
    each = [f"{row['image']}: {x}" for row in rows for x in row["warnings"] if x not in every]
    return [*sorted(every), *each]


def _write(folder: Path, file: Path, image: Tensor, found: Reconstruction, views: int) -> dict[str, Any]:
    """All files of one image, and its row of predictions.json."""
    from geoframe.viz.images import contact_sheet
    from geoframe.viz.reconstruction_page import draw_on_image, draw_turntable, save_textured, save_turntable
    from geoframe.viz.surfaces import save_picture, sheet

    stem = file.stem
    save_textured(image, found, folder / f"{stem}.obj")
    found.pixels.save(folder / f"{stem}.npz")
    parts = [contact_sheet([image, draw_on_image(image, found)], columns=2, size=240)]
    if views:
        parts.append(draw_turntable(found, n=views))
        save_turntable(parts[1], folder / f"{stem}.gif")
    save_picture(sheet(parts, columns=1), folder / f"{stem}.png")
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
