"""Crops of one object each with what reconstruction learns from: masks, keypoints, and of renders the truth.

Images are cut around the mask's box, as all systems of this kind do. The whole set is in memory: a crop of 64 pixels
takes 20 kB.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe._files import atomic_path, read_text
from geoframe.camera import Pinhole
from geoframe.data.crops import Crop
from geoframe.data.image_files import box_of_mask, list_images, read_image, read_mask
from geoframe.data.object_templates import ObjectTemplate
from geoframe.data.rendered import RenderedSet
from geoframe.data.rendered_files import RenderedFolder
from geoframe.render import rasterize

_log = logging.getLogger(__name__)
PADDING = 0.1  # of the box's longer side, on each side
LEAST_SEEN = 0.9  # share of an object's outline that has to be in the picture and not hidden
_LEAST_SIDE = 16  # pixels of the box in the picture


@dataclass(frozen=True, eq=False)
class ObjectCrops:
    """n crops of S x S pixels.

    Attributes:
        image: (n, 3, S, S) uint8.
        mask: (n, S, S) bool.
        points: (n, L, 2) float32 pixels of the crop; NaN where a keypoint is not known.
        visible: (n, L) bool, whether a keypoint is known and seen.
        names: of the L keypoints.
        crops: where each was cut.
        files: of each, names of the images; empty ones for pictures that were in no file.
        screen: (n, V, 2) float32 where the template's vertices truly are, of renders; None where it is not known.
        truth: (n, V, 3) float32 the vertices in the axes of a camera that looks straight at the object, their mean
            at 0; None where it is not known.

    Raises:
        ValueError: shapes that do not fit.
    """

    image: Tensor
    mask: Tensor
    points: Tensor
    visible: Tensor
    names: tuple[str, ...]
    crops: tuple[Crop, ...]
    files: tuple[str, ...]
    screen: Tensor | None = None
    truth: Tensor | None = None

    def __post_init__(self) -> None:
        sizes = check_shape(self.image, "N 3 S S", "image")
        n, s = sizes["N"], sizes["S"]
        check_shape(self.mask, f"{n} {s} {s}", "mask")
        check_shape(self.points, f"{n} {len(self.names)} 2", "points")
        check_shape(self.visible, f"{n} {len(self.names)}", "visible")
        if not len(self.crops) == len(self.files) == n:
            raise ValueError(f"crops, files: expected {n}, found {len(self.crops)} and {len(self.files)}")

    def __len__(self) -> int:
        return len(self.image)

    @property
    def size(self) -> int:
        """S."""
        return int(self.image.shape[-1])

    def __getitem__(self, index: Sequence[int] | Tensor) -> ObjectCrops:
        """Some of them."""
        rows = torch.as_tensor(index, dtype=torch.int64)
        tensors = {
            name: x[rows]
            for name in ("image", "mask", "points", "visible", "screen", "truth")
            if (x := getattr(self, name)) is not None
        }
        crops = tuple(self.crops[i] for i in rows.tolist())
        return replace(self, **tensors, crops=crops, files=tuple(self.files[i] for i in rows.tolist()))

    def without_keypoints(self) -> ObjectCrops:
        """The same crops, of which no keypoint is known."""
        hidden = torch.zeros_like(self.visible)
        return replace(self, points=torch.full_like(self.points, torch.nan), visible=hidden)

    def batches(self, size: int, *, seed: int, rank: int = 0, world: int = 1) -> Iterator[dict[str, Tensor]]:
        """An epoch of ``{"row": (size / world,) int64}`` in an order by chance; what is left over is not used.

        Args:
            size: crops a batch, of all processes together.
            seed: of the order.
            rank: of this process.
            world: number of processes.
        """
        check_int(size, "size", low=1)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        size = min(size, len(order))
        share = max(size // world, 1)
        for first in range(0, len(order) - size + 1, size):
            yield {"row": order[first + rank * share : first + (rank + 1) * share]}

    def save(self, path: str | Path) -> None:
        """Write all into one .npz file."""
        boxes = np.array([c.box for c in self.crops], np.int64).reshape(-1, 4)
        arrays = {
            "image": self.image.numpy(),
            "mask": np.packbits(self.mask.numpy(), axis=-1),
            "boxes": boxes,
        }
        arrays |= {"points": self.points.numpy(), "visible": self.visible.numpy()}
        arrays |= {"names": np.array(self.names, dtype=str), "files": np.array(self.files, dtype=str)}
        arrays |= {k: x.numpy() for k, x in (("screen", self.screen), ("truth", self.truth)) if x is not None}
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> ObjectCrops:
        """Read what `save` wrote.

        Raises:
            ValueError: another file.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                x = {name: file[name] for name in file.files}
            S = x["image"].shape[-1]
            mask = np.unpackbits(x["mask"], axis=-1, count=S).astype(bool)
            crops = tuple(Crop((*map(int, box),), (S, S)) for box in x["boxes"])  # type: ignore[arg-type]
            more = {k: torch.from_numpy(x[k]) for k in ("screen", "truth") if k in x}
            image, masks, points, visible = (
                torch.from_numpy(a) for a in (x["image"], mask, x["points"], x["visible"])
            )
            names, files = (tuple(map(str, x[k])) for k in ("names", "files"))
            return cls(image, masks, points, visible, names, crops, files, **more)
        except (OSError, KeyError, ValueError, EOFError) as err:
            raise ValueError(f"{path}: expected crops that were saved, found {str(err)[:80]}") from err


