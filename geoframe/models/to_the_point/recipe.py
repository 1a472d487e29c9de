"""How To The Point is trained: shape, head, losses with their weights, augmentation, schedule.

A recipe is a value. `PAPER` has the losses of the paper with the weights of its released code, which start from
nothing. `OURS` first explains every training picture by itself (`geoframe.fitting.collections`: pose, mean shape and
modes from keypoints or pose hypotheses, and masks), and the network learns where that puts the vertices.
`dataclasses.replace` makes others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_choice
from geoframe.data.object_crops import ObjectCrops
from geoframe.data.object_views import Augmentation, View, affine_by_chance, moved, recolored, warped
from geoframe.fitting.collections import CollectionLosses
from geoframe.losses.pictures import region_loss, texture_loss
from geoframe.losses.positions import (
    FORMS,
    cycle_loss,
    edge_consistency,
    equivariance_loss,
    flip_pose_loss,
    heat_loss,
    keypoint_loss,
    mask_distance,
    silhouette_consistency,
    silhouette_coverage,
    visibility_loss,
)
from geoframe.models.to_the_point.network import HEADS, Posed, as_images, flipped
from geoframe.render import image_texture, rasterize, soft_silhouette
from geoframe.solve.arap import Arap
from geoframe.solve.regularisers import laplacian_energy
from geoframe.surface.topology import edges
from geoframe.training import Schedule

_LOOKS = 4  # at each view that is kept, at least
_COST = 6  # steps by maps that are kept, of one in which the backbone is learned
_STEPS_A_MINUTE = 500  # of one core that others use, too
_AT_ONCE = 64  # crops that the backbone looks at before training


class Targets(NamedTuple):
    """Where the vertices of n training pictures are believed to be.

    Attributes:
        points: (n, H, V, 2) by each of H hypotheses.
        seen: (n, H, V) bool.
        belief: (n, H) of sum 1; 0 for pictures of which nothing is known.
    """

    points: Tensor
    seen: Tensor
    belief: Tensor


@dataclass(frozen=True)
class Losses:
    """The losses of a batch with their weights; what has weight 0 is not computed.

    Attributes:
        targets: distance of the positions from the targets (ours).
        heat: cross entropy of the control points' heat maps and the targets (ours).
        foreground: cross entropy of the head's mask (ours).
        keypoints: distance of the projected keypoints from annotated ones.
        region: difference of silhouette and mask.
        consistency: distance of positions outside of the mask from it.
        coverage: distance of the mask's pixels from the nearest position.
        cycle: of positions and projected shape.
        edges: of their lengths among positions and in the projected shape; not in the paper.
        visibility: of predicted visibility and z-buffer (or the targets', where there are any).
        equivariance: of positions in a transformed image.
        flip_pose: angle between the pose in the flipped image and the flipped pose.
        texture: difference of the picture painted with the image itself.
        arap: as-rigid-as-possible energy of the shapes.
        arap_modes: of each mode.
        size: mean squared deformation.
        smooth: bending of the deformation, and of the modes.
        form: "paper" or "code", where the two differ.
    """

    targets: float = 0.0
    heat: float = 0.0
    foreground: float = 0.0
    keypoints: float = 0.0
    region: float = 0.0
    consistency: float = 0.0
    coverage: float = 0.0
    cycle: float = 0.0
    edges: float = 0.0
    visibility: float = 0.0
    equivariance: float = 0.0
    flip_pose: float = 0.0
    texture: float = 0.0
    arap: float = 0.0
    arap_modes: float = 0.0
    size: float = 0.0
    smooth: float = 0.0
    form: str = "paper"

    def __post_init__(self) -> None:
        check_choice(self.form, FORMS, "form")

    @property
    def need_pose(self) -> bool:
        """Whether any of them looks at the solved pose."""
        names = ("keypoints", "region", "cycle", "edges", "texture", "arap", "arap_modes", "size", "smooth")
        return any(getattr(self, name) for name in names) or bool(self.visibility and not self.targets)

    @property
    def need_image(self) -> bool:
        """Whether any of them looks at the image, not only at what the network says of it."""
        return bool(self.texture or self.equivariance or self.flip_pose)


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        name: under which models and tables tell of it.
        backbone: see `geoframe.heads.backbone`.
        enlarged: how many times crops are enlarged for the backbone.
        views: crops changed by chance, evenly of all crops, of which a frozen backbone's maps are kept (45 kB each
            of crops of 64 pixels) and learned from; 0, or fewer than half of the crops, looks anew in every step.
        head: "control" is ours, "dense" the paper's.
        losses: with their weights.
        schedule: length of the training and learning rate.
        size: pixels of the crops.
        batch: crops a step.
        n_verts: of the template.
        n_modes: K; 0 is rigid.
        symmetric: share of the modes that are mirror-symmetric: 1 for things, which need no more than twelve modes;
            less for animals, which bend.
        fit: how each training picture is explained by itself before the network learns; None for not at all. Its
            `arap_modes` counts by the share of modes that are not symmetric.
        fit_epochs: of that.
        warmup: share of the run without deformation, where there are no targets.
        augmentation: of crops.
        tuned: share of the steps, the last ones, in which a frozen backbone is learned, too, at a quarter of the
            learning rate, the backbone at an eighth; 0 leaves it as it is. Such a step takes six times as long as one
            by maps that are kept, so of a run measured in minutes the share is larger.
        trunk: stride, in pixels of the crops, from which on it is learned.
        solver: arguments of `ToThePoint`.
        head_settings: arguments of `position_head`.
    """

    name: str
    backbone: str
    head: str
    losses: Losses
    schedule: Schedule
    size: int = 64
    enlarged: int = 1
    views: int = 0
    batch: int = 16
    n_verts: int = 500
    n_modes: int = 16
    symmetric: float = 0.5
    fit: CollectionLosses | None = None
    fit_epochs: int = 5
    warmup: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    tuned: float = 0.0
    trunk: int = 4
    solver: Mapping[str, Any] = field(default_factory=dict)
    head_settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(self.head, HEADS, "head")
        if not 0 <= self.tuned < 1:
            raise ValueError(f"tuned: expected a share in [0, 1), found {self.tuned}")

    def lasting(self, *, minutes: float | None = None, steps: int | None = None) -> Recipe:
        """The same recipe with another length, and no more views than are looked at four times in it."""
        schedule = self.schedule.lasting(steps=steps, minutes=minutes)
        n = min(steps or math.inf, _STEPS_A_MINUTE * (minutes or math.inf), self.views)
        views = min(self.views, math.ceil(n * self.batch / _LOOKS))
        return replace(self, schedule=schedule, views=views)

    def part(self, k: int, rounds: int) -> Recipe:
        """The recipe of one of several rounds, the last of which takes half of the time."""
        share = 1.0 if rounds == 1 else 0.5 if k == rounds - 1 else 0.5 / (rounds - 1)
        s = self.schedule
        return self.lasting(
            steps=None if s.steps is None else max(round(share * s.steps), 1),
            minutes=None if s.minutes is None else share * s.minutes,
        )

    def split(self) -> tuple[Recipe, Recipe | None]:
        """The part of a run in which a frozen backbone stays as it is, and that in which it is learned, if any."""
        s, share = self.schedule, self.tuned
        steps = None if s.steps is None else round(share * s.steps)
        minutes = None if s.minutes is None else s.minutes * _COST * share / (_COST * share + 1 - share)
        if not share or steps == 0:
            return self, None
        first = self.lasting(
            steps=None if steps is None or s.steps is None else max(s.steps - steps, 1),
            minutes=None if minutes is None or s.minutes is None else s.minutes - minutes,
        )
        rates = {"lr": s.lr / 4, "lr_factors": {"head.field.backbone": 0.5, **s.lr_factors}}
        schedule = replace(s.lasting(steps=steps, minutes=minutes), **rates)  # type: ignore[arg-type]
        return first, replace(self, schedule=schedule, views=0)


class BatchLosses:
    """The losses of a training on some crops.

    Args:
        recipe: losses, augmentation, warm-up.
        crops: all that are trained on; none with an empty mask.
        vertices: (L,) the template's vertex of each keypoint.
        targets: of the crops, or None.
    """

    def __init__(
        self, recipe: Recipe, crops: ObjectCrops, vertices: Tensor, targets: Targets | None = None
    ) -> None:
        self.recipe, self.crops, self.vertices, self.targets = recipe, crops, vertices, targets
        self.points = 2 * crops.points / crops.size - 1
        self.distance = mask_distance(crops.mask) if recipe.losses.consistency else None
        self.views: View | None = None
        self.kept: dict[str, Any] = {}

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars, weights included; their sum is minimised.

        Args:
            model: a `ToThePoint`, perhaps wrapped.
            batch: of `ObjectCrops.batches`, with "step", the number of the step, for the warm-up.
        """
        row = batch["row"].cpu()
        net: Any = getattr(model, "module", model)
        w = self.recipe.losses
        x = self._drawn(row, net)
        found = model(x["image"])
        parts: dict[str, Tensor] = {}
        if self.targets is not None:
            off = (found.points - x["points"]).square().sum(-1)
            parts["targets"] = w.targets * (x["sure"][:, None] * (off + 1e-6).sqrt()).mean()
            parts["visibility"] = w.visibility * visibility_loss(found.visibility, x["seen"], form="entropy")
            if w.heat and found.heat is not None:
                at = x["points"][:, net.head.controls]
                parts["heat"] = w.heat * heat_loss(found.heat, at, x["sure"])
        if w.foreground and found.mask is not None:
            small = F.adaptive_avg_pool2d(x["mask"][:, None], found.mask.shape[-2:])[:, 0]
            parts["foreground"] = w.foreground * F.binary_cross_entropy_with_logits(found.mask, small)
        if w.need_pose:
            total = self.recipe.schedule.steps or 1
            deform = "step" not in batch or int(batch["step"]) >= self.recipe.warmup * total
            parts |= self._of_pose(net, found, net.solve(found, deform=deform), x)
        if w.consistency:
            assert self.distance is not None
            distance = x["distance"] * (self.crops.size / 2 if w.form == "code" else 1.0)
            parts["consistency"] = w.consistency * silhouette_consistency(found.points, distance)
        if w.coverage:
            seed = int(torch.randint(2**31, ()))
            parts["coverage"] = w.coverage * silhouette_coverage(
                found.points, x["mask"] > 0.5, form=w.form, seed=seed
            )
        if w.equivariance or w.flip_pose:
            parts |= self._equivariance(model, net, found, x)
        return parts

    def batches(self, seed: int, epoch: int, rank: int, world: int) -> Iterator[dict[str, Tensor]]:
        """The crops of an epoch in batches, each with the number of its step; see `fit`."""
        crops, size = self.crops, self.recipe.batch
        drawn = crops.batches(size, seed=seed * 1_000_003 + epoch, rank=rank, world=world)
        first = epoch * max(len(crops) // size, 1)
        return (b | {"step": torch.tensor(first + i)} for i, b in enumerate(drawn))

    def _of_pose(self, net: Any, found: Any, posed: Posed, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of the solved poses."""
        w, S, parts = self.recipe.losses, self.crops.size, {}
        faces, flat = net.faces, posed.projected[..., :2]
        if w.keypoints:
            at = self.vertices.expand(len(flat), -1)
            at = torch.where(x["flip"][:, None], self._swapped(net).expand_as(at), at)
            placed = flat.gather(1, at[..., None].expand(-1, -1, 2))
            parts["keypoints"] = w.keypoints * keypoint_loss(placed, x["marks"], x["known"])
        if w.region:
            soft = soft_silhouette if w.form == "code" else None
            screen = posed.screen(S)
            alpha = soft(screen, faces, (S, S)) if soft else rasterize(screen, faces, (S, S)).alpha
            parts["region"] = w.region * region_loss(alpha, x["mask"], form=w.form)
        if w.cycle:
            mask = x["mask"] > 0.5 if w.form == "code" else None
            goal = flat.detach() if w.form == "code" else flat
            parts["cycle"] = w.cycle * cycle_loss(found.points, goal, mask)
        if w.edges:
            parts["edges"] = w.edges * edge_consistency(found.points, flat, self._edges(net))
        if w.visibility and self.targets is None:
            parts["visibility"] = w.visibility * visibility_loss(
                found.visibility, net.seen(posed, S), form=w.form
            )
        if w.texture:
            fragments = rasterize(posed.screen(S), faces, (S, S))
            pixels = (found.points + 1) * (S / 2)
            picture = image_texture(fragments, faces, pixels, x["image"])
            parts["texture"] = w.texture * texture_loss(picture, x["image"], x["mask"] * fragments.mask)
        return parts | self._of_shape(net, posed)

    def _of_shape(self, net: Any, posed: Posed) -> dict[str, Tensor]:
        """What keeps deformations plausible."""
        w, shape = self.recipe.losses, net.shape
        parts: dict[str, Tensor] = {}
        if not shape.n_modes:
            return parts
        rest, V = shape.verts, shape.verts.shape[0]
        if w.arap:
            parts["arap"] = w.arap * self._arap(net).energy(posed.verts).mean() / V
        if w.arap_modes:
            parts["arap_modes"] = w.arap_modes * self._arap(net).energy(rest + shape.basis()).mean() / V
        if w.size:
            parts["size"] = w.size * (posed.verts - rest).square().sum(-1).mean()
        if w.smooth:
            surface = net.template.surface
            bent = laplacian_energy(surface, (posed.verts - rest).to(surface.dtype)).mean()
            modes = laplacian_energy(surface, shape.basis().to(surface.dtype)).mean()
            parts["smooth"] = w.smooth * (bent + modes).to(posed.verts) / V
        return parts

    def _equivariance(self, model: Any, net: Any, found: Any, x: dict[str, Tensor]) -> dict[str, Tensor]:
        w, parts = self.recipe.losses, {}
        if w.equivariance:
            affine = affine_by_chance(len(x["image"]), Augmentation(turn=40.0, zoom=0.35, shift=0.15))
            there = model(warped(x["image"], affine)[0])
            parts["equivariance"] = w.equivariance * equivariance_loss(
                there.points, moved(found.points, affine), form=w.form
            )
        if w.flip_pose and net.template.is_symmetric:
            other = model(x["image"].flip(-1))
            here, there = (net.solve(f, deform=False).solution.R for f in (found, other))
            parts["flip_pose"] = w.flip_pose * flip_pose_loss(here, there, net.template.reflection)
            parts["flip_points"] = w.equivariance * equivariance_loss(
                other.points, flipped(found.points, net.template), form=w.form
            )
        return parts

    def keep_views(
        self, net: Any, n_views: int, *, progress: Callable[[str, float], None] | None = None
    ) -> None:
        """Change every crop by chance some times, once and for all, and keep what a frozen backbone says of them.

        Later steps take these maps in place of images: a step without the backbone costs a third.

        Args:
            net: a `ToThePoint`.
            n_views: at least so many, as many of each crop.
            progress: called with (text, share done).
        """
        parts = []
        n, field = len(self.crops), net.head.field
        rows = torch.arange(n).repeat(-(-n_views // n))
        with torch.no_grad():
            for part in rows.split(_AT_ONCE):
                view = self._changed(part, net)
                found = field.backbone(view.image)
                maps = [m.half() if i >= field.n_unused else m[:, :0].half() for i, m in enumerate(found)]
                none = view.image[
                    :, :0, :0, :0
                ].clone()  # not a part of the images, which would stay in memory
                parts.append(view._replace(image=none, mask=view.mask > 0.5, maps=maps))
                if progress is not None:
                    done = sum(len(v.flip) for v in parts)
                    progress(f"backbone, {done} of {len(rows)} views", done / len(rows))
        self.views = View.joined(parts)

    def _changed(self, row: Tensor, net: Any) -> View:
        """Crops changed by chance."""
        a, c = self.recipe.augmentation, self.crops
        n = len(row)
        flip = (torch.rand(n) < a.flip) & net.template.is_symmetric
        affine = affine_by_chance(n, a)
        image, mask = as_images(c.image[row]), c.mask[row].float()
        extra = [] if self.distance is None else [self.distance[row]]
        stack = torch.cat([image, torch.stack([mask, *extra], 1)], 1)
        stack = torch.where(flip[:, None, None, None], stack.flip(-1), stack)
        stack, inside = warped(stack, affine)
        mask = (stack[:, 3] * inside > 0.5).float()
        return View(flip, affine, recolored(stack[:, :3], a.color), mask, stack[:, 4] if extra else None, [])

    def _drawn(self, row: Tensor, net: Any) -> dict[str, Any]:
        """Crops, changed by chance, or what is kept of such, with all that is known of them."""
        if self.views is None:
            view = self._changed(row, net)
        else:
            n = len(self.crops)
            versions = len(self.views.flip) // n
            view = self.views.take(row + n * torch.randint(versions, row.shape))
        flip, affine, template = view.flip, view.affine, net.template
        out = {"mask": view.mask.float(), "flip": flip}
        if view.distance is not None:
            out["distance"] = view.distance
        side = torch.where(flip[:, None, None], affine.new_tensor([-1.0, 1.0]), affine.new_ones(2))
        out["known"] = self.crops.visible[row].float()
        out["marks"] = moved(torch.nan_to_num(self.points[row]) * side, affine)
        if self.targets is not None:
            belief = self.targets.belief[row]
            sure = belief.sum(1) > 0
            pick = torch.multinomial(belief + 1e-12 * (~sure)[:, None], 1)[:, 0]
            points, seen = self.targets.points[row, pick], self.targets.seen[row, pick]
            both = torch.where(flip[:, None, None], flipped(points, template), points)
            mirrored = template.mirrored(seen[..., None].float())[..., 0] > 0.5
            out |= {"points": moved(both, affine), "sure": sure.float()}
            out["seen"] = torch.where(flip[:, None], mirrored, seen)
        kind = next(p for p in net.parameters() if p.is_floating_point())

        def like(x: Tensor) -> Tensor:
            return x.to(kind) if x.is_floating_point() else x.to(kind.device)

        there: dict[str, Any] = {k: like(x) for k, x in out.items()}
        there["image"] = [like(x) for x in view.maps] if view.maps else like(view.image)
        return there

    def _swapped(self, net: Any) -> Tensor:
        """(L,) the vertex of each keypoint's counterpart, which a flipped image shows in its place."""
        if "swap" not in self.kept:
            x = net.template.surface.verts.double()
            at = x[self.vertices] @ net.template.reflection
            self.kept["swap"] = torch.cdist(at, x).argmin(1)
        found: Tensor = self.kept["swap"]
        return found

    def _edges(self, net: Any) -> Tensor:
        if "edges" not in self.kept:
            self.kept["edges"] = torch.from_numpy(edges(net.faces.numpy()).verts)
        found: Tensor = self.kept["edges"]
        return found

    def _arap(self, net: Any) -> Arap:
        if "arap" not in self.kept:
            surface = net.template.surface
            self.kept["arap"] = Arap(surface.with_verts(surface.verts.to(net.shape.verts)))
        found: Arap = self.kept["arap"]
        return found


OURS = Recipe(
    name="geoframe",
    backbone="efficientnet-lite0",
    enlarged=2,
    views=8000,
    n_modes=24,
    symmetric=0.4,
    head="control",
    head_settings={"sharpness": 2.0},  # .003 of IoU and .008 of surface for horses, nothing for cars
    losses=Losses(targets=1.0, heat=0.3, visibility=0.1, foreground=0.3),
    schedule=Schedule(
        steps=8000, lr=2e-3, warmup=100, decay="cosine", floor=1e-5, weight_decay=0.02, clip=1.0
    ),
    fit=CollectionLosses(points=100.0, prior=0.01, arap=2.0, arap_modes=60.0),
    fit_epochs=3,
    solver={"steps": 8},  # further solves go on from there: as good as 32 from the start each time
)
PAPER = Recipe(
    name="paper",
    backbone="small",
    head="dense",
    losses=Losses(
        keypoints=30.0,
        region=2.0,
        consistency=1.0,
        coverage=3.0,
        cycle=3.0,
        visibility=1.0,
        equivariance=1.0,
        flip_pose=0.1,
        texture=1.0,
        arap=3.0,
        arap_modes=0.1,
        size=5.0,
        smooth=1.0,
    ),
    schedule=Schedule(
        steps=6000, lr=1e-3, warmup=100, decay="cosine", floor=1e-5, clip=1.0, lr_factors={"shape": 3.0}
    ),
    batch=8,
    warmup=0.5,
    solver={"scale": "std", "hidden": 0.0, "ridge": None},
)
TUNED = 0.25  # of the steps of OURS, where a backbone knows the category
KNOWN_MODES = 64  # of OURS for animals whose shapes are the zoo's: horses have IoU .790 with 24, .800 with 64
THINGS_BEND: dict[str, Any] = {"n_modes": 12, "symmetric": 1.0}  # of OURS for what has no joints
CODE = replace(PAPER, name="code", losses=replace(PAPER.losses, form="code", edges=3.0))
RECIPES = {recipe.name: recipe for recipe in (OURS, PAPER, CODE)}
