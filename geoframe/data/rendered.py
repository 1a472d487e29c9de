"""The zoo as pictures, with what is true of every pixel: on the fly, the same by seed.

A picture depends on the seed of the set and on its own number only, not on the batch it is made in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe._templates import template
from geoframe._types import Array, Floats, Ints
from geoframe.camera import Pinhole
from geoframe.canonical.surface import Surface
from geoframe.data._backgrounds import background
from geoframe.data._occluders import ball_faces, occluder
from geoframe.data._shots import Subject, View, box, draw_animal, draw_lamp, draw_view, extra_verts
from geoframe.data.augment import augment
from geoframe.render import rasterize
from geoframe.zoo import species
from geoframe.zoo.poses import pose_names
from geoframe.zoo.rig import rig


class RenderedBatch(NamedTuple):
    """B pictures of S x S pixels and what is true of them.

    Attributes:
        image: (B, 3, S, S) float32 in [0, 1].
        mask: (B, S, S) bool, where the object itself is seen: occluders and riders are not it.
        face: (B, S, S) int64, face of the category's surface at the pixel's centre, -1 outside of the mask.
        barycentric: (B, S, S, 3) float32 weights of the face's corners; 0 outside of the mask.
        vertex: (B, S, S) int64, the nearest vertex: the corner of largest weight; -1 outside of the mask.
        category: (B,) int64 into the categories of the set.
        landmarks: (B, L, 2) float32 pixels; NaN beyond those of a category with fewer than L.
        visible: (B, L) bool, whether a landmark is in the picture and not hidden.
        camera: B pinholes.
        verts: (B, V, 3) float32 world points of the surface's vertices; a list of (V_i, 3) where the surfaces differ.
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
    index: Tensor


@dataclass(frozen=True, eq=False)
class RenderedSet:
    """Pictures that are made when they are asked for; see `render_set`.

    Attributes:
        categories: names.
        n: number of pictures.
        size: S.
        seed: of the set.
        n_verts: of the surfaces, None for those that geoframe comes with.
        surface: the species on whose surface all animals are told, or None for their own ones.
        pose: name of a pose that all have, or None.
        photos: (h, w, 3) uint8 each, for backgrounds.
        augmentation: strength of what cameras and files do to pictures.
    """

    categories: tuple[str, ...]
    n: int
    size: int = 128
    seed: int = 0
    n_verts: int | None = None
    surface: str | None = None
    pose: str | None = None
    photos: tuple[Array, ...] = ()
    augmentation: float = 1.0

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
        numbers = np.atleast_1d(np.asarray(index, dtype=np.int64)).ravel().tolist()
        if numbers and not (min(numbers) >= 0 and max(numbers) < self.n):
            raise IndexError(f"index: expected numbers from 0 to {self.n - 1}, found {numbers}")
        return _rendered(self, numbers)

    def batches(self, batch: int = 32, *, start: int = 0) -> Iterator[RenderedBatch]:
        """All pictures in their order, `batch` at a time.

        Args:
            batch: B, the last one can be smaller.
            start: number of the first picture.

        Raises:
            ValueError: a batch of none.
        """
        check_int(batch, "batch", low=1)
        for first in range(start, self.n, batch):
            yield self[range(first, min(first + batch, self.n))]


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
    for name in names if pose is not None else ():
        check_choice(pose, pose_names(name), "pose")
    pictures = () if photos is None else _read_photos(Path(photos))
    return RenderedSet(names, n, size, seed, n_verts, surface, pose, pictures, augmentation)


def categories() -> tuple[str, ...]:
    """Names of what can be rendered."""
    return tuple(species())


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
    r = rig(category, n_verts=n_verts)
    verts = template(category).verts if n_verts is None else torch.as_tensor(r.at_rest(r.cage)[0])
    return Surface(verts, torch.as_tensor(r.faces), landmarks=r.landmarks)


@dataclass(frozen=True, eq=False)
class _Shot:
    """One picture's draws, before it is rasterized."""

    category: int
    subject: Subject
    view: View
    screen: Floats
    faces: Ints
    landmarks: Ints
    rng: np.random.Generator


