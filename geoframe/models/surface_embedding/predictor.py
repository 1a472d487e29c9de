"""Surface embeddings in use: train on rendered or annotated pictures, predict pixel maps, compare images.

predictor = load()                                            # the one that geoframe comes with
found = predictor.predict(read_image("horse.jpg"), category="horse")[0]      # a PixelMap
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from geoframe._cache import cache_key
from geoframe._check import check_choice, check_float, check_shape
from geoframe.canonical import Surface, load_surface
from geoframe.data.crops import resized
from geoframe.data.pixel_samples import PixelSamples, crop_box
from geoframe.data.zoo_surfaces import is_zoo, mirror_of, zoo_correspondence, zoo_surface
from geoframe.heads.backbone import backbone
from geoframe.heads.fields import FieldHead
from geoframe.heads.masks import foreground, with_colors, with_edges
from geoframe.heads.upright import Glimpse, some_pixels
from geoframe.heads.zoo_maps import ANIMALS, SHIPPED, model_folder
from geoframe.layers.vertex_embedding import SharedEmbedding, VertexEmbedding
from geoframe.models.surface_embedding.evaluate import calibrate, parted
from geoframe.models.surface_embedding.network import (
    Embedded,
    Evidence,
    Halved,
    Look,
    SurfaceEmbedding,
    Target,
    Verdict,
    at_points,
    closer_crops,
    mean_of,
    mirror_rotation,
    upright,
    within,
)
from geoframe.models.surface_embedding.recipe import OURS, Recipe, build, take_over, train_network
from geoframe.nearest.embedded import nearest_vertices, posterior_confidence, unit_rows
from geoframe.pixels import PixelMap
from geoframe.training import Pictures, load_model, save_model
from geoframe.zoo import species

KIND = "surface embedding"
Box = Tensor | Sequence[float] | None
_FINEST = 512  # pixels of the longer side of a crop at which vertices are looked for
_MOST_EMBEDDED = 2**20  # pixels of an image, up to which their embeddings are kept: 64 bytes each
_FINER = 1.25  # of `image_size`: how finely, the second time
_COARSER = 0.83  # the third time
_BLOCK = 2**18  # probabilities held at a time: as many as stay in the cache


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with what belongs to it.

    Attributes:
        model: in evaluation mode.
        image_size: longer side of the crops that the network sees, in pixels.
        temperature: of the inner product.
        about: how it was trained: recipe, backbone, seed, minutes, pictures, data (a digest), and that of its start.
        more: other surfaces in the space, by name; see `with_surface`.
    """

    model: SurfaceEmbedding
    image_size: int = 128
    temperature: float = 0.05
    about: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Target] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Surfaces that the network was trained on, and those added since."""
        return (*self.model.surfaces.names, *self.more)

    @cached_property
    def _targets(self) -> dict[str, Target]:
        return {}

    @cached_property
    def _others(self) -> dict[str, Predictor]:
        return {}

    def target(self, category: str | None = None) -> Target:
        """A surface with its embedding.

        Args:
            category: one of `names`; or a species of the zoo where the network was trained on one, whose exact
                correspondence gives the embedding. None is the first of `names`.

        Raises:
            ValueError: an unknown name.
        """
        name = self.names[0] if category is None else category
        if name in self.more:
            return self.more[name]
        if self.of(name) is not self:
            return self.of(name).target(name)
        if name not in self._targets:
            self._targets[name] = self._target(name)
        return self._targets[name]

    def _target(self, name: str) -> Target:
        anchor = next((n for n in self.model.surfaces.names if n in species()), None)
        with torch.no_grad():
            if name in self.model.surfaces.names:
                embedding = self.model.surfaces[name]
                surface, table = embedding.surface, embedding().detach()
            else:
                known = self.names + tuple(sorted(set(species()) - set(self.names)) if anchor else ())
                check_choice(name, known, "category")
                assert anchor is not None
                surface = zoo_surface(name)
                table = self.model.surfaces[anchor]().detach()[zoo_correspondence(anchor, name)]
        return self._symmetric(surface, table, mirror_of(name, surface))

    def _symmetric(self, surface: Surface, table: Tensor, mirror: Tensor | None) -> Target:
        """A target whose table is exactly what the mean of image and mirror image aims at."""
        if mirror is not None and self.mirror is not None:
            table = unit_rows(table + table[mirror] @ self.mirror)
        return Target(surface, table, mirror)

    def with_surface(
        self, name: str, surface: Surface, p2p_21: Tensor, source: str | None = None
    ) -> Predictor:
        """The same predictor with one more surface in its space, which nothing is trained for: E' = T E.

        Args:
            name: of the surface.
            surface: the user's.
            p2p_21: (V,) for each of its vertices the corresponding vertex of the surface `source`.
            source: one of `names`, or a species of the zoo; None is the first of `names`.

        Raises:
            ValueError: a map of another size, vertices out of range.
        """
        old = self.target(source)
        n, shape = old.surface.n_verts, (surface.n_verts,)
        if p2p_21.shape != shape or int(p2p_21.max()) >= n or int(p2p_21.min()) < 0:
            raise ValueError(
                f"p2p_21: expected for each of the {surface.n_verts} vertices one of the {n} of the source, "
                f"found {tuple(p2p_21.shape)} up to {int(p2p_21.max())}"
            )
        target = self._symmetric(surface, old.table[p2p_21.long()], mirror_of(name, surface))
        return replace(self, more={**self.more, name: target})

    @cached_property
    def mirror(self) -> Tensor | None:
        """(D, D) rotation that takes the embedding of each vertex to that of its mirror image; None without symmetry.

        It is that of the first surface, see `of`; there is one as each eigenfunction is even or odd.
        """
        name = self.model.surfaces.names[0]
        mirror = mirror_of(name, self.model.surfaces[name].surface)
        return None if mirror is None else mirror_rotation(self.model.surfaces[name](), mirror)

    def of(self, category: str | None) -> Predictor:
        """The same predictor with a surface that it was trained on before the others, so that `mirror` is its own.

        Args:
            category: see `target`; one that it was not trained on, and None, change nothing.
        """
        if category is None or category not in self.model.surfaces.names[1:]:
            return self
        if category not in self._others:
            self._others[category] = replace(self, model=self.model.first(category))
        return self._others[category]

    def predict(
        self,
        images: Tensor | Sequence[Tensor],
        boxes: Sequence[Tensor | Sequence[float] | None] | None = None,
        *,
        category: str | None = None,
        flip: bool = True,
        turn: bool = True,
    ) -> list[PixelMap]:
        """Pixel maps of images, one after the other, each for itself.

        Args:
            images: (3, H, W) in [0, 1], one or several of any sizes.
            boxes: (4,) x0, y0, x1, y1 of the object in each; or None: then it is looked for in the whole image, and
                looked at again from closer by.
            category: the surface; see `target`.
            flip: look at the mirror image too and take the mean, which is better and tells how sure the sides are;
                twice the time.
            turn: look at an image that is not upright for certain turned by 90, 180 and 270 degrees, too; `turned` of
                a map tells what was taken.

        Returns:
            Maps of the images' sizes, with calibrated confidence. Of images of up to a million pixels also the
            embedding (H, W, D) of each foreground pixel, whose length is how far image and mirror image agree.

        Raises:
            TypeError, ValueError: images or boxes of another shape, a box all outside its image, an unknown category.
        """
        several = [images] if isinstance(images, Tensor) and images.ndim == 3 else list(images)
        places = [None] * len(several) if boxes is None else list(boxes)
        if len(places) != len(several):
            raise ValueError(f"boxes: expected one for each of {len(several)} images, found {len(places)}")
        own, every = self.of(category), zip(several, places, strict=True)
        return [own._predict_one(x, box, own.target(category), flip, turn) for x, box in every]

    def _predict_one(self, image: Tensor, box: Box, target: Target, flip: bool, turn: bool) -> PixelMap:
        check_shape(check_float(image, "images"), "3 H W", "images")
        H, W = image.shape[-2:]
        (x0, y0, x1, y1), found = self.looks(image, box, flip=flip, turn=turn)[-1]
        size = (y1 - y0, x1 - x0)
        shrink = min(1.0, _FINEST / max(size))
        coarse = (max(round(size[0] * shrink), 1), max(round(size[1] * shrink), 1))
        logits, mask = self.masked(found, image[:, y0:y1, x0:x1], coarse)
        vertex, confidence = torch.full(coarse, -1), torch.zeros(coarse)
        embedding = torch.zeros(*coarse, self.model.dim)
        if bool(mask.any()):
            rows, cols = torch.nonzero(mask, as_tuple=True)
            h, w = found.mask.shape
            points = torch.stack([(cols + 0.5) * (w / coarse[1]), (rows + 0.5) * (h / coarse[0])], -1)
            x = at_points(found.embedding[None], points[None].float(), 1)[0]
            vertex[mask] = nearest_vertices(x, target.table)
            confidence[mask] = self.model.calibration(self.evidence(x, logits[mask], target, flip))
            embedding[mask] = x
        fields = [vertex, mask, confidence, embedding][: 4 if H * W <= _MOST_EMBEDDED else 3]
        vertex, mask, confidence, *kept = within(fields, (x0, y0, x1, y1), (H, W))
        last = next(iter(kept), None)
        return PixelMap(target.surface, vertex, mask, confidence, embedding=last, turned=found.turned)

    def looks(self, image: Tensor, box: Box = None, *, flip: bool = True, turn: bool = True) -> list[Look]:
        """What is said of an image after a first look, and after two more.

        The first look is at the box, or at the whole image. The second one is finer, and without a box also closer,
        at what the first one found; the third is coarser: what is far apart in the image then comes together. Of all
        that looked at a pixel the mean is taken, but the mask is that of the first two.

        Args:
            image: (3, H, W) in [0, 1].
            box: (4,) of the object, or None to look for it.
            flip: see `fields`.
            turn: see `predict`; where an image has to be turned to be upright, all looks are at the image turned.

        Returns:
            Two crops (x0, y0, x1, y1) of the image, in whole pixels, and fields that cover them: of the first look,
            and of all.
        """
        H, W = image.shape[1:]

        def look(crop: tuple[int, int, int, int], size: float, turned: int) -> Look:
            x0, y0, x1, y1 = crop
            pixels = round(size * self.image_size)
            return crop, self.fields(image[:, y0:y1, x0:x1], flip=flip, size=pixels, turned=turned)

        wide = closer = around = crop_box(box, (H, W))
        first = look(wide, 1.0, 0)
        if turn:
            seen = partial(self.glimpse, flip=flip)
            first = upright(first, lambda degrees: look(wide, 1.0, degrees), self.model.upright, seen)
        turned = first[1].turned or 0
        mask = foreground(first[1].mask)
        if box is None and bool(mask.any()):
            closer, around = closer_crops(mask, (H, W))
        several = [look(around, _COARSER, turned), first, look(closer, _FINER, turned)]
        found = mean_of(several, coarse=1)
        return [first, (closer, found._replace(turned=first[1].turned))]

    def glimpse(self, found: Embedded, *, flip: bool = True) -> Glimpse | None:
        """Some foreground pixels of what `fields` said of a crop; None where there are next to none."""
        some = some_pixels(found.embedding, found.mask, found.turned or 0)
        if some is None:
            return None
        x, logits, place = some
        evidence = self.evidence(x, logits, self.target(), flip)
        return Glimpse(x, logits, self.model.calibration(evidence), place)

    @torch.no_grad()
    def fields(
        self, crop: Tensor, *, flip: bool = True, size: int | None = None, turned: int = 0
    ) -> Embedded:
        """What the network says of one crop.

        Args:
            crop: (3, H, W) in [0, 1], of any size.
            flip: take the mean with the mirror image.
            size: longer side, in pixels, that it is brought to; None is `image_size`.
            turned: degrees, a multiple of 90, by which it is turned counterclockwise to be looked at.

        Returns:
            embedding (D, h, w) of length at most 1 and mask (h, w), of a grid that covers the crop; no tables.
        """
        stride = self.model.head.stride
        H, W = crop.shape[-2:]
        unit = (size or self.image_size) / max(H, W) / stride
        h, w = max(round(H * unit), 2), max(round(W * unit), 2)
        quarters = turned // 90
        x = resized(crop, (h * stride, w * stride)).clamp(0, 1)[None].rot90(quarters, (2, 3))
        S = self.mirror if flip else None
        field = self.model.head(x if S is None else torch.cat([x, x.flip(-1)]))
        h, w = (w, h) if quarters % 2 else (h, w)
        E = nn.functional.normalize(field.embedding[..., :h, :w].float(), dim=1)
        mask = field.mask[..., :h, :w].float()
        embedding, logits = E[0], mask[0]
        if S is not None:
            embedding = (embedding + torch.einsum("dhw,de->ehw", E[1].flip(-1), S)) / 2
            logits = (logits + mask[1].flip(-1)) / 2
        return Embedded(embedding.rot90(-quarters, (1, 2)), logits.rot90(-quarters, (0, 1)), (), turned)

    def masked(self, found: Embedded, crop: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Logits (h, w) of the foreground of a crop (3, H, W), with what its colours say, and the mask at its edges."""
        soft = found.mask[None, None]
        logits = nn.functional.interpolate(soft, size, mode="bilinear", align_corners=False)[0, 0]
        picture = resized(crop, size).clamp(0, 1)
        logits = with_colors(logits, picture)
        return logits, foreground(with_edges(logits, picture, max(found.mask.shape)))

    def evidence(self, x: Tensor, mask: Tensor, target: Target, flip: bool = True) -> Evidence:
        """What speaks for the answers at pixels.

        Args:
            x: (N, D) embeddings, as `fields` gives them.
            mask: (N,) logits.
            target: the surface.
            flip: whether the mirror image was looked at.
        """
        part = target.table[target.chosen]
        answer = (unit_rows(x) @ part.T).argmax(1)
        near = posterior_confidence(
            x, part, temperature=self.temperature, vertex=answer, kernel=target.kernel, block=_BLOCK
        )
        agreement = x.norm(dim=1).clamp(0, 1) if flip and self.mirror is not None else torch.ones(len(x))
        return Evidence(near, agreement, mask)

    def verdict(self, found: PixelMap) -> Verdict:
        """Whether a map that `predict` made is to be believed.

        Args:
            found: with its embedding.
        """
        return self.model.calibration.verdict(found, sided=self.mirror is not None)

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write model.safetensors, model.json, and surfaces that are not of the zoo as folders beside them.

        Args:
            folder: made if need be.
            half: weights in float16, half the size.
        """
        folder = Path(folder)
        own = {}
        for name in self.names:
            target = self.target(name)
            own[name] = not is_zoo(name, target.surface)
            if own[name]:
                target.surface.save(folder / "surfaces" / name)
        tables = {
            n: VertexEmbedding(self.target(n).surface, self.model.dim, functions=None) for n in self.names
        }
        for name, table in tables.items():
            table.weight.data.copy_(self.target(name).table)
        model = SurfaceEmbedding(self.model.head, SharedEmbedding(tables))
        model.calibration, model.upright = self.model.calibration, self.model.upright
        weights = Halved(model) if half else model
        about = {
            "surfaces": own,
            "backbone": self.model.head.backbone.name,
            "backbone_digest": self.model.head.backbone.digest() if self.model.head.backbone.frozen else "",
            "dim": self.model.dim,
            "head": self.model.head.settings,
            "image_size": self.image_size,
            "temperature": self.temperature,
            "about": self.about,
        }
        save_model(folder, weights, about, kind=KIND)


def load(folder: str | Path | None = None) -> Predictor:
    """Read what `Predictor.save` or `train` wrote.

    Args:
        folder: the model; "animals" (or None) and "things", where no folder is called so, come with geoframe.

    Raises:
        ImportError: the package of the backbone is missing.
        ValueError: nothing there, files of something else, weights that do not fit, another backbone.
    """
    folder = model_folder(folder or SHIPPED[ANIMALS])

    def described(about: dict[str, Any]) -> SurfaceEmbedding:
        tables = {
            name: VertexEmbedding(
                load_surface(folder / "surfaces" / name) if own else zoo_surface(name),
                about["dim"],
                functions=None,
            )
            for name, own in about["surfaces"].items()
        }
        frozen = bool(about["backbone_digest"])
        net = backbone(about["backbone"], trainable=not frozen)
        if about["backbone_digest"] and net.digest() != about["backbone_digest"]:
            raise ValueError(f"trained with other weights of {about['backbone']}")
        return SurfaceEmbedding(FieldHead(net, about["dim"], **about["head"]), SharedEmbedding(tables))

    model, about = load_model(folder, described, kind=KIND)
    return Predictor(model, about["image_size"], about["temperature"], about["about"])


def train(
    samples: PixelSamples,
    surfaces: Mapping[str, Surface],
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    start: Predictor | None = None,
    matches: Mapping[str, Tensor | None] | None = None,
    aside: PixelSamples | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
    look: Callable[[Predictor, Mapping[str, float]], None] | None = None,
) -> Predictor:
    """Learn to map pixels to surfaces; a run that was killed goes on.

    Args:
        samples: pictures with points on the surfaces.
        surfaces: in the order of ``samples.names``.
        out: folder for model, state and logs.
        recipe: network, losses, batches and schedule.
        start: a predictor whose head and embeddings are gone on from, at half the learning rate.
        matches: for surfaces that `start` does not know, by name, for each vertex the corresponding one of the first
            surface of `start`. A surface with neither starts at random.
        aside: to calibrate the confidence on; fewer than 30 leave that of `start`. By default the last twentieth
            of 200 samples and more (300 at most): have crops of images that are learned from not be among these.
        seed: of initial weights and batches.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done) after every step.
        look: called about once a minute with the model as it is and {"epoch", "step", "seconds"}.

    Raises:
        ValueError: surfaces or samples that do not belong together, settings of `start` that differ, anything that
            `fit` complains about.
    """
    if tuple(surfaces) != samples.names:
        raise ValueError(
            f"surfaces: expected {', '.join(samples.names)} as the samples have, found {', '.join(surfaces)}"
        )
    if aside is not None and aside.names != samples.names:
        raise ValueError(
            f"aside: expected surfaces {', '.join(samples.names)}, found {', '.join(aside.names)}"
        )
    model = build(recipe, surfaces, seed=seed)
    if start is not None:
        take_over(model, start, matches or {})
        recipe = replace(recipe, schedule=replace(recipe.schedule, lr=recipe.schedule.lr / 2))
    mine, held = parted(samples) if aside is None else (samples, aside)
    if model.head.backbone.frozen:
        mine = mine.with_maps(model.head.backbone, skip=model.head.n_unused)
    about = {
        "recipe": recipe.name,
        "dim": recipe.dim,
        "functions": recipe.functions,
        "precision": recipe.computed_in(accelerator),
        "losses": asdict(recipe.losses),
        "pictures": len(samples),
        "seed": seed,
        "data": cache_key(samples.image, samples.vertex, samples.points),
        "start": None if start is None else str(start.about.get("data", "")),
    }

    def described(model: SurfaceEmbedding) -> Predictor:
        return Predictor(model, recipe.image_size, recipe.losses.temperature, about)

    def drawn(model: nn.Module, told: Mapping[str, float]) -> None:
        assert look is not None
        look(described(cast(SurfaceEmbedding, model)), told)

    history = train_network(
        model,
        mine,
        out=out,
        recipe=recipe,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        run=about,
        progress=progress,
        pictures=None if look is None else Pictures(drawn, epochs=None, minutes=1.0),
    )
    about |= {"steps": int(history[-1]["step"]), "minutes": sum(r["seconds"] for r in history) / 60}
    predictor = described(model)
    calibrate(predictor, held)
    predictor.save(out)
    return predictor
