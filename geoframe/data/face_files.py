"""Images with landmarks from files: faces and anything else, for systems that learn without them and are measured.

A folder of images is enough to train on. Landmarks come from a CSV or JSON file in it, or from the layouts of CelebA
with MAFL, AFLW and 300-W. Pictures become squares of one size; by default the whole picture does, and landmarks are
used for cropping only where that is asked for.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import check_choice, check_int, check_shape
from geoframe._files import read_text
from geoframe.data.crops import Crop
from geoframe.data.image_files import list_images, read_image
from geoframe.warps import to_normalised

CROPS = ("whole", "centre", "box", "landmarks")
_CENTRE = 0.8  # of the shorter side
_EYES = {5: (0, 1), 68: (36, 45)}  # the two points whose distance errors are divided by
_TRAIN_300W = ("afw", "helen/trainset", "lfpw/trainset")
_TEST_300W = ("helen/testset", "lfpw/testset", "ibug")


class Squares(NamedTuple):
    """Pictures brought to squares of one size.

    Attributes:
        images: (n, 3, S, S) uint8.
        points: (n, L, 2) landmarks in normalised coordinates of the square; NaN where unknown.
        crops: how each square was cut from its picture.
    """

    images: Tensor
    points: Tensor
    crops: tuple[Crop, ...]


@dataclass(frozen=True, eq=False)
class LandmarkSet:
    """Images and the places of L landmarks in each.

    Attributes:
        images: files, or pictures (3, H, W) in [0, 1].
        names: one an image.
        points: (n, L, 2) in pixels, x first, pixels' centres at integers + 0.5; NaN where a landmark is not known.
            L may be 0.
        identity: (n,) int64, the same number for images of one person or thing; -1 where it is not known.
        boxes: (n, 4) x0, y0, x1, y1 in pixels, NaN where not known; None without any.

    Raises:
        ValueError: counts that differ.
    """

    images: Sequence[Path | Tensor]
    names: tuple[str, ...]
    points: Tensor
    identity: Tensor
    boxes: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if len(self.names) != n:
            raise ValueError(f"names: expected {n}, one an image, found {len(self.names)}")
        check_shape(self.points, f"{n} L 2", "points")
        check_shape(self.identity, f"{n}", "identity")
        if self.boxes is not None:
            check_shape(self.boxes, f"{n} 4", "boxes")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_landmarks(self) -> int:
        """L."""
        return self.points.shape[1]

    @property
    def annotated(self) -> Tensor:
        """(n,) bool: images with at least one known landmark."""
        return torch.isfinite(self.points).all(-1).any(-1)

    def only(self, which: Iterable[int] | Tensor) -> LandmarkSet:
        """The set of some of the images, by their numbers or by a (n,) bool tensor."""
        if isinstance(which, Tensor):
            which = (torch.nonzero(which)[:, 0] if which.dtype == torch.bool else which).tolist()
        index = list(which)
        return replace(
            self,
            images=[self.images[i] for i in index],
            names=tuple(self.names[i] for i in index),
            points=self.points[index],
            identity=self.identity[index],
            boxes=None if self.boxes is None else self.boxes[index],
        )

    def squares(
        self,
        size: int,
        *,
        crop: str = "whole",
        margin: float = 0.0,
        on_bad_file: Callable[[str], None] | None = None,
    ) -> tuple[LandmarkSet, Squares]:
        """Read the pictures and bring them to squares.

        Args:
            size: S, side of the squares in pixels.
            crop: "whole", the picture with black beside its shorter side; "centre", a square of 0.8 of that side in
                its middle; "box", around the given boxes; "landmarks", around the known landmarks, which makes
                learning on them no longer unsupervised.
            margin: left free around boxes and landmarks, in parts of their longer side.
            on_bad_file: called with a line about each picture that cannot be read, which is left out then.

        Returns:
            The set without what was left out, and its squares.

        Raises:
            ValueError: a picture that cannot be read, without `on_bad_file`; none that can; no boxes or landmarks
                where they are asked for.
        """
        check_int(size, "size", low=8)
        check_choice(crop, CROPS, "crop")
        kept, images, points, crops = [], [], [], []
        for i, image in enumerate(self.images):
            try:
                picture = image if isinstance(image, Tensor) else read_image(image)
                cut = self._crop(i, picture, size, crop, margin)
            except ValueError as err:
                if on_bad_file is None:
                    raise
                on_bad_file(str(err))
                continue
            kept.append(i)
            crops.append(cut)
            images.append((cut.cut(picture) * 255).round().clamp(0, 255).to(torch.uint8))
            points.append(to_normalised(cut.to_crop(self.points[i]), size, size))
        if not kept:
            raise ValueError("images: expected at least one that can be read, found none")
        return self.only(kept), Squares(torch.stack(images), torch.stack(points), tuple(crops))

    def _crop(self, i: int, picture: Tensor, size: int, crop: str, margin: float) -> Crop:
        H, W = picture.shape[-2:]
        if crop == "whole":
            return Crop.whole((H, W), size)
        if crop == "centre":
            half = _CENTRE * min(H, W) / 2
            return Crop.around((W / 2 - half, H / 2 - half, W / 2 + half, H / 2 + half), size, padding=0)
        if crop == "box":
            box = None if self.boxes is None else self.boxes[i]
            if box is None or not bool(torch.isfinite(box).all()):
                raise ValueError(f"{self.names[i]}: expected a box, found none; crop 'whole' needs none")
            return Crop.around(box, size, padding=margin)
        known = self.points[i][torch.isfinite(self.points[i]).all(-1)]
        if len(known) < 2:
            raise ValueError(
                f"{self.names[i]}: expected at least two landmarks to crop around, found {len(known)}"
            )
        low, high = known.amin(0), known.amax(0)
        middle, half_side = (low + high) / 2, (high - low).amax().clamp_min(1) / 2
        return Crop.around(torch.cat([middle - half_side, middle + half_side]), size, padding=margin)


def eye_distance(points: Tensor, *, pair: tuple[int, int] | None = None) -> Tensor:
    """The distance (n,) that errors of faces are divided by.

    Args:
        points: (n, L, 2).
        pair: the two landmarks; by default the eyes' centres of 5 points and the outer corners of the eyes of 68,
            and of another L the diagonal of the landmarks' box.
    """
    pair = pair or _EYES.get(points.shape[1])
    if pair is None:
        return (points.amax(1) - points.amin(1)).norm(dim=-1)
    return (points[:, pair[0]] - points[:, pair[1]]).norm(dim=-1)


def five_of_68(points: Tensor) -> Tensor:
    """Centres of the eyes, tip of the nose and corners of the mouth (n, 5, 2) of 68 landmarks (n, 68, 2)."""
    check_shape(points, "N 68 2", "points")
    eyes = [points[:, 36:42].mean(1), points[:, 42:48].mean(1)]
    return torch.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], 1)


def load_landmark_images(
    path: str | Path, *, split: str | None = None, landmarks: str | Path | None = None
) -> LandmarkSet:
    """Images and landmarks of a folder or of a known layout.

    Args:
        path: a folder of images, with a landmark file or without; a landmark file; or the root of CelebA (with
            MAFL), AFLW or 300-W in the layout in which they are given out.
        split: of a known layout "train" or "test"; both by default.
        landmarks: a CSV or JSON file, if it does not lie in the folder. CSV: a head line ``image, identity, x0, y0,
            x1, ...`` (identity may be missing). JSON: ``{name: [[x, y], ...]}`` or a list of ``{"image": name,
            "points": [[x, y], ...], "identity": n, "box": [x0, y0, x1, y1]}``. null is an unknown landmark. Images
            of the folder that it does not name are unlabelled.

    Raises:
        ValueError: naming the file: nothing there, no image, a landmark file with other content.
    """
    path = Path(path)
    if path.suffix.lower() == ".zip":
        raise ValueError(f"{path}: expected a folder, found an archive; unpack it first")
    if path.is_file():
        return _folder(path.parent, path)
    if not path.is_dir():
        raise ValueError(f"{path}: expected a folder of images or a landmark file, found nothing")
    if landmarks is not None:
        return _folder(path, Path(landmarks))
    if (path / "Anno/list_landmarks_align_celeba.txt").is_file():
        return _celeba(path, split)
    if list(path.glob("aflw_*_images.txt")):
        return _aflw(path, split)
    if any((path / part).is_dir() for part in (*_TRAIN_300W, *_TEST_300W)):
        return _300w(path, split)
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in (".csv", ".json"))
    named = [p for p in found if p.stem in ("landmarks", "keypoints", "points")] or found
    if len(named) > 1:
        raise ValueError(
            f"{path}: expected one landmark file, found {', '.join(p.name for p in named)}; say which with landmarks"
        )
    return _folder(path, named[0] if named else None)


def _folder(root: Path, file: Path | None) -> LandmarkSet:
    """A plain folder, whose images may lie in images/."""
    rows = {} if file is None else (_read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file))
    home = root / "images" if (root / "images").is_dir() else root
    try:
        files = {p.name: p for p in list_images(home)}
    except ValueError:
        files = {}
    stems = {p.stem: p for p in files.values()}
    chosen: dict[Path, _Row] = {}
    for name, row in rows.items():
        base = Path(name).name
        image = (
            files.get(base)
            or stems.get(base)
            or next((p for p in (root / name, home / name) if p.is_file()), None)
        )
        if image is None:
            raise ValueError(f"{file}: expected an image {name} in {home}, found none")
        chosen[image] = row
    everything = sorted(set(files.values()) | set(chosen))
    if not everything:
        raise ValueError(f"{root}: expected a folder of images, found none")
    counts = {len(row.points) for row in chosen.values()}
    if len(counts) > 1:
        raise ValueError(
            f"{file}: expected the same landmarks for all images, found {sorted(counts)} of them"
        )
    L = counts.pop() if counts else 0
    empty = _Row(torch.full((L, 2), math.nan), -1, None)
    return _set([(p, p.name, chosen.get(p, empty)) for p in everything])


class _Row(NamedTuple):
    points: Tensor
    identity: int
    box: Tensor | None


def _set(rows: Sequence[tuple[Path, str, _Row]]) -> LandmarkSet:
    none = torch.full((4,), math.nan)
    boxes = torch.stack([none if r.box is None else r.box for _, _, r in rows])
    return LandmarkSet(
        [p for p, _, _ in rows],
        tuple(name for _, name, _ in rows),
        torch.stack([r.points for _, _, r in rows]),
        torch.tensor([r.identity for _, _, r in rows], dtype=torch.int64),
        boxes if bool(torch.isfinite(boxes).any()) else None,
    )


def _read_csv(file: Path) -> dict[str, _Row]:
    lines = list(csv.reader(io.StringIO(read_text(file))))
    head = [x.strip().lower() for x in lines[0]] if lines else []
    first = next((i for i, x in enumerate(head) if x in ("x0", "x")), len(head))
    if not head or head[0] not in ("image", "name", "file") or (len(head) - first) % 2 or first == len(head):
        raise ValueError(
            f"{file}: expected a head line image, identity, x0, y0, x1, y1, ..., found {lines[:1]}"
        )
    who = head.index("identity") if "identity" in head else None
    out = {}
    for number, row in enumerate(lines[1:], 2):
        if not row:
            continue
        try:
            values = [float(x) if x.strip() else math.nan for x in row[first:]]
            out[row[0]] = _Row(
                torch.tensor(values).reshape(-1, 2), -1 if who is None else int(float(row[who] or -1)), None
            )
            if len(row) != len(head):
                raise ValueError
        except (ValueError, RuntimeError, IndexError) as err:
            raise ValueError(f"{file}, line {number}: expected {len(head)} columns of numbers") from err
    return out


def _read_json(file: Path) -> dict[str, _Row]:
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as err:
        raise ValueError(f"{file}: not valid JSON ({str(err)[:80]})") from err
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        content = content["images"]
    if isinstance(content, dict) and "image" in content:
        content = [content]
    if isinstance(content, dict):
        content = [{"image": k, "points": v} for k, v in content.items()]
    out = {}
    for entry in content if isinstance(content, list) else ():
        try:
            points = entry.get("points", entry.get("landmarks"))
            rows = [[math.nan if v is None else float(v) for v in (p or (None, None))][:2] for p in points]
            box = torch.tensor(entry["box"], dtype=torch.float32) if entry.get("box") else None
            out[str(entry["image"])] = _Row(
                torch.tensor(rows).reshape(-1, 2), int(entry.get("identity", -1)), box
            )
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as err:
            raise ValueError(
                f'{file}: expected {{"image": NAME, "points": [[x, y], ...]}} for each image, found {str(entry)[:60]}'
            ) from err
    if not out:
        raise ValueError(
            f'{file}: expected {{name: [[x, y], ...]}} or a list of {{"image", "points"}}, found neither'
        )
    return out


def _celeba(root: Path, split: str | None) -> LandmarkSet:
    """CelebA's aligned pictures; "train" is all but MAFL's test, as the papers have it, "test" MAFL's test."""
    folder = next((p for p in sorted((root / "Img").glob("img_align_celeba*")) if p.is_dir()), root / "Img")
    lines = read_text(root / "Anno/list_landmarks_align_celeba.txt").splitlines()
    rows = {parts[0]: parts[1:] for line in lines if len(parts := line.split()) == 11}
    test = {Path(x).stem for x in read_text(_first(root, "MAFL/testing.txt", "testing.txt")).split()}
    chosen = []
    for name, values in sorted(rows.items()):
        if split is not None and (Path(name).stem in test) != (split == "test"):
            continue
        image = next(
            (p for e in ("", ".jpg", ".png") if (p := folder / (Path(name).stem + e)).is_file()), None
        )
        image = folder / name if (folder / name).is_file() else image
        if image is None:
            continue  # three files of CelebA are missing in the published sets, too
        points = torch.tensor([float(v) for v in values]).reshape(5, 2) + 0.5
        chosen.append((image, name, _Row(points, -1, None)))
    return _known(chosen, root, "CelebA")