def _rendered(s: RenderedSet, numbers: list[int]) -> RenderedBatch:
    shots = [_shot(s, i) for i in numbers]
    seen = [_seen(s, shot) for shot in shots]
    most = max(len(shot.landmarks) for shot in shots)
    marks, visible = np.full((len(shots), most, 2), np.nan, np.float32), np.zeros((len(shots), most), bool)
    parts = []
    for b, (shot, (face, bary, depth)) in enumerate(zip(shots, seen, strict=True)):
        image, true_face, true_bary, hidden = _picture(s, shot, face, bary)
        parts.append((image, true_face, true_bary))
        L = len(shot.landmarks)
        at = shot.screen[shot.landmarks]
        marks[b, :L] = at[:, :2]
        visible[b, :L] = _landmarks_seen(shot, at, face, bary, depth, hidden)
    image, face, bary = (torch.from_numpy(np.stack(x)) for x in zip(*parts, strict=True))
    mask = face >= 0
    corner = bary.argmax(-1)
    vertex = torch.stack(
        [
            torch.as_tensor(x.faces)[f.clamp_min(0)].gather(-1, c[..., None])[..., 0]
            for x, f, c in zip(shots, face, corner, strict=True)
        ]
    )
    verts = [torch.from_numpy(x.subject.verts.astype(np.float32)) for x in shots]
    return RenderedBatch(
        *(image.movedim(-1, 1).contiguous(), mask, face, bary, torch.where(mask, vertex, -1)),
        *(torch.tensor([x.category for x in shots]), torch.from_numpy(marks), torch.from_numpy(visible)),
        *(_camera([x.view for x in shots], s.size), torch.stack(verts) if _same(shots) else verts),
        torch.tensor(numbers),
    )


def _same(shots: list[_Shot]) -> bool:
    return all(x.faces is shots[0].faces for x in shots)


def _shot(s: RenderedSet, number: int) -> _Shot:
    rng = np.random.default_rng([s.seed, number])
    category = int(rng.integers(len(s.categories)))
    name = s.categories[category]
    on = s.surface or name
    subject = draw_animal(name, on, s.n_verts, rng, s.pose)
    view = draw_view(subject.verts, s.size, rng)
    r = rig(on, n_verts=s.n_verts)
    return _Shot(category, subject, view, view.project(subject.verts), r.faces, _marks(on, s.n_verts), rng)


@lru_cache(maxsize=64)
def _marks(on: str, n_verts: int | None) -> Ints:
    return np.array(list(rig(on, n_verts=n_verts).landmarks.values()))


def _seen(s: RenderedSet, shot: _Shot) -> tuple[Array, Array, Array]:
    """Faces, weights and depths (2 S + 1, 2 S + 1) at pixel centres and half way between them."""
    screen, faces = shot.screen, shot.faces
    if shot.subject.rider is not None:
        screen = np.concatenate([screen, shot.view.project(shot.subject.rider[0])])
        faces = np.concatenate([faces, ball_faces(len(shot.screen))])
    fine = screen.copy()
    fine[:, :2] = 2 * fine[:, :2] + 0.5
    n = 2 * s.size + 1
    found = rasterize(torch.from_numpy(fine), torch.from_numpy(faces), (n, n), perspective=True)
    return found.face_id.numpy(), found.barycentric.float().numpy(), found.depth.numpy()


