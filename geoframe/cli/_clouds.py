"""What the keypoint commands share: reading clouds, their vertical axis, keypoints of those that have any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoframe.cli._common import warn

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.data import CloudSet
    from geoframe.models.category_keypoints import Prediction, Predictor

AXES = ("x", "y", "z")
_OF_SEVERAL = (".npz", ".hdf5")


def read_clouds(
    data: Sequence[str],
    category: str | None,
    split: str | None,
    up: str | None,
    points: int | None,
    predictor: Predictor,
    *,
    bad: list[str],
    surfaces: bool = False,
) -> CloudSet:
    """The clouds of a data set, or those of files; without a split those of the test, or all if it has none.

    Lines about what cannot be read are added to `bad`. Without `up` or a layout that decides it, the vertical axis of
    several clouds is that along which they make sense, or the model's.
    """
    from geoframe.data import CloudSet, has_splits, known_up, load_clouds
    from geoframe.data.cloud_files import PREDICTED

    _check_alone(data)
    files, whole, category = [Path(x) for x in data], data[0], category or predictor.category
    n = predictor.about["points"] if points is None else points
    single = len(files) > 1 or (files[0].is_file() and files[0].suffix.lower() not in _OF_SEVERAL)
    told = up or (None if single else known_up(whole, category))
    theirs = told or AXES[predictor.up]
    if single:
        files = [f for f in files if len(files) == 1 or not f.name.endswith(PREDICTED)] or files
        read, points_of = _read_files(files, n, bad)
        names = [f.stem for f in read]
        if len(set(names)) < len(names):
            names = [f"{i:04d}_{name}" for i, name in enumerate(names)]
        clouds = CloudSet(points_of, tuple(names), AXES.index(theirs))
    else:
        if split is None:
            split = "test" if has_splits(whole, category) else "all"
        clouds = load_clouds(
            whole, category, split=split, n_points=n, up=theirs, surfaces=surfaces, on_bad_file=bad.append
        )
    return clouds if told else _standing_together(predictor, clouds)


def _check_alone(data: Sequence[str]) -> None:
    """Several arguments are to be files of one cloud each."""
    for x in data if len(data) > 1 else ():
        if Path(x).is_dir() or Path(x).suffix.lower() in _OF_SEVERAL:
            raise ValueError(f"{x}: expected files of one cloud each, found one of several; give it alone")


def _standing_together(predictor: Predictor, clouds: CloudSet) -> CloudSet:
    """Clouds with the vertical axis along which they make sense together, which is told if it is not the model's.

    A single cloud is left as it is, as `Predictor.predict` looks at it on other sides if it makes no sense; where it
    makes some, but more along another axis, that is told.
    """
    from dataclasses import replace

    def found(points: Tensor) -> tuple[str, dict[str, float]] | None:
        try:
            return predictor.common_up(points)
        except ValueError:  # what cannot be used is told of later
            return None

    told = found(clouds.points)
    if told is None:
        usable = [i for i, x in enumerate(clouds.points) if found(x) is not None]
        told = found(clouds.points[usable]) if len(usable) > 1 else None
    own = AXES[clouds.up]
    up, scores = told or (own, {})
    means = ", ".join(f"{s:.2f} along {axis}" for axis, s in scores.items())
    if up != own and len(clouds) > 1:
        warn(f"the clouds are taken to stand along {up} (mean score {means}); give --up if that is wrong")
        return replace(clouds, up=AXES.index(up))
    if scores and max(scores.values()) > scores[own] >= predictor.limit:
        warn(
            f"it is not clear which axis is up, {own} is taken (mean score {means}); give --up if that is wrong"
        )
    return clouds


def predict_each(predictor: Predictor, clouds: CloudSet, bad: list[str]) -> tuple[CloudSet, Prediction]:
    """The clouds that have keypoints, and what was found of those; lines about the others go to `bad`.

    Raises:
        ValueError: none has any.
    """
    up = AXES[clouds.up]
    try:
        return clouds, predictor.predict(clouds.points, up=up)
    except ValueError:  # which of them it was, one by one
        good, lines = [], []
        for i, name in enumerate(clouds.names):
            try:
                predictor.predict(clouds.points[i], up=up, any_up=False)
                good.append(i)
            except ValueError as err:
                lines.append(f"{name}: {err}")
        if not good:
            raise
    bad += lines
    left = clouds.only(good)
    return left, predictor.predict(left.points, up=up)


def read_each(path: Path, n: int, bad: list[str]) -> tuple[tuple[str, ...], Tensor]:
    """Paths of the files of a folder, or of the one file, and their clouds (., n, 3); others are told in `bad`."""
    from geoframe.data import list_cloud_files

    files = list_cloud_files(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: expected a folder of mesh or cloud files, found none in it")
    try:
        read, clouds = _read_files(files, n, bad)
    except ValueError as err:
        if not path.is_dir():
            raise
        raise ValueError(
            f"{path}: expected a folder of mesh or cloud files, found none usable: {err}"
        ) from err
    return tuple(str(f) for f in read), clouds


def _read_files(files: Sequence[Path], n: int, bad: list[str]) -> tuple[list[Path], Tensor]:
    """Files that can be read and their clouds (., n, 3); others are told in `bad`.

    Raises:
        ValueError: the line of the first, if none can be read.
    """
    import torch

    from geoframe.data import load_cloud

    read, clouds, lines = [], [], []
    for file in files:
        try:
            clouds.append(load_cloud(file, n_points=n))
            read.append(file)
        except (ValueError, OSError) as err:
            lines.append(str(err))
    if not read:
        raise ValueError(lines[0])
    bad += lines
    return read, torch.stack(clouds)
