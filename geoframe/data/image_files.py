"""Images from files: any picture as (3, H, W) in [0, 1], masks, folders, and image sets with annotated points.

Whatever a camera or an editor writes is read as a viewer shows it: turned as its EXIF says, grey and palette and CMYK
as colours, 16 bits as 16 bits, see-through parts on a background. What cannot be read is told in one line.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_finite, check_index, check_shape
from geoframe._files import atomic_path, read_text
from geoframe._types import Array, Bools
from geoframe.canonical.surface import Surface
from geoframe.data.masks import RunLengths

ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".jp2",
        ".tga",
        ".avif",
    ]
)


def read_image(path: str | Path, *, background: float = 1.0) -> Tensor:
    """A picture as (3, H, W) float32 in [0, 1], sRGB, upright.

    Args:
        path: any format that Pillow reads; of several frames the first.
        background: grey in [0, 1] behind pixels that are see-through.

    Raises:
        ValueError: naming the file, for one that is missing, no picture, cut off, or far too large.
    """
    image = _opened(path)
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"{path}: expected brightness in [0, 1], as this picture of real numbers has no unit, found "
                f"{values.min():.4g} to {values.max():.4g}; scale it first"
            )
        return torch.from_numpy(np.repeat(values[None].astype(np.float32), 3, 0))
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold no more than 16
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{path}: expected at most 16 bits a pixel, found values up to {values.max():.0f}"
            )
        return torch.from_numpy(np.repeat(values[None] / 65535, 3, 0))
    if image.has_transparency_data:
        values = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
        alpha = values[..., 3:]
        values = values[..., :3] * alpha + background * (1 - alpha)
    else:
        values = np.asarray(image.convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of a picture as `read_image` gives it, from the head of the file.

    Raises:
        ValueError: as `read_image`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as err:
        raise _unreadable(path, err) from err
    return (width, height) if turned else (height, width)


def read_mask(path: str | Path) -> Tensor:
    """A mask (H, W) bool from a picture: white, coloured or numbered pixels are foreground.

    Of a palette every number but 0 counts; of a picture with see-through parts what is not; of one with only two
    values the higher one; else what is brighter than half of the brightest.

    Raises:
        ValueError: as `read_image`.
    """
    image = _opened(path, "mask")
    if image.mode == "P" and "transparency" not in image.info:
        return torch.from_numpy(np.asarray(image) > 0)
    if image.has_transparency_data:
        return torch.from_numpy(np.asarray(image.convert("RGBA"))[..., 3] > 127)
    values = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L")).astype(np.float64)
    top = values.max(initial=0.0)
    return torch.from_numpy((values > top / 2) & (values > 0))


def _opened(path: str | Path, what: str = "image") -> Any:
    """The whole picture in memory, turned as its EXIF says."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as err:
        raise _unreadable(path, err, what) from err


def _unreadable(path: str | Path, err: Exception, what: str = "image") -> ValueError:
    """One line that names the file and what is wrong with it."""
    if isinstance(err, OSError) and err.strerror:
        reason = err.strerror
    elif "truncated" in str(err) or "Truncated" in str(err):
        reason = "the file is cut off"
    elif "cannot identify" in str(err):
        reason = "not a picture in a known format"
    else:
        reason = str(err)[:100]
    return ValueError(f"cannot read the {what} {path}: {reason}")


