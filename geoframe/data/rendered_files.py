"""Rendered sets as folders: pictures, COCO-style JSON, surfaces, and the exact truth of every pixel.

A folder holds ``images/000000.png`` and so on, ``truth/000000.npz`` and so on (one for 64 pictures each),
``surfaces/NAME`` as `geoframe canonical` writes surfaces, ``annotations.json`` and ``set.json``. A part of the truth is
written after its pictures, so that an interrupted set goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._cache import cache_key
from geoframe._check import check_int
from geoframe._files import atomic_path, read_text, to_json
from geoframe._types import Array
from geoframe.camera import Pinhole
from geoframe.canonical.surface import Surface, load_surface
from geoframe.data.coco_files import write_coco
from geoframe.data.image_files import ImageItem, ImageSet, box_of_mask
from geoframe.data.masks import RunLengths
from geoframe.data.rendered import RenderedBatch, RenderedSet, numbers_of

_PART = 64  # pictures a file of truth
_DENSE = ("category", "landmarks", "visible", "index")
_CAMERA = ("R_wc", "t", "focal", "principal")


@dataclass(frozen=True, eq=False)
class RenderedFolder:
    """A rendered set that was written to disk; gives the batches that the set itself gives.

    Pictures have passed through 8 bits; all else is as it was.

    Attributes:
        folder: where it is.
        categories: names.
        n: number of pictures.
        size: S.
        surface_names: the surface of each category.
        has_verts: whether vertices were written; else `RenderedBatch.verts` has none.
    """

    folder: Path
    categories: tuple[str, ...]
    n: int
    size: int
    surface_names: tuple[str, ...]
    has_verts: bool

    def __len__(self) -> int:
        """Number of pictures."""
        return self.n

    def surfaces(self) -> list[Surface]:
        """The surface of each category, which faces and vertices refer to; the same objects at every call."""
        return [_surface(self.folder / "surfaces" / name) for name in self.surface_names]

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> RenderedBatch:
        """The pictures of some numbers, as `RenderedSet` gives them.

        Raises:
            IndexError: a number out of range.
            ValueError: a file that is missing or cannot be used.
        """
        return _read(self, numbers_of(self.n, index))

    def batches(self, batch: int = 32, *, start: int = 0) -> Iterator[RenderedBatch]:
        """All pictures in their order, `batch` at a time.

        Raises:
            ValueError: a batch of none.
        """
        check_int(batch, "batch", low=1)
        for first in range(start, self.n, batch):
            yield self[range(first, min(first + batch, self.n))]


def to_disk(
    pictures: RenderedSet,
    folder: str | Path,
    *,
    verts: bool = False,
    points: int = 100,
    progress: Callable[[str, float], None] | None = None,
) -> RenderedFolder:
    """Write a rendered set to a folder; what a call that was interrupted has finished is kept.

    Args:
        pictures: of `render_set`.
        folder: made if need be.
        verts: also write the vertices of every picture (12 bytes each).
        points: at most as many pixels of each picture become points of ``annotations.json``.
        progress: called with a word and the share done.

    Raises:
        ValueError: the folder holds another set, or cannot be written to.
    """
    check_int(points, "points", low=1)
    folder = Path(folder)
    told = _settings(pictures, verts)
    kept = _told(folder)
    if kept is not None and kept != json.loads(json.dumps(told)):
        other = ", ".join(k for k in told if kept.get(k) != json.loads(json.dumps(told[k])))
        raise ValueError(
            f"{folder}: expected no set or the same one, found another {other}; choose another folder"
        )
    names = _surface_names(pictures)
    for name, surface in dict(zip(names, pictures.surfaces(), strict=True)).items():
        surface.save(folder / "surfaces" / name)
    with atomic_path(folder / "set.json") as temporary:
        temporary.write_text(to_json(told), encoding="utf-8")
    for first in range(0, len(pictures), _PART):
        last = min(first + _PART, len(pictures))
        if not _part(folder, first).is_file():
            _write_part(pictures, folder, first, last, verts)
        if progress is not None:
            progress(f"{last:,} pictures", last / len(pictures))
    out = load_rendered(folder)
    write_coco(folder / "annotations.json", _annotations(out, points))
    return out


def load_rendered(folder: str | Path) -> RenderedFolder:
    """The rendered set of a folder that `to_disk` or ``geoframe render`` wrote.

    Raises:
        ValueError: another folder, or a set that is not complete.
    """
    folder = Path(folder)
    told = _told(folder)
    if told is None:
        raise ValueError(f"{folder}: expected a folder of geoframe render, found no set.json")
    try:
        categories, n, size = tuple(told["categories"]), int(told["n"]), int(told["size"])
        names = tuple(told["surfaces"])
    except (KeyError, TypeError, ValueError) as err:
        raise ValueError(
            f"{folder / 'set.json'}: expected the settings of a set ({err}); write it again"
        ) from err
    missing = [f for f in range(0, n, _PART) if not _part(folder, f).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: expected {n} pictures, those from {missing[0]} on are missing; write the set again, "
            "what is there is kept"
        )
    return RenderedFolder(folder, categories, n, size, names, bool(told["verts"]))


def _surface_names(s: RenderedSet) -> tuple[str, ...]:
    return tuple(s.surface or c for c in s.categories)


def _settings(s: RenderedSet, verts: bool) -> dict[str, Any]:
    return {
        "categories": list(s.categories),
        "surfaces": list(_surface_names(s)),
        **{k: getattr(s, k) for k in ("n", "size", "seed", "n_verts", "surface", "pose", "augmentation")},
        "photos": cache_key(*s.photos) if s.photos else None,
        "verts": verts,
    }


def _told(folder: Path) -> dict[str, Any] | None:
    path = folder / "set.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: not valid JSON ({str(err)[:80]}); write the set again") from err
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected the settings of a set; write it again")
    return content


def _part(folder: Path, first: int) -> Path:
    return folder / "truth" / f"{first:06d}.npz"


def _image(folder: Path, number: int) -> Path:
    return folder / "images" / f"{number:06d}.png"


def _write_part(s: RenderedSet, folder: Path, first: int, last: int, verts: bool) -> None:
    from PIL import Image

    batch = s[range(first, last)]
    arrays: dict[str, Array] = {name: getattr(batch, name).numpy() for name in _DENSE}
    arrays |= {name: getattr(batch.camera, name).numpy() for name in _CAMERA}
    packed = np.packbits(batch.mask.numpy().reshape(last - first, -1), axis=1)
    arrays |= {"mask": packed, "face": batch.face[batch.mask].numpy().astype(np.int32)}
    arrays |= {"barycentric": batch.barycentric[batch.mask].numpy()}
    arrays |= {"vertex": batch.vertex[batch.mask].numpy().astype(np.int32)}
    if verts:
        arrays |= {f"verts_{i}": x.numpy() for i, x in enumerate(batch.verts)}
    bytes_ = (batch.image * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    for i, picture in enumerate(bytes_, first):
        with atomic_path(_image(folder, i)) as temporary:
            Image.fromarray(picture).save(temporary)
    with atomic_path(_part(folder, first)) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read(s: RenderedFolder, numbers: list[int]) -> RenderedBatch:
    from geoframe.data.image_files import read_image

    parts = [(_arrays(_part(s.folder, i - i % _PART), s.size), i % _PART) for i in numbers]
    rows = {name: torch.from_numpy(np.stack([p[name][i] for p, i in parts])) for name in (*_DENSE, *_CAMERA)}
    mask = torch.from_numpy(np.stack([p["mask"][i] for p, i in parts]))
    face, vertex = torch.full(mask.shape, -1), torch.full(mask.shape, -1)
    barycentric = torch.zeros((*mask.shape, 3))
    for out, name in ((face, "face"), (vertex, "vertex"), (barycentric, "barycentric")):
        out[mask] = torch.from_numpy(
            np.concatenate([p[name][p["ends"][i] : p["ends"][i + 1]] for p, i in parts])
        ).to(out.dtype)
    R_wc, t, focal, principal = (rows[name] for name in _CAMERA)
    camera = Pinhole(R_wc, t, focal, principal, (s.size, s.size))
    verts: Tensor | list[Tensor] = torch.zeros(len(numbers), 0, 3)
    if s.has_verts:
        listed = [torch.from_numpy(p[f"verts_{i}"]) for p, i in parts]
        same = len({s.surface_names[c] for c in rows["category"].tolist()}) == 1
        verts = torch.stack(listed) if same else listed
    image = torch.stack([read_image(_image(s.folder, i)) for i in numbers])
    return RenderedBatch(
        *(image, mask, face, barycentric, vertex, rows["category"], rows["landmarks"], rows["visible"]),
        *(camera, verts, rows["index"]),
    )


@lru_cache(maxsize=8)
def _arrays(path: Path, size: int) -> dict[str, Array]:
    """What a file of truth holds, masks unpacked, and where the pixels of each picture end."""
    try:
        with np.load(path, allow_pickle=False) as file:
            out = {name: file[name] for name in file.files}
        packed = out["mask"]
        bits = np.unpackbits(packed, axis=1, count=size * size).astype(bool)
        out["mask"] = bits.reshape(-1, size, size)
        out["ends"] = np.concatenate([[0], bits.sum(1).cumsum()])
        if out["ends"][-1] != len(out["face"]):
            raise ValueError("its parts do not fit together")
    except (OSError, KeyError, ValueError, EOFError) as err:
        raise ValueError(
            f"{path}: expected the truth of pictures ({err}); delete it and write the set again"
        ) from err
    return out


@lru_cache(maxsize=32)
def _surface(folder: Path) -> Surface:
    return load_surface(folder)


def _annotations(s: RenderedFolder, points: int) -> ImageSet:
    """All pictures in which the object is seen, with some pixels of each as points."""
    items, surfaces = [], dict(zip(s.surface_names, s.surfaces(), strict=True))
    for batch in s.batches(_PART):
        for i, number in enumerate(batch.index.tolist()):
            mask = batch.mask[i]
            if not (batch.vertex[i] >= 0).any():
                continue
            rows, cols = torch.where(batch.vertex[i] >= 0)
            pick = torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))[:points]
            place = torch.stack([cols[pick], rows[pick]], 1) + 0.5
            category = int(batch.category[i])
            items.append(
                ImageItem(
                    *(_image(s.folder, number), s.surface_names[category], place),
                    *(batch.vertex[i][rows[pick], cols[pick]], box_of_mask(mask), RunLengths.of(mask)),
                    about={"category": s.categories[category]},
                )
            )
    if not items:
        raise ValueError("pictures: expected an object to be seen in at least one, found none; ask for more")
    return ImageSet(items, surfaces)