def crop_object(
    image: Tensor,
    mask: Tensor,
    size: int,
    *,
    box: Tensor | None = None,
    padding: float = PADDING,
) -> tuple[Tensor, Tensor, Crop]:
    """One crop of an image.

    Args:
        image: (3, H, W) in [0, 1].
        mask: (H, W) bool, not empty unless there is a box.
        size: S.
        box: (4,) x0, y0, x1, y1 in pixels; None takes the mask's.
        padding: left free on each side, of the box's longer side.

    Returns:
        image (3, S, S) uint8, white beyond the border, mask (S, S) bool, and the crop.

    Raises:
        ValueError: an empty mask.
    """
    if box is None:
        if not bool(mask.any()):
            raise ValueError("mask: expected some pixels of the object, found none; leave this image out")
        box = box_of_mask(mask)
    crop = Crop.around(box, size, padding=padding)
    seen = (crop.cut(image, fill=1.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return seen, crop.cut(mask[None].float())[0] > 0.5, crop


def rendered_crops(
    pictures: RenderedSet | RenderedFolder,
    template: ObjectTemplate,
    *,
    size: int = 64,
    least_seen: float = LEAST_SEEN,
    most: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> ObjectCrops:
    """Crops of renders of one category, with its landmarks as keypoints and the truth of every vertex.

    Pictures in which the object is cut off or hidden are left out, as the data sets of this field leave them out.

    Args:
        pictures: of one category; a folder has to have been written with vertices.
        template: of the set's surface.
        size: S.
        least_seen: share of the whole silhouette that has to be seen.
        most: stop at so many crops.
        progress: called with (text, share done).

    Raises:
        ValueError: several categories, no vertices, no picture left.
    """
    if len(pictures.categories) != 1:
        raise ValueError(f"pictures: expected one category, found {', '.join(pictures.categories)}")
    if isinstance(pictures, RenderedFolder) and not pictures.has_verts:
        raise ValueError(f"{pictures.folder}: expected vertices in the set; write it with --keep-vertices")
    faces = pictures.surfaces()[0].faces
    rows: list[tuple[Any, ...]] = []
    for batch in pictures.batches(32):
        assert isinstance(batch.verts, Tensor)
        for i in _whole(batch.mask, batch.verts, batch.camera, faces, least_seen):
            image, mask, crop = crop_object(batch.image[i], batch.mask[i], size)
            x = template.carried(batch.verts[i].double())
            camera = batch.camera[i]
            screen = camera.project(x.float())[:, :2]
            marks = crop.to_crop(batch.landmarks[i])
            rows.append(
                (image, mask, marks, batch.visible[i], crop.to_crop(screen), _facing(x, camera), crop)
            )
        if progress is not None:
            progress(f"cropping, {len(rows)} objects", float(batch.index[-1] + 1) / len(pictures))
        if most is not None and len(rows) >= most:
            rows = rows[:most]
            break
    if not rows:
        raise ValueError("pictures: expected at least one in which the whole object is seen, found none")
    marked = [(*row[:4], row[6], "") for row in rows]
    out = crops_of(marked, tuple(pictures.surfaces()[0].landmarks))
    visible = out.visible & torch.isfinite(out.points).all(-1)
    screen, truth = (torch.stack([row[k] for row in rows]).float() for k in (4, 5))
    return replace(out, points=out.points.float(), visible=visible, screen=screen, truth=truth)


def _whole(mask: Tensor, verts: Tensor, camera: Pinhole, faces: Tensor, least: float) -> list[int]:
    """Which pictures show a whole object."""
    H, W = mask.shape[-2:]
    kept = []
    ok = torch.isfinite(verts).all(-1).all(-1)
    for i in torch.nonzero(ok)[:, 0].tolist():
        if not bool(mask[i].any()):
            continue
        x0, y0, x1, y1 = box_of_mask(mask[i]).tolist()
        screen = camera[i].project(verts[i])
        inside = (screen[:, :2] >= 0) & (screen[:, :2] <= screen.new_tensor([W, H]))
        if max(x1 - x0, y1 - y0) < _LEAST_SIDE or not bool(inside.all()):
            continue
        all_of_it = rasterize(screen, faces, (H, W)).mask.sum()
        if int(mask[i].sum()) >= least * int(all_of_it):
            kept.append(i)
    return kept


def _facing(x: Tensor, camera: Pinhole) -> Tensor:
    """Points (V, 3) in the axes of a camera that looks straight at their mean, relative to it.

    A crop does not tell where in its picture it was cut, so this is the rotation that can be seen in it.
    """
    at = camera.to_camera(x.float()).double()
    middle = at.mean(0)
    z = torch.nn.functional.normalize(middle, dim=0)
    side = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]).double(), z), dim=0)
    R = torch.stack([side, torch.linalg.cross(z, side), z])
    return (at - middle) @ R.mT