def list_images(folder: str | Path) -> list[Path]:
    """The picture files of a folder, by name; hidden files and other endings are passed over.

    Raises:
        ValueError: no folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}"
        )
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    if not found:
        raise ValueError(
            f"{folder}: expected at least one image ({', '.join(sorted(ENDINGS)[:4])}, ...), found none"
        )
    return found


@dataclass(frozen=True, eq=False)
class ImageItem:
    """One object in one image, and what is known of it.

    Attributes:
        image: the file, or the picture itself (3, H, W).
        surface: name of the surface that `vertex` refers to; empty where there are no points.
        points: (N, 2) pixel x, pixel y.
        vertex: (N,) int64, the vertex seen at each point.
        box: (4,) x0, y0, x1, y1 in pixels, or None for the whole image.
        mask: (H, W) bool of the whole image, as it is or as `RunLengths`; None where it is not known.
        part: (N,) int64 number of a body part, or None.
        about: whatever else the file said: id, category, score.

    Raises:
        TypeError, ValueError: tensors of another type or shape.
    """

    image: Path | Tensor
    surface: str = ""
    points: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    vertex: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    box: Tensor | None = None
    mask: Tensor | RunLengths | None = None
    part: Tensor | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_floats(self.points, "points").float())
        object.__setattr__(self, "vertex", as_tensor(self.vertex, "vertex").long())
        N = check_shape(self.points, "N 2", "points")["N"]
        check_shape(self.vertex, f"{N}", "vertex")
        if self.box is not None:
            object.__setattr__(self, "box", as_floats(self.box, "box").float())
            check_shape(self.box, "4", "box")
            x0, y0, x1, y1 = self.box.tolist()  # type: ignore[union-attr]
            if not (x1 > x0 and y1 > y0):
                raise ValueError(f"box: expected x0 < x1 and y0 < y1, found {[x0, y0, x1, y1]}")

    @property
    def name(self) -> str:
        """Name of the image file, empty for a picture in memory."""
        return "" if isinstance(self.image, Tensor) else self.image.name

    def read(self) -> Tensor:
        """The picture (3, H, W); see `read_image`."""
        return self.image if isinstance(self.image, Tensor) else read_image(self.image)

    def foreground(self) -> Tensor:
        """The mask (H, W) bool.

        Raises:
            ValueError: an item without mask.
        """
        if self.mask is None:
            raise ValueError(f"{self.name or 'image'}: expected a mask of the object, found none")
        return self.mask.decode() if isinstance(self.mask, RunLengths) else self.mask


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with what is known of them, and the surfaces that their points refer to.

    Attributes:
        items: the objects, one after the other; an image with two objects stands there twice.
        surfaces: name -> surface. A surface that is not there leaves its vertices unchecked.

    Raises:
        ValueError: a vertex that its surface does not have.
    """

    items: Sequence[ImageItem]
    surfaces: Mapping[str, Surface] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        for item in self.items:
            if item.surface in self.surfaces:
                n = self.surfaces[item.surface].n_verts
                name = item.name or "an image"
                check_index(item.vertex, n, f"{name}: vertex", what=f"vertices of surface {item.surface!r}")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[ImageItem]:
        return iter(self.items)

    def __getitem__(self, index: int | slice) -> Any:
        """One item, or an image set of some."""
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def of_surface(self, name: str) -> ImageSet:
        """The items of one surface."""
        return replace(self, items=[item for item in self.items if item.surface == name])

    @property
    def annotated(self) -> dict[str, Tensor]:
        """Surface name -> its vertices that are annotated, each once: whose geodesic rows training needs."""
        names = dict.fromkeys(item.surface for item in self.items if len(item.vertex))
        return {n: torch.unique(torch.cat([i.vertex for i in self.items if i.surface == n])) for n in names}


def read_points(path: str | Path, surface: Surface | None = None, *, name: str = "surface") -> ImageSet:
    """Read annotated points of images: what the annotation page saves.

    The file is JSON: ``{"image": "horse.jpg", "points": [[x, y, vertex or landmark name], ...]}``, or a list of
    these, or ``{"images": [...]}``. Image names are relative to the file's folder. A ``"mask"`` beside ``"image"``
    names a picture of the mask, a ``"box"`` is [x0, y0, x1, y1], a ``"surface"`` goes before `name`.

    Args:
        path: the file.
        surface: gives names of landmarks their vertices, and bounds to vertices; None takes vertices as they are.
        name: how the surface is called.

    Raises:
        ValueError: naming the file and the image: other content, no point, an unknown landmark, a vertex out of
            range, an image that is missing, a point outside its image.
    """
    path = Path(path)
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: not valid JSON ({str(err)[:80]})") from err
    if isinstance(content, dict):
        content = content.get("images", [content] if "image" in content else None)
    if not isinstance(content, list) or not all(isinstance(e, dict) and "image" in e for e in content):
        raise ValueError(
            f'{path}: expected {{"image": NAME, "points": [[x, y, vertex or name], ...]}} or a list of these'
        )
    items = [_points_item(entry, path, surface, name) for entry in content]
    if not any(len(item.points) for item in items):
        raise ValueError(f"{path}: expected at least one annotated point, found none")
    return ImageSet(items, {} if surface is None else {items[0].surface: surface})