def _picture(
    s: RenderedSet, shot: _Shot, face: Array, bary: Array
) -> tuple[Floats, Ints, Floats, Array | None]:
    """Image (S, S, 3), true face (S, S) and weights (S, S, 3), and the opacity of occluders (S, S) or None."""
    from geoframe.data._light import light_samples, mean_samples

    sub, rng, F = shot.subject, shot.rng, len(shot.faces)
    lamp = draw_lamp(shot.view, rng)
    colors, normals, place, open_, faces, tint = (
        sub.colors,
        sub.normals,
        sub.place,
        sub.open_,
        shot.faces,
        sub.tint,
    )
    if sub.rider is not None:
        n = extra_verts()
        normals = np.concatenate([normals, sub.rider[1]])
        colors = np.concatenate([colors, sub.rider[2]])
        place, open_ = np.concatenate([place, np.zeros((n, 3))]), np.concatenate([open_, np.ones(n)])
        faces = np.concatenate([faces, ball_faces(len(shot.screen))])
        tint = np.concatenate([tint, np.ones((len(faces) - F, 3))])
    grain_scale, grain_size = rng.uniform((20, 60), (60, 200)), abs(rng.normal(0, (0.06, 0.08)))
    samples = np.empty((*face.shape, 4), np.float32)
    light_samples(
        *(face, bary, faces, tint, colors, normals, place, open_, F),
        *(_grain(), grain_scale, grain_size, lamp, samples),
    )
    out = np.empty((s.size, s.size, 4), np.float32)
    mean_samples(samples, out)
    behind = background(rng, s.size, shot.view.horizon, s.photos)
    behind = behind * _shadow(shot, lamp, s.size)[..., None]
    image = out[..., :3] + (1 - out[..., 3:]) * behind
    true_face, true_bary = face[1::2, 1::2].copy(), bary[1::2, 1::2].copy()
    front = occluder(rng, s.size, float(box(shot.screen)[1, 1]))
    hidden = None
    if front is not None:
        color, alpha = front
        image = image + alpha[..., None] * (color - image)
        hidden = alpha
        true_face[alpha > 0.5] = -1
    true_face[true_face >= F] = -1
    true_bary[true_face < 0] = 0
    if s.augmentation:
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
        image = augment(tensor, seed=rng, strength=s.augmentation).numpy().transpose(1, 2, 0)
    return np.clip(image, 0, 1).astype(np.float32), true_face, true_bary, hidden


@lru_cache(maxsize=1)
def _grain() -> Floats:
    """(32, 32, 32) noise."""
    return np.random.default_rng(3).normal(size=(32, 32, 32)).clip(-2, 2).astype(np.float32)


def _shadow(shot: _Shot, lamp: Floats, size: int) -> Floats:
    """(S, S) what the object leaves of the light on the ground."""
    from geoframe.data._loops import shadow

    sun, view = lamp[0] / max(lamp[0, 1], 0.35), shot.view
    out = np.ones((size, size), np.float32)
    where = (view.R_wc, view.t, view.focal, *view.principal, max(1, size // 32))
    verts, dense = shot.subject.verts, (size / 64) ** 2 * 5000 / len(shot.subject.verts)
    shadow(verts, sun[0], sun[2], *where, np.array([0.5 * min(1.0, lamp[1, 0]), dense]), out)
    shadow(verts, 0.0, 0.0, *where, np.array([0.35, dense]), out)
    return out


def _landmarks_seen(
    shot: _Shot, at: Floats, face: Array, bary: Array, depth: Array, hidden: Array | None
) -> Array:
    """(L,) whether the landmarks at (L, 3) are in the picture, by the buffer of depths, and before all occluders."""
    size = (len(face) - 1) // 2
    x, y = at[:, 0], at[:, 1]
    inside = (x >= 0) & (y >= 0) & (x < size) & (y < size)
    col = np.clip(np.round(2 * x), 0, 2 * size).astype(np.int64)
    row = np.clip(np.round(2 * y), 0, 2 * size).astype(np.int64)
    f, z = face[row, col], depth[row, col]
    F = len(shot.faces)
    own = (shot.faces[np.clip(f, 0, F - 1)] == shot.landmarks[:, None]).any(1) & (f >= 0) & (f < F)
    slack = 0.01 * np.ptp(box(shot.screen)[:, 2])
    towards = shot.view.R_wc.T @ np.array([0, 0, 1.0])
    faced = shot.subject.normals[shot.landmarks] @ towards < 0.1
    out = inside & np.where(f < 0, faced, own | (at[:, 2] <= z + slack))
    if hidden is not None:
        out &= (
            hidden[np.clip(y, 0, size - 1).astype(np.int64), np.clip(x, 0, size - 1).astype(np.int64)] <= 0.5
        )
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