def folder_crops(
    folder: str | Path,
    *,
    size: int = 64,
    names: Sequence[str] = (),
    on_bad_file: Callable[[str], None] | None = None,
) -> ObjectCrops:
    """Crops of a folder of images with masks, and with keypoints where there are any.

    The folder holds ``images/NAME.jpg`` and so on, ``masks/NAME.png``, and may hold ``keypoints.json``:
    ``{"NAME.jpg": {"left_eye": [x, y, visible], ...}, ...}`` in pixels; visible is 1 or 0, and 1 where it is left out.

    Args:
        folder: with images and masks.
        size: S.
        names: of the keypoints, in order; by default those of the file, sorted.
        on_bad_file: called with a line about each image that cannot be used, which is left out.

    Raises:
        ValueError: no image that can be used, another content of keypoints.json.
    """
    folder = Path(folder)
    files = list_images(folder / "images")
    masks = {p.stem: p for p in list_images(folder / "masks")}
    known = _read_keypoints(folder / "keypoints.json")
    names = tuple(names) or tuple(sorted({n for marks in known.values() for n in marks}))
    told = (lambda line: None) if on_bad_file is None else on_bad_file
    rows: list[tuple[Any, ...]] = []
    for file in files:
        try:
            if file.stem not in masks:
                raise ValueError(f"{file}: expected a mask masks/{file.stem}.png beside it, found none")
            picture, mask = read_image(file), read_mask(masks[file.stem])
            if mask.shape != picture.shape[-2:]:
                raise ValueError(
                    f"{masks[file.stem]}: expected a mask of {tuple(picture.shape[-2:])}, found {tuple(mask.shape)}"
                )
            image, small, crop = crop_object(picture, mask, size)
        except ValueError as err:
            told(str(err) if str(file) in str(err) or str(folder) in str(err) else f"{file}: {err}")
            continue
        points, visible = _marks_of(known.get(file.name, {}), names, crop)
        rows.append((image, small, points, visible, crop, file.name))
    if not rows:
        raise ValueError(f"{folder}: expected at least one image with its mask, found none that can be used")
    return crops_of(rows, names)


def crops_of(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> ObjectCrops:
    """Crops of rows (image, mask, points, visible, crop, file)."""
    image, mask, points, visible = (torch.stack([row[k] for row in rows]) for k in range(4))
    crops, files = (tuple(row[k] for row in rows) for k in (4, 5))
    return ObjectCrops(image, mask, points, visible, tuple(names), crops, files)


def _read_keypoints(path: Path) -> dict[str, dict[str, list[float]]]:
    """Image name -> keypoint name -> x, y, visible; nothing where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: not valid JSON ({str(err)[:80]})") from err
    out: dict[str, dict[str, list[float]]] = {}
    for image, marks in content.items() if isinstance(content, Mapping) else ():
        ok = isinstance(marks, Mapping) and all(
            isinstance(m, list) and len(m) in (2, 3) and all(isinstance(v, int | float) for v in m)
            for m in marks.values()
        )
        if not ok:
            raise ValueError(f'{path}: {image}: expected {{"NAME": [x, y, visible], ...}}')
        out[image] = {name: [*m, 1.0][:3] for name, m in marks.items()}
    if not out:
        raise ValueError(f'{path}: expected {{"image.jpg": {{"NAME": [x, y, visible], ...}}, ...}}')
    return out


def _marks_of(
    marks: Mapping[str, Sequence[float]], names: Sequence[str], crop: Crop
) -> tuple[Tensor, Tensor]:
    """Keypoints (L, 2) in pixels of a crop, NaN where unknown, and whether each is seen (L,)."""
    points, visible = torch.full((len(names), 2), torch.nan), torch.zeros(len(names), dtype=torch.bool)
    for i, name in enumerate(names):
        if name in marks:
            points[i] = torch.tensor(marks[name][:2])
            visible[i] = marks[name][2] > 0.5
    return crop.to_crop(points), visible & torch.isfinite(points).all(-1)


def usable(crops: ObjectCrops) -> tuple[ObjectCrops, Tensor]:
    """Crops that can be learned from and their numbers; the others are told in the log.

    Raises:
        ValueError: none is left.
    """
    ok = crops.mask.flatten(1).any(1)
    ok &= torch.isfinite(torch.where(crops.visible[..., None], crops.points, 0.0)).flatten(1).all(1)
    if not bool(ok.all()):
        _log.warning(
            "%d of %d crops are left out: their mask is empty, or a keypoint is NaN",
            int((~ok).sum()),
            len(ok),
        )
    if not bool(ok.any()):
        raise ValueError("crops: expected some with an object in their mask, found only empty ones")
    rows = torch.nonzero(ok)[:, 0]
    return (crops if bool(ok.all()) else crops[rows]), rows