def _points_item(entry: Mapping[str, Any], path: Path, surface: Surface | None, name: str) -> ImageItem:
    where = f"{path}: {entry['image']}"
    rows: Any = entry.get("points")
    ok = isinstance(rows, list) and all(isinstance(r, list) and len(r) == 3 for r in rows)
    if not ok or not all(isinstance(v, int | float) for r in rows for v in r[:2]):
        raise ValueError(f"{where}: expected points [[x, y, vertex or landmark name], ...]")
    file = path.parent / str(entry["image"])
    height, width = image_size(file)
    vertices = [_vertex_of(row[2], surface, where) for row in rows]
    points = torch.tensor([row[:2] for row in rows], dtype=torch.float32).reshape(-1, 2)
    check_finite(points, f"{where}: points", remedy="remove them from the file")
    outside = ((points < 0) | (points > torch.tensor([width, height]))).any(1)
    if bool(outside.any()):
        x, y = points[outside][0].tolist()
        raise ValueError(
            f"{where}: expected points inside the {width} x {height} image, found ({x:g}, {y:g})"
        )
    mask = None
    if "mask" in entry:
        mask = read_mask(path.parent / str(entry["mask"]))
        if tuple(mask.shape) != (height, width):
            raise ValueError(f"{where}: expected a mask of {height} x {width}, found {tuple(mask.shape)}")
    box = torch.tensor(entry["box"], dtype=torch.float32) if "box" in entry else None
    return ImageItem(
        file, str(entry.get("surface", name)), points, torch.tensor(vertices, dtype=torch.int64), box, mask
    )


def _vertex_of(value: Any, surface: Surface | None, where: str) -> int:
    """The vertex that a number or a landmark's name stands for."""
    if isinstance(value, str):
        if surface is None:
            raise ValueError(f"{where}: landmark {value!r} needs the surface that has it; pass surface")
        if value not in surface.landmarks:
            known = ", ".join(list(surface.landmarks)[:6]) or "none"
            raise ValueError(f"{where}: unknown landmark {value!r}; the surface has {known}")
        return surface.landmarks[value]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{where}: expected a vertex number or a landmark's name, found {value!r}")
    if surface is not None and value >= surface.n_verts:
        raise ValueError(f"{where}: expected a vertex from 0 to {surface.n_verts - 1}, found {value}")
    return value


def write_points(path: str | Path, images: ImageSet) -> None:
    """Write annotated points of images as `read_points` reads them.

    Args:
        path: the JSON file; images outside its folder are named by their whole path.
        images: with images in files; masks are not written.

    Raises:
        ValueError: a picture in memory, a folder that cannot be written to.
    """
    path = Path(path)
    entries = []
    for item in images:
        if isinstance(item.image, Tensor):
            raise ValueError("images: expected images in files, found a picture in memory; save it first")
        file = item.image.absolute()
        folder = path.absolute().parent
        name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
        rows = [[x, y, v] for (x, y), v in zip(item.points.tolist(), item.vertex.tolist(), strict=True)]
        entry: dict[str, Any] = {"image": name, "surface": item.surface, "points": rows}
        if item.box is not None:
            entry["box"] = item.box.tolist()
        entries.append(entry)
    with atomic_path(path) as temporary:
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def box_of_mask(mask: Tensor | Bools | Array) -> Tensor:
    """(4,) float32 x0, y0, x1, y1 of the smallest box that holds the foreground of a mask (H, W).

    Raises:
        ValueError: an empty mask.
    """
    mask = as_tensor(mask, "mask")
    check_shape(mask, "H W", "mask")
    rows, cols = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    if not len(rows):
        raise ValueError("mask: expected some foreground, found none")
    return torch.tensor(
        [int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1], dtype=torch.float32
    )
