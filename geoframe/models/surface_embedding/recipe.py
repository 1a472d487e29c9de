"""How surface embeddings are trained: network, losses with their weights, batches, schedule.

A recipe is a value. `PAPER` has the losses, sizes and temperatures of the published one, `OURS` is what
`geoframe embed train` uses for renders by default, and `FROZEN` leaves the pretrained backbone as it is: for few
pictures without a model to go on from. `dataclasses.replace` makes others.

Source: PAPER is Neverova et al. 2020, with the released code's weights; its detector (boxes come in) and its schedule
    of 130,000 steps on many GPUs are not a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe._precision import usual_precision
from geoframe._random import seeded
from geoframe.canonical import GeodesicRows
from geoframe.canonical.surface import Surface
from geoframe.data.pixel_samples import PixelSamples
from geoframe.data.zoo_surfaces import mirror_of
from geoframe.heads.backbone import LITE0, OWN, Backbone, backbone
from geoframe.heads.fields import FieldHead
from geoframe.layers.vertex_embedding import SharedEmbedding, VertexEmbedding
from geoframe.losses.embeddings import (
    TARGETS,
    geodesic_cross_entropy,
    mask_loss,
    pixel_cycle_loss,
    shape_cycle_loss,
    vertex_cross_entropy,
)
from geoframe.models.surface_embedding.network import (
    Embedded,
    SurfaceEmbedding,
    at_points,
    on_functions,
    smooth_start,
)
from geoframe.surface import farthest_points
from geoframe.training import Pictures, Schedule, fit
from geoframe.zoo import species

if TYPE_CHECKING:
    from geoframe.models.surface_embedding.predictor import Predictor

KINDS = ("plain", *TARGETS)


@dataclass(frozen=True)
class Losses:
    """The losses of a batch with their weights; what has weight 0 is not computed.

    Attributes:
        vertex: cross entropy over the vertices at annotated pixels.
        mask: of the foreground.
        shape_cycle: from surface to surface and back, of two random surfaces a step.
        pixel_cycle: from pixels to the surface and back.
        target: "plain", or how targets are spread over neighbours: "squared", "first_power", "first_power_code".
        temperature: of the inner product.
        sigma: width of the targets, in sqrt(area); see `geodesic_cross_entropy`.
        overlap: weight of the soft overlap inside the mask's loss.
        columns: over how many vertices the softmax goes, spread evenly; None for all. Targets are those of the true
            vertex, so fewer columns make the loss coarser in its answers only.
    """

    vertex: float = 1.0
    mask: float = 1.0
    shape_cycle: float = 0.0
    pixel_cycle: float = 0.0
    target: str = "squared"
    temperature: float = 0.05
    sigma: float = 0.05
    overlap: float = 0.0
    columns: int | None = None

    def __post_init__(self) -> None:
        check_choice(self.target, KINDS, "target")


class BatchLosses:
    """The losses of a training on some surfaces: geodesic rows and columns are made once.

    Args:
        losses: weights and forms.
        surfaces: in the order of the network's tables.
        head: the field's stride and size come from it.
        annotated: for each surface the vertices that occur in the data: whose geodesic rows are needed.
    """

    def __init__(
        self, losses: Losses, surfaces: Sequence[Surface], head: nn.Module, annotated: Sequence[Tensor]
    ) -> None:
        self.losses, self.head = losses, head
        self.columns = [_columns(s, losses.columns) for s in surfaces]
        self.distances: list[Tensor] = []
        self.row_of: list[Tensor] = []
        self.nearest: list[Tensor] = []
        self.among: list[Tensor] = []
        for surface, at, columns in zip(surfaces, annotated, self.columns, strict=True):
            # distances are symmetric: the rows of the columns hold those to every annotated vertex
            if losses.target == "plain" and losses.columns is None and not losses.shape_cycle:
                self.distances.append(torch.zeros(0, len(columns)))
                self.nearest.append(torch.arange(surface.n_verts))
                self.row_of.append(torch.arange(surface.n_verts))
                continue
            rows = GeodesicRows(surface)
            if losses.shape_cycle:
                self.among.append(rows.rows(columns)[:, columns])
            if len(columns) <= len(at):
                found = rows.rows(columns)[:, at].T.contiguous()
            else:
                found = rows.rows(at)[:, columns]
            row_of = torch.zeros(surface.n_verts, dtype=torch.int64)
            row_of[at] = torch.arange(len(at))
            self.distances.append(found)
            self.row_of.append(row_of)
            nearest = torch.zeros(surface.n_verts, dtype=torch.int64)
            nearest[at] = found.argmin(1)
            self.nearest.append(nearest)

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars, weights included; their sum is minimised.

        Args:
            model: gives `Embedded`.
            batch: of `PixelSamples.batches`.
        """
        if "image" in batch:
            found: Embedded = model(batch["image"])
        else:
            found = model([batch[f"map{i}"] for i in range(sum(k.startswith("map") for k in batch))])
        parts: dict[str, Tensor] = {}
        w = self.losses
        stride = self.head.stride
        assert isinstance(stride, int)
        x = at_points(found.embedding.float(), batch["points"], stride)
        if w.vertex:
            parts["vertex"] = w.vertex * self._vertex(x, found.tables, batch)
        if w.mask:
            parts["mask"] = w.mask * self._mask(found, batch)
        if w.pixel_cycle:
            parts["pixel_cycle"] = w.pixel_cycle * self._pixel_cycle(x, found.tables, batch)
        if w.shape_cycle and len(found.tables) > 1:
            parts["shape_cycle"] = w.shape_cycle * self._shape_cycle(found.tables)
        return parts

    def _vertex(self, x: Tensor, tables: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        w = self.losses
        total, count = x.sum() * 0 + sum(t.sum() for t in tables) * 0, 0
        for i, table in enumerate(tables):
            mine = (batch["surface"] == i)[:, None] & (batch["vertex"] >= 0)
            n = int(mine.sum())
            if not n:
                continue
            vertex, pixels = batch["vertex"][mine], x[mine]
            columns = self.columns[i].to(x.device)
            part, answer = table[columns], self.nearest[i].to(x.device)[vertex]
            if w.target == "plain":
                loss = vertex_cross_entropy(pixels, part, answer, temperature=w.temperature)
            else:
                loss = geodesic_cross_entropy(
                    *(pixels, part, answer, self.distances[i].to(x.device)),
                    self.row_of[i].to(x.device)[vertex],
                    temperature=w.temperature,
                    sigma=w.sigma,
                    target=w.target,
                )
            total = total + n * loss
            count += n
        return total / max(count, 1)

    def _mask(self, found: Embedded, batch: Mapping[str, Tensor]) -> Tensor:
        known = batch["masked"]
        if not bool(known.any()):
            return found.mask.sum() * 0
        size = batch["mask"].shape[-2:]
        h, w = found.mask.shape[-2:]
        stride = self.head.stride
        assert isinstance(stride, int)
        logits = nn.functional.interpolate(
            found.mask[known][:, None].float(),
            size=(h * stride, w * stride),
            mode="bilinear",
            align_corners=False,
        )[:, 0, : size[0], : size[1]]
        return mask_loss(logits, batch["mask"][known], overlap=self.losses.overlap)

    def _pixel_cycle(self, x: Tensor, tables: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for i in range(len(x)):
            at = batch["vertex"][i] >= 0
            place = batch["points"][i][at] / batch["mask"].shape[-1]
            surface = int(batch["surface"][i])
            table = tables[surface][self.columns[surface].to(x.device)]
            terms.append(pixel_cycle_loss(x[i][at], place, table))
        return torch.stack(terms).mean()

    def _shape_cycle(self, tables: Sequence[Tensor]) -> Tensor:
        a, b = torch.randperm(len(tables))[:2].tolist()
        return shape_cycle_loss(
            *(tables[i][self.columns[i].to(tables[i].device)] for i in (a, b)),
            *(self.among[i].to(tables[i].device) for i in (a, b)),
        )


def _columns(surface: Surface, count: int | None) -> Tensor:
    if count is None or count >= surface.n_verts:
        return torch.arange(surface.n_verts)
    return farthest_points(surface.verts.detach().double().cpu(), count, start=0)


@dataclass(frozen=True)
class BatchPlan:
    """What a step sees.

    Attributes:
        size: pictures a step, of all devices together.
        n_points: annotated pixels of a picture that the losses look at.
        mirror: whether half of the pictures are mirrored, where their surface has a mirror plane.
        motion: how far pictures are turned, scaled and shifted, see `geoframe.data.pixel_samples.random_moves`.
        scales: the pictures of a step are of one of these sizes by chance, in parts of their own; empty: as they are.
            Sides are rounded to multiples of the backbone's largest stride.
    """

    size: int = 32
    n_points: int = 96
    mirror: bool = False
    motion: float = 0.0
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_int(self.size, "size", low=1)
        check_int(self.n_points, "n_points", low=1)
        if not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales: expected numbers in (0, 1], found {self.scales}")


@dataclass(frozen=True)
class Recipe:
    """One way to train surface embeddings.

    Attributes:
        name: under which models and tables tell of it.
        backbone: see `geoframe.heads.backbone`.
        dim: D, numbers of an embedding.
        functions: M, eigenfunctions of a surface that its embedding is made of; None for a free table.
        losses: with their weights.
        batches: what a step sees.
        schedule: length of the training and learning rate.
        image_size: longer side of the pictures that the network sees in use, in pixels.
        picture_size: sides of the pictures that are rendered to learn from; None: `image_size`.
        head: arguments of `geoframe.heads.FieldHead`: width, stride.
        style: see `SurfaceEmbedding`.
        trunk: stride from which on a pretrained backbone is learned, too; None: it stays as it is, its maps of the
            pictures are computed once, and pictures are neither mirrored nor moved.
        trunk_rate: factor of the learning rate of a pretrained backbone.
        pictures: how many are rendered where nothing else is said.
        precision: see `geoframe.training.fit`; "auto" is bfloat16 for learned backbones that are quick in it, on
            processors that have it, and float32 else.
    """

    name: str
    backbone: str
    dim: int
    functions: int | None
    losses: Losses
    batches: BatchPlan
    schedule: Schedule
    image_size: int = 128
    picture_size: int | None = None
    head: Mapping[str, Any] = field(default_factory=dict)
    style: float = 0.0
    trunk: int | None = None
    trunk_rate: float = 0.3
    pictures: int = 3000
    precision: str = "auto"

    def lasting(self, *, minutes: float | None = None, steps: int | None = None) -> Recipe:
        """The same recipe with another length."""
        return replace(self, schedule=self.schedule.lasting(steps=steps, minutes=minutes))

    def computed_in(self, accelerator: str) -> str:
        """The precision on an accelerator, "auto" resolved.

        Args:
            accelerator: see `geoframe.training.fit`.
        """
        if self.precision != "auto":
            return self.precision
        quick = self.backbone in OWN or (self.backbone == LITE0 and self.trunk is not None)
        return usual_precision(accelerator) if quick else "32-true"


def build(recipe: Recipe, surfaces: Mapping[str, Surface], *, seed: int = 0) -> SurfaceEmbedding:
    """The network of a recipe with weights at random, for some surfaces.

    Args:
        recipe: backbone, dimension, functions, head.
        surfaces: by name.
        seed: of the weights.
    """
    with seeded(seed):
        head = FieldHead(_trunk(recipe), recipe.dim, **recipe.head)
        tables = {
            name: VertexEmbedding(surface, recipe.dim, functions=recipe.functions, seed=seed + i)
            for i, (name, surface) in enumerate(surfaces.items())
        }
        for table in tables.values():
            smooth_start(table)
    return SurfaceEmbedding(head, SharedEmbedding(tables), style=recipe.style)


def _trunk(recipe: Recipe) -> Backbone:
    """The backbone of a recipe, with the weights that are to be learned marked as such."""
    if recipe.trunk is None or recipe.backbone in OWN:
        return backbone(recipe.backbone)
    return backbone(recipe.backbone, trainable=True).learn_from(recipe.trunk)


def _of_parts(x: Tensor, old: int, new: int) -> Tensor:
    """Weights of a last convolution (C old^2, ...) for parts (C new^2, ...): each has the mean of the old parts."""
    mean = x.unflatten(0, (-1, old**2)).mean(1)
    return mean.repeat_interleave(new**2, dim=0)


def take_over(model: SurfaceEmbedding, start: Predictor, matches: Mapping[str, Tensor | None]) -> None:
    """Start a network from a trained one: its head, what its confidence was fitted to, and E' = T E for the surfaces.

    The fields may be of another stride, where the levels are the same, and a backbone may be learned from here on that
    was frozen there.

    Args:
        model: changed in place.
        start: the trained one.
        matches: see `train`; None for a surface whose embedding is to start at random.

    Raises:
        ValueError: settings that differ.
    """
    mine, theirs = model.head, start.model.head
    told = [
        f"backbone {head.backbone.name}, dim {head.dim}, width {head.settings['width']} and levels down to stride "
        f"{head.level_strides[-1]}"
        for head in (mine, theirs)
    ]
    if told[0] != told[1]:
        raise ValueError(f"start: expected a model with {told[0]}, found one with {told[1]}")
    if mine.backbone.frozen and not theirs.backbone.frozen:
        raise ValueError(
            "start: expected a model whose backbone is frozen, as here, found one that was learned; take the recipe "
            "'geoframe', or begin anew"
        )
    state = theirs.state_dict()
    if mine.fine != theirs.fine:
        for name in ("out.weight", "out.bias"):
            state[name] = _of_parts(state[name], theirs.fine, mine.fine)
    missing = mine.load_state_dict(state, strict=False).missing_keys
    assert all(name.startswith("backbone.") for name in missing)  # pretrained weights, as the start's are
    model.calibration.load_state_dict(start.model.calibration.state_dict())
    model.upright.load_state_dict(start.model.upright.state_dict())
    for name in model.surfaces.names:
        embedding = model.surfaces[name]
        if name in matches:
            p2p_21 = matches[name]
            if p2p_21 is None:
                continue
            table = start.with_surface(name, embedding.surface, p2p_21).target(name).table
        elif name in start.names or (name in species() and set(start.names) & set(species())):
            table = start.target(name).table
        else:
            continue
        embedding.weight.data.copy_(on_functions(embedding, table))


def train_network(
    model: SurfaceEmbedding,
    samples: PixelSamples,
    *,
    out: str | Path,
    recipe: Recipe,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    run: Mapping[str, Any] | None = None,
    progress: Callable[[str, float], None] | None = None,
    pictures: Pictures | None = None,
) -> list[dict[str, float]]:
    """Minimise the losses of a recipe over samples; see `geoframe.training.fit` for what is not told here.

    Args:
        model: trained in place.
        samples: with maps, where the backbone is frozen and each picture is seen more than once.
        out: folder for state and logs.
        recipe: losses, batches, schedule.
        seed: of batches.
        accelerator: see `fit`.
        devices: see `fit`.
        run: see `fit`.
        progress: see `fit`.
        pictures: see `fit`.
    """
    surfaces = [e.surface for e in model.surfaces.values()]
    annotated = []
    for i in range(len(surfaces)):
        vertex = samples.vertex[samples.surface == i]
        annotated.append(torch.unique(vertex[vertex >= 0]))
    losses = BatchLosses(recipe.losses, surfaces, model.head, annotated)
    plan, schedule = recipe.batches, recipe.schedule
    trunk = model.head.backbone
    if not trunk.frozen and trunk.name not in OWN:
        schedule = replace(schedule, lr_factors={"head.backbone": recipe.trunk_rate, **schedule.lr_factors})
    mirrored = plan.mirror and not samples.maps
    mirrors = [mirror_of(n, model.surfaces[n].surface) for n in model.surfaces.names] if mirrored else []
    sides = _sides(plan, samples.size, max(trunk.strides))

    def batches(epoch: int, rank: int, world: int) -> Any:
        return samples.batches(
            plan.size,
            plan.n_points,
            seed=seed * 1_000_003 + epoch,
            rank=rank,
            world=world,
            mirrors=mirrors,
            motion=plan.motion,
            sides=sides,
        )

    return fit(
        model,
        batches,
        losses,
        out=out,
        schedule=schedule,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        precision=recipe.computed_in(accelerator),
        run={**(run or {}), "precision": recipe.computed_in(accelerator)},
        progress=progress,
        pictures=pictures,
    )


def _sides(plan: BatchPlan, size: int, unit: int) -> tuple[int, ...]:
    """The sides that pictures of `size` pixels get, multiples of `unit`."""
    return tuple(min(max(round(scale * size / unit), 1) * unit, size) for scale in plan.scales)


OURS = Recipe(
    name="geoframe",
    backbone="efficientnet-lite0",
    dim=16,
    functions=128,
    losses=Losses(temperature=0.05, sigma=0.05, overlap=0.5, columns=640),
    batches=BatchPlan(size=32, n_points=80, mirror=True, motion=0.15, scales=(0.75, 1.0)),
    schedule=Schedule(
        minutes=20, lr=2e-3, warmup=50, decay="cosine", floor=2e-5, weight_decay=0.02, clip=1.0
    ),
    image_size=112,
    picture_size=128,
    head={"width": 128, "stride": 2, "fine": 2},
    style=0.2,
    trunk=8,
    pictures=12_000,
)
FROZEN = replace(
    OURS,
    name="frozen",
    batches=BatchPlan(size=32, n_points=80),
    schedule=replace(OURS.schedule, lr=3e-3),
    image_size=128,
    head={},
    style=0.5,
    trunk=None,
    pictures=3000,
)
PAPER = Recipe(
    name="paper",
    backbone="efficientnet-lite0",
    dim=16,
    functions=256,
    losses=Losses(vertex=0.6, mask=5.0, target="first_power_code", temperature=0.005, sigma=0.01),
    batches=BatchPlan(size=16, n_points=96),
    schedule=Schedule(minutes=20, lr=1e-3, warmup=50, decay="cosine", floor=1e-5, clip=1.0),
    precision="32-true",  # at its temperature eight bits are most of a logit
)
RECIPES = {recipe.name: recipe for recipe in (OURS, FROZEN, PAPER)}
