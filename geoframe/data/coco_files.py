"""COCO-style JSON with points on surfaces, as DensePose's continuous surface embeddings read and write it.

An annotation has ``bbox`` [x, y, w, h], ``segmentation`` (polygons or run lengths) or ``dp_masks`` (run lengths of
256 x 256 masks that fill the box), ``dp_x`` and ``dp_y`` (places in the box, scaled to 256), ``dp_vertex`` (vertices,
0-based) and ``ref_model`` (the surface). For people ``dp_I`` is the fine part, from 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from geoframe._files import atomic_path, read_text
from geoframe.canonical.surface import Surface
from geoframe.data.image_files import ImageItem, ImageSet, image_size
from geoframe.data.masks import RunLengths, pasted_mask, polygon_mask

Entry = Mapping[str, Any]
DIVISORS = (255, 256)


def read_coco(
    path: str | Path,
    images: str | Path,
    surfaces: Mapping[str, Surface],
    *,
    divisor: int = 256,
    category_surfaces: Mapping[str, str] | None = None,
    points_only: bool = True,
) -> ImageSet:
    """Read a COCO-style file with points on surfaces.

    Args:
        path: the JSON file.
        images: the folder of the images.
        surfaces: name (`ref_model`) -> surface.
        divisor: by which ``dp_x`` and ``dp_y`` are divided to give parts of the box: 256 as the format's description
            says, 255 as the released evaluation does.
        category_surfaces: name of a category -> name of the surface, for annotations without `ref_model`.
        points_only: pass over annotations without ``dp_`` fields; otherwise they become items without points.

    Raises:
        ValueError: naming the file and the annotation: other content, an image that is not listed or missing, a
            surface that is not known, an empty annotation, a vertex out of range, a mask that cannot be read.
    """
    path, folder = Path(path), Path(images)
    if divisor not in DIVISORS:
        raise ValueError(f"divisor: expected 255 or 256, found {divisor}")
    content = _content(path)
    listed = {entry["id"]: entry for entry in content["images"]}
    names = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
    items = []
    for entry in content["annotations"]:
        where = f"{path}: annotation {entry.get('id', '?')}"
        has_points = any(key in entry for key in ("dp_vertex", "dp_x", "dp_y"))
        if points_only and not has_points:
            continue
        about = listed.get(entry.get("image_id"))
        if about is None:
            raise ValueError(f"{where}: expected the id of a listed image, found {entry.get('image_id')}")
        category = names.get(entry.get("category_id"), "")
        surface = entry.get("ref_model") or (category_surfaces or {}).get(category, "")
        if has_points and surface not in surfaces:
            raise ValueError(
                f"{where}: expected a surface among {', '.join(surfaces) or 'none'}, found "
                f"{surface or f'none for category {category!r}'}; pass it in surfaces (or category_surfaces)"
            )
        n_verts = surfaces[surface].n_verts if surface in surfaces else None
        try:
            items.append(_item(entry, about, folder, surface, category, n_verts, divisor))
        except ValueError as err:
            raise ValueError(f"{where}: {err}") from err
    if not items:
        raise ValueError(
            f"{path}: expected at least one annotation with dp_x, dp_y and dp_vertex, found none"
        )
    gone = [item.image for item in items if isinstance(item.image, Path) and not item.image.is_file()]
    if gone:
        raise ValueError(
            f"{path}: expected its images in {folder}, {len(set(gone))} are missing, first {gone[0].name}"
        )
    used = {item.surface for item in items}
    return ImageSet(items, {name: surface for name, surface in surfaces.items() if name in used})


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: not valid JSON ({str(err)[:80]})") from err
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise ValueError(f"{path}: expected a COCO-style object with 'images' and 'annotations'")
    return content


def _item(
    entry: Entry, about: Entry, folder: Path, surface: str, category: str, n_verts: int | None, divisor: int
) -> ImageItem:
    x, y, w, h = (float(v) for v in entry.get("bbox", (0, 0, about["width"], about["height"])))
    if not (w > 0 and h > 0):
        raise ValueError(f"expected a box of some size, found bbox {[x, y, w, h]}")
    columns = [entry.get(key, []) for key in ("dp_x", "dp_y", "dp_vertex")]
    if len({len(c) for c in columns}) > 1:
        raise ValueError(f"expected dp_x, dp_y, dp_vertex of one length, found {[len(c) for c in columns]}")
    if not columns[0] and any(key in entry for key in ("dp_vertex", "dp_x", "dp_y")):
        raise ValueError("expected at least one point, found an empty annotation; remove it from the file")
    place = torch.tensor(columns[:2], dtype=torch.float64).T / divisor
    points = place * torch.tensor([w, h]).double() + torch.tensor([x, y]).double()
    vertex = torch.tensor(columns[2], dtype=torch.int64)
    if n_verts is not None and len(vertex) and not 0 <= int(vertex.min()) <= int(vertex.max()) < n_verts:
        bad = int(vertex.min()) if int(vertex.min()) < 0 else int(vertex.max())
        raise ValueError(f"expected vertices of {surface!r} from 0 to {n_verts - 1}, found {bad}")
    part = torch.tensor(entry["dp_I"], dtype=torch.int64) if "dp_I" in entry else None
    told = {"category": category} | {k: entry[k] for k in ("id", "image_id", "score") if k in entry}
    return ImageItem(
        folder / str(about["file_name"]),
        surface,
        points.float().reshape(-1, 2),
        vertex,
        torch.tensor([x, y, x + w, y + h]),
        _mask(entry, about, (x, y, w, h)),
        part,
        told,
    )


def _mask(entry: Entry, about: Entry, box: tuple[float, float, float, float]) -> RunLengths | None:
    """The mask of an annotation in the whole image, or None where it has none."""
    size = (int(about["height"]), int(about["width"]))
    coded = entry.get("segmentation")
    if isinstance(coded, list) and coded:
        return RunLengths.of(polygon_mask(coded, size))
    if isinstance(coded, dict):
        runs = RunLengths.of_coco(coded)
        if runs.size != size:
            raise ValueError(f"expected a mask of {size[0]} x {size[1]} as the image, found {runs.size}")
        return runs
    parts = [RunLengths.of_coco(p).decode() for p in entry.get("dp_masks") or [] if p]
    if not parts:
        return None
    x, y, w, h = box
    whole = (round(x), round(y), max(round(x + w), round(x) + 1), max(round(y + h), round(y) + 1))
    return RunLengths.of(pasted_mask(parts, whole, size))


def write_coco(path: str | Path, images: ImageSet, *, divisor: int = 256) -> None:
    """Write an image set as `read_coco` reads it.

    Boxes that are missing become the mask's, or the whole image's. Names of images are relative to the folder that
    the reader is given: only their last part is written.

    Args:
        path: the JSON file.
        images: with images in files.
        divisor: as in `read_coco`.

    Raises:
        ValueError: a picture in memory, two images of one name, a folder that cannot be written to.
    """
    if divisor not in DIVISORS:
        raise ValueError(f"divisor: expected 255 or 256, found {divisor}")
    files: dict[str, Path] = {}
    about: dict[str, dict[str, Any]] = {}
    category = {n: i for i, n in enumerate(dict.fromkeys(_category(item) for item in images), 1)}
    annotations: list[dict[str, Any]] = []
    for item in images:
        if not isinstance(item.image, Path):
            raise ValueError("images: expected images in files, found a picture in memory; save it first")
        if files.setdefault(item.name, item.image) != item.image:
            raise ValueError(f"images: expected one image of each name, found two called {item.name}")
        if item.name not in about:
            H, W = image_size(item.image)
            about[item.name] = {"id": len(about) + 1, "file_name": item.name, "height": H, "width": W}
        image = about[item.name]
        entry = _annotation(item, image, divisor)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": category[_category(item)],
                **entry,
            }
        )
    categories = [{"id": i, "name": name} for name, i in category.items()]
    content = {"images": list(about.values()), "categories": categories, "annotations": annotations}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _category(item: ImageItem) -> str:
    return str(item.about.get("category") or item.surface or "object")


def _annotation(item: ImageItem, image: Mapping[str, Any], divisor: int) -> dict[str, Any]:
    runs = item.mask if item.mask is None or isinstance(item.mask, RunLengths) else RunLengths.of(item.mask)
    box = item.box
    if box is None:
        box = torch.tensor([0.0, 0.0, image["width"], image["height"]])
    x0, y0, x1, y1 = box.double().tolist()
    entry: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
    if runs is not None:
        entry |= {"segmentation": runs.to_coco(), "area": runs.area}
    if len(item.points):
        place = (item.points.double() - torch.tensor([x0, y0]).double()) * divisor
        place = place / torch.tensor([x1 - x0, y1 - y0]).double()
        entry |= {
            "dp_x": place[:, 0].tolist(),
            "dp_y": place[:, 1].tolist(),
            "dp_vertex": item.vertex.tolist(),
        }
    if item.surface:
        entry["ref_model"] = item.surface
    if item.part is not None:
        entry["dp_I"] = item.part.tolist()
    return entry