def _aflw(root: Path, split: str | None) -> LandmarkSet:
    """AFLW as the papers' code has it: lists of images, points (y, x) in .mat files."""
    from scipy.io import loadmat

    chosen = []
    for part in ("train", "test"):
        names = root / f"aflw_{part}_images.txt"
        if (split is not None and part != split) or not names.is_file():
            continue
        truth = torch.as_tensor(loadmat(root / f"aflw_{part}_keypoints.mat")["gt"]).float().flip(-1) + 0.5
        files = read_text(names).split()
        if len(files) != len(truth):
            raise ValueError(f"{names}: expected {len(truth)} names, one a row of gt, found {len(files)}")
        folder = next((p for p in (root / "output", root / "aflw_release-2/output") if p.is_dir()), root)
        chosen += [(folder / f, f, _Row(p, -1, None)) for f, p in zip(files, truth, strict=True)]
    return _known(chosen, root, "AFLW")


def _300w(root: Path, split: str | None) -> LandmarkSet:
    """300-W: pictures beside .pts files, whose pixels count from 1."""
    parts = {None: _TRAIN_300W + _TEST_300W, "train": _TRAIN_300W, "test": _TEST_300W}[split]
    chosen = []
    for part in parts:
        for file in sorted((root / part).glob("*.pts")):
            image = next((p for e in (".jpg", ".png") if (p := file.with_suffix(e)).is_file()), None)
            if image is None:
                raise ValueError(f"{file}: expected a .jpg or .png of that name beside it, found none")
            body = read_text(file).partition("{")[2].partition("}")[0].split()
            if len(body) != 136:
                raise ValueError(f"{file}: expected 68 points in braces, found {len(body) / 2:g}")
            points = torch.tensor([float(v) for v in body]).reshape(68, 2) - 0.5
            chosen.append((image, f"{part}/{image.name}", _Row(points, -1, None)))
    return _known(chosen, root, "300-W")


def _known(chosen: list[tuple[Path, str, _Row]], root: Path, layout: str) -> LandmarkSet:
    if not chosen:
        raise ValueError(f"{root}: expected images in the layout of {layout}, found none of this split")
    return _set(chosen)


def _first(root: Path, *names: str) -> Path:
    return next((root / n for n in names if (root / n).is_file()), root / names[0])
