"""The zoo as pictures, with what is true of every pixel: on the fly, the same by seed.

A picture depends on the seed of the set and on its own number only, not on the batch it is made in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe._templates import template
from geoframe._threads import together
from geoframe._types import Array, Floats, Ints
from geoframe.camera import Pinhole
from geoframe.canonical.surface import Surface
from geoframe.data._pictures import Draws, Picture, Shot, draw_shot, look, pair, picture, who_is_in
from geoframe.data._shots import View
from geoframe.zoo import species
from geoframe.zoo.poses import pose_names
from geoframe.zoo.rig import rig
from geoframe.zoo.things import THINGS, thing_mesh


class RenderedBatch(NamedTuple):
    """B pictures of S x S pixels and what is true of them.

    Attributes:
        image: (B, 3, S, S) float32 in [0, 1].
        mask: (B, S, S) bool, where the object itself is seen: occluders and riders are not it.
        face: (B, S, S) int64, face of the category's surface at the pixel's centre, -1 outside of the mask, and where
            the surface of a rigid category has no counterpart of what is seen, such as the arms of a chair.
        barycentric: (B, S, S, 3) float32 weights of the face's corners; 0 where no face is.
        vertex: (B, S, S) int64, the nearest vertex: the corner of largest weight; -1 where no face is.
        category: (B,) int64 into the categories of the set.
        landmarks: (B, L, 2) float32 pixels; NaN beyond those of a category with fewer than L, and for
            what an object lacks.
        visible: (B, L) bool, whether a landmark is in the picture and not hidden.
        camera: B pinholes.
        verts: (B, V, 3) float32 world points of the surface's vertices, NaN for those that an object
            lacks; a list of (V_i, 3) where the surfaces differ.
        index: (B,) int64 numbers of the pictures in their set.
    """

    image: Tensor
    mask: Tensor
    face: Tensor
    barycentric: Tensor
    vertex: Tensor
    category: Tensor
    landmarks: Tensor
    visible: Tensor
    camera: Pinhole
    verts: Tensor | list[Tensor]
    index: Tensor  # type: ignore[assignment]  # a tuple's own `index` is of no use here


class RenderedPair(NamedTuple):
    """B pairs of pictures of one individual each, in two poses, seen by two cameras.

    Attributes:
        first: the first pictures, with their truth.
        second: the second ones.
        flow: (B, 2, S, S) float32 pixels, from each pixel's centre in the first picture to where the same point of the
            object, or of the background, is in the second one; 0 where it is not known.
        known: (B, S, S) bool, where the flow is known: everywhere but on riders and what stands in front.
        seen: (B, S, S) bool, where it is known and the point is in the second picture and not hidden there.
    """

    first: RenderedBatch
    second: RenderedBatch
    flow: Tensor
    known: Tensor
    seen: Tensor


class RenderedSet(Draws):
    """Pictures that are made when they are asked for; see `render_set`."""

    def __len__(self) -> int:
        """Number of pictures."""
        return self.n

    def surfaces(self) -> list[Surface]:
        """The surface of each category, which faces and vertices refer to."""
        return [template_surface(self.surface or c, n_verts=self.n_verts) for c in self.categories]

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> RenderedBatch:
        """The pictures of some numbers.

        Args:
            index: one number or B of them, from 0 to n - 1.

        Raises:
            IndexError: a number out of range.
        """
        return _rendered(self, numbers_of(self.n, index))

    def pairs(self, index: int | Sequence[int] | Tensor, *, motion: float = 1.0) -> RenderedPair:
        """Two pictures of each of some individuals, and how every pixel moves between them.

        The first picture differs from ``self[index]`` in its background only. Light and background are the same in
        both; the background turns and shifts.

        Args:
            index: one number or B of them, from 0 to n - 1.
            motion: how far pose, camera and background go from the first ones to new ones: 1 for unrelated ones, 0
                for none; .05 to .3 for neighbouring frames of a video.

        Raises:
            IndexError: a number out of range.
            ValueError: a negative `motion`.
        """
        if not motion >= 0:
            raise ValueError(f"motion: expected 0 or more, found {motion}")
        return _paired(self, numbers_of(self.n, index), float(motion))

    def batches(self, batch: int = 32, *, start: int = 0) -> Iterator[RenderedBatch]:
        """All pictures in their order, `batch` at a time; as many batches are made at once as torch has threads.

        Args:
            batch: B, the last one can be smaller.
            start: number of the first picture.

        Raises:
            ValueError: a batch of none.
        """
        check_int(batch, "batch", low=1)
        once = batch * torch.get_num_threads()
        for first in range(start, self.n, once):
            last = min(first + once, self.n)
            parts = [range(a, min(a + batch, last)) for a in range(first, last, batch)]
            yield from together(*(partial(self.__getitem__, part) for part in parts))


def render_set(
    category: str | Sequence[str],
    n: int,
    *,
    size: int = 128,
    seed: int = 0,
    surface: str | None = None,
    n_verts: int | None = None,
    pose: str | None = None,
    photos: str | Path | None = None,
    augmentation: float = 1.0,
) -> RenderedSet:
    """A set of pictures of the zoo with exact truth.

    Identity, pose, coat, light, background, camera, occluders, blur, noise and JPEG are drawn for each picture.

    Args:
        category: one or several; each picture shows one of them.
        n: number of pictures.
        size: pixels, S x S.
        seed: other seeds give other pictures.
        surface: a species; all animals are then drawn on the triangulation of its surface, so that one surface serves
            them all. None: each on its own.
        n_verts: vertices of the surfaces, about; None for those that geoframe comes with (about 5,000).
        pose: name of a pose for all, see `geoframe.zoo.pose_names`; None draws it.
        photos: a folder of photographs for backgrounds.
        augmentation: strength of blur, noise, colours and JPEG; 0 for clean pictures.

    Raises:
        ValueError: unknown names, numbers out of range, a folder without pictures.
    """
    names = (category,) if isinstance(category, str) else tuple(category)
    if not names:
        raise ValueError("category: expected at least one, found none")
    for name in names:
        check_choice(name, categories(), "category")
    if surface is not None:
        check_choice(surface, tuple(species()), "surface")
    check_int(n, "n", low=1)
    check_int(size, "size", low=16, high=1024)
    check_int(seed, "seed", low=0)
    if augmentation < 0:
        raise ValueError(f"augmentation: expected 0 or more, found {augmentation}")
    things = [name for name in names if name in THINGS]
    for given, what in ((surface, "surface"), (pose, "pose")):
        if given is not None and things:
            raise ValueError(f"{what}: expected none with {things[0]!r}, as it is for animals; leave it out")
    for name in names if pose is not None else ():
        check_choice(pose, pose_names(name), "pose")
    pictures = () if photos is None else _read_photos(Path(photos))
    return RenderedSet(names, n, size, seed, n_verts, surface, pose, pictures, augmentation)


def categories() -> tuple[str, ...]:
    """Names of what can be rendered: animals, then rigid categories and heads."""
    return (*species(), *THINGS)


@lru_cache(maxsize=64)
def template_surface(category: str, *, n_verts: int | None = None) -> Surface:
    """The surface that the faces and vertices of a category's pictures refer to; the same object at every call.

    Args:
        category: one of `categories()`.
        n_verts: as in `render_set`.

    Raises:
        ValueError: unknown category.
    """
    check_choice(category, categories(), "category")
    if category in THINGS:
        made = thing_mesh(category, None, n_verts)
        return Surface(torch.as_tensor(made.verts), torch.as_tensor(made.faces), landmarks=made.landmarks)
    r = rig(category, n_verts=n_verts)
    verts = template(category).verts if n_verts is None else torch.as_tensor(r.at_rest(r.cage)[0])
    return Surface(verts, torch.as_tensor(r.faces), landmarks=r.landmarks)


def numbers_of(n: int, index: int | Sequence[int] | Tensor) -> list[int]:
    """Some numbers as a list.

    Raises:
        IndexError: none, or one that is not among 0 to n - 1.
    """
    numbers: list[int] = np.atleast_1d(np.asarray(index, dtype=np.int64)).ravel().tolist()
    if not numbers or not (min(numbers) >= 0 and max(numbers) < n):
        raise IndexError(f"index: expected numbers from 0 to {n - 1}, found {numbers}")
    return numbers


def _rendered(s: RenderedSet, numbers: list[int]) -> RenderedBatch:
    shots = [draw_shot(s, i, who_is_in(s, i)) for i in numbers]
    return _batch(s, numbers, shots, [picture(s, shot, look(s, shot)) for shot in shots])


def _paired(s: RenderedSet, numbers: list[int], motion: float) -> RenderedPair:
    pairs = [pair(s, i, motion) for i in numbers]
    first = _batch(s, numbers, [x.shots[0] for x in pairs], [x.pictures[0] for x in pairs])
    second = _batch(s, numbers, [x.shots[1] for x in pairs], [x.pictures[1] for x in pairs])
    flow, known, seen = (
        torch.from_numpy(np.stack(x)) for x in zip(*((x.flow, x.known, x.seen) for x in pairs), strict=True)
    )
    return RenderedPair(first, second, flow.movedim(-1, 1).contiguous(), known, seen)


def _batch(s: RenderedSet, numbers: list[int], shots: list[Shot], pictures: list[Picture]) -> RenderedBatch:
    most = max(len(shot.subject.marks) for shot in shots)
    marks, visible = np.full((len(shots), most, 2), np.nan, np.float32), np.zeros((len(shots), most), bool)
    for b, (shot, made) in enumerate(zip(shots, pictures, strict=True)):
        at = shot.subject.marks
        marks[b, : len(at)] = np.where(at[:, None] >= 0, shot.screen[at, :2], np.nan)
        visible[b, : len(at)] = made.visible
    face = np.stack([x.face for x in pictures])
    bary = np.stack([x.bary for x in pictures])
    vertex = np.stack([_nearest_vertex(*x) for x in zip(shots, face, bary, strict=True)])
    verts = [torch.from_numpy(np.float32(x.subject.surface_verts)) for x in shots]
    image = torch.stack([x.image for x in pictures])
    mask = torch.from_numpy(np.stack([x.own[0] >= 0 for x in pictures]))
    return RenderedBatch(
        image,
        mask,
        torch.from_numpy(face),
        torch.from_numpy(bary),
        torch.from_numpy(vertex),
        torch.tensor([x.category for x in shots]),
        torch.from_numpy(marks),
        torch.from_numpy(visible),
        _camera([x.view for x in shots], s.size),
        verts if s.surface is None and len({x.category for x in shots}) > 1 else torch.stack(verts),
        torch.tensor(numbers),
    )


def _nearest_vertex(shot: Shot, face: Ints, bary: Floats) -> Ints:
    """(S, S) corner of largest weight, -1 where no face is."""
    out: Ints = np.full(face.shape, -1)
    mask = face >= 0
    out[mask] = shot.subject.surface_faces[face[mask], bary[mask].argmax(-1)]
    return out


def _camera(views: list[View], size: int) -> Pinhole:
    def table(values: list[Floats]) -> Tensor:
        return torch.from_numpy(np.stack(values)).float()

    return Pinhole(
        table([v.R_wc for v in views]),
        table([v.t for v in views]),
        table([np.full(2, v.focal) for v in views]),
        table([v.principal for v in views]),
        (size, size),
    )


def _read_photos(folder: Path) -> tuple[Array, ...]:
    """All pictures of a folder, those larger than 512 pixels reduced."""
    from PIL import Image

    if not folder.is_dir():
        raise ValueError(f"photos: expected a folder of pictures, found {folder}")
    out = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"):
            with Image.open(path) as picture:
                picture.thumbnail((512, 512))
                out.append(np.asarray(picture.convert("RGB")))
    if not out:
        raise ValueError(f"photos: expected pictures (JPEG, PNG, WebP, BMP) in {folder}, found none")
    return tuple(out)
