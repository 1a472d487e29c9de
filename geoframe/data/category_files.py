"""Two layouts of single-category data: CUB-200-2011 and PASCAL3D+ as the preprocessed .mat files of CMR, CSM and TTP.

    CUB        ROOT/cachedir/cub/data/{train,val,test}_cub_cleaned.mat,  ROOT/CUB_200_2011/images
    PASCAL3D+  ROOT/cachedir/p3d/data/CLASS_{train,val}.mat, CLASS_kps.mat,  ROOT/PASCAL3D+_release1.1/Images

The folder may be ROOT, or that of the .mat files with the images in images/ beside or in it. Pixel coordinates in the
files are counted from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._types import Array
from geoframe.data.image_files import read_image
from geoframe.data.object_crops import ObjectCrops, crop_object, crops_of

CUB_PARTS = (
    *("back", "beak", "belly", "breast", "crown", "forehead", "left_eye", "left_leg", "left_wing"),
    *("nape", "right_eye", "right_leg", "right_wing", "tail", "throat"),
)
_CUB_IMAGES = ("CUB_200_2011/images", "images")
_P3D_IMAGES = ("PASCAL3D+_release1.1/Images", "Images", "images")


def cub_crops(
    folder: str | Path,
    part: str = "train",
    *,
    size: int = 64,
    on_bad_file: Callable[[str], None] | None = None,
) -> ObjectCrops:
    """Birds of CUB with masks and 15 keypoints, `CUB_PARTS`.

    Args:
        folder: see above.
        part: train, val, test or testval.
        size: pixels of the crops.
        on_bad_file: called with a line about each image that cannot be used, which is left out.

    Raises:
        ValueError: files that are missing or hold something else, no image that can be used.
    """
    folder = Path(folder)
    table = _found(folder, ("cachedir/cub/data", "data", ""), f"{part}_cub_cleaned.mat")
    return _crops(table, _images(folder, table, _CUB_IMAGES), CUB_PARTS, size, on_bad_file)


def pascal3d_crops(
    folder: str | Path,
    category: str,
    part: str = "train",
    *,
    size: int = 64,
    on_bad_file: Callable[[str], None] | None = None,
) -> ObjectCrops:
    """One class of PASCAL3D+ with masks and its keypoints.

    Args:
        folder: see above.
        category: such as car, aeroplane, motorbike.
        part: train or val.
        size: pixels of the crops.
        on_bad_file: as in `cub_crops`.

    Raises:
        ValueError: as `cub_crops`.
    """
    folder = Path(folder)
    rooms = ("cachedir/p3d/data", "data", "")
    table = _found(folder, rooms, f"{category}_{part}.mat")
    marks = _read(_found(folder, rooms, f"{category}_kps.mat"))
    if "kp_names" not in marks:
        raise ValueError(f"{category}_kps.mat: expected kp_names, found {', '.join(sorted(marks))[:80]}")
    names = tuple(str(np.atleast_1d(n)[0]) for n in np.atleast_1d(marks["kp_names"]).ravel())
    return _crops(table, _images(folder, table, _P3D_IMAGES), names, size, on_bad_file)


def _found(folder: Path, rooms: Sequence[str], name: str) -> Path:
    for room in rooms:
        if (folder / room / name).is_file():
            return folder / room / name
    raise ValueError(f"{folder}: expected {name} in it or in {rooms[0]}, found none")


def _images(folder: Path, table: Path, rooms: Sequence[str]) -> Path:
    """The folder of images, in the given folder or any above the .mat file up to it."""
    above = [folder, table.parent, *list(table.parent.parents)[:3]]
    for root in above:
        for room in rooms:
            if (root / room).is_dir():
                return root / room
    raise ValueError(f"{folder}: expected the images in {rooms[0]}, found no such folder")


def _read(path: Path) -> dict[str, Any]:
    """A .mat file of MATLAB up to version 7.2; nothing in it is run."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found: dict[str, Any] = loadmat(path, struct_as_record=False, squeeze_me=True)
    except (ValueError, OSError, TypeError, NotImplementedError, MatReadError) as err:
        raise ValueError(f"{path}: expected a .mat file, found something else ({str(err)[:80]})") from err
    return found


def _crops(
    table: Path,
    images: Path,
    names: Sequence[str],
    size: int,
    on_bad_file: Callable[[str], None] | None,
) -> ObjectCrops:
    """The objects of a .mat file."""
    content = _read(table)
    if "images" not in content:
        raise ValueError(f"{table}: expected images, found {', '.join(sorted(content))[:80]}")
    rows = []
    for entry in np.atleast_1d(content["images"]):
        try:
            rows.append(_row(entry, images, names, size))
        except (ValueError, AttributeError) as err:
            name = getattr(entry, "rel_path", "an image")
            if on_bad_file is not None:
                on_bad_file(str(err) if str(name) in str(err) else f"{name}: {err}")
    if not rows:
        raise ValueError(f"{table}: expected at least one object that can be used, found none")
    return crops_of(rows, names)


def _row(entry: Any, images: Path, names: Sequence[str], size: int) -> tuple[Any, ...]:
    file = images / str(entry.rel_path)
    picture = read_image(file)
    mask = torch.from_numpy(np.asarray(entry.mask) > 0)
    if mask.shape != picture.shape[-2:]:
        raise ValueError(f"{file}: expected a mask of {tuple(picture.shape[-2:])}, found {tuple(mask.shape)}")
    if not bool(mask.any()):
        raise ValueError(f"{file}: expected some foreground in the mask, found none")
    b = entry.bbox
    box = torch.tensor([b.x1 - 1, b.y1 - 1, b.x2, b.y2], dtype=torch.float32)
    image, small, crop = crop_object(picture, mask, size, box=box)
    points, visible = _parts(np.asarray(entry.parts, np.float64), len(names), str(file))
    return image, small, crop.to_crop(points), visible, crop, Path(str(entry.rel_path)).name


def _parts(parts: Array, n: int, where: str) -> tuple[Tensor, Tensor]:
    """Keypoints (n, 2), NaN where unknown, and which are seen, of a table (3, n) or (n, 3)."""
    if parts.shape == (n, 3) and n != 3:
        parts = parts.T
    if parts.shape != (3, n):
        raise ValueError(f"{where}: expected parts (3, {n}), found {parts.shape}")
    visible = torch.from_numpy(parts[2] > 0)
    points = torch.from_numpy(
        parts[:2].T - 0.5
    ).float()  # counted from 1, and ours are 0.5 in the first pixel
    return torch.where(visible[:, None], points, torch.nan), visible
