"""Reconstruction in use: train on crops, then turn one photograph and a mask or box into a posed, textured mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from geoframe._check import check_float, check_shape
from geoframe._precision import usual_precision
from geoframe._random import seeded
from geoframe.canonical import load_surface
from geoframe.data.crops import Crop
from geoframe.data.object_crops import ObjectCrops, crop_object, usable
from geoframe.data.object_templates import ObjectTemplate
from geoframe.data.pixel_samples import crop_box
from geoframe.fitting.collections import Collection, on_screen
from geoframe.fitting.explained import Explained, believed, explain
from geoframe.heads.backbone import LITE0
from geoframe.heads.zoo_maps import SHIPPED
from geoframe.layers.shape_modes import ShapeModes
from geoframe.models.to_the_point.evaluate import FEWEST, UNCALIBRATED, reconstructed, settle
from geoframe.models.to_the_point.network import (
    Posed,
    ToThePoint,
    as_images,
    features,
    position_head,
    shape_model,
    unfrozen,
)
from geoframe.models.to_the_point.recipe import OURS, BatchLosses, Recipe, Targets, View
from geoframe.pixels import PixelMap
from geoframe.render import rasterize, sample_image
from geoframe.surface.mesh import Mesh
from geoframe.training import Pictures, fit, load_model, save_model
from geoframe.transforms import rotation_angle

KIND = "to the point"
_EVERY = 15  # which crop is set aside
_SURE = 10.0  # logit of a mask that is given
_FAR = 45.0  # degrees: a second pose that far away is another answer
_ROUNDS = 3  # of learning from hypotheses and believing some of them more


class Reconstruction(NamedTuple):
    """An object in an image, in three dimensions.

    Attributes:
        mesh: V vertices in the frame of the template, with the image's colours where it is seen and those of the
            mirror image elsewhere, and texture coordinates into the image.
        placed: (V, 3) pixel x, pixel y and depth of the vertices in the image.
        seen: (V,) bool.
        rotation: (3, 3) template to camera.
        scale: pixels a unit of the template.
        translation: (2,) pixels, where the template's origin lands.
        pixels: for each pixel of the image the place on the template.
        confidence: in [0, 1], that the category is seen and the rotation right to 30 degrees.
        warnings: in sentences; none where nothing speaks against the pose.
    """

    mesh: Mesh
    placed: Tensor
    seen: Tensor
    rotation: Tensor
    scale: float
    translation: Tensor
    pixels: PixelMap
    confidence: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with what belongs to it.

    Attributes:
        model: in evaluation mode.
        size: pixels of the crops that the network sees.
        about: how it was trained.
    """

    model: ToThePoint
    size: int = 64
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def template(self) -> ObjectTemplate:
        """Of the category."""
        return self.model.template

    def vertices_of(self, names: Sequence[str]) -> Tensor:
        """(L,) the template's vertex of each keypoint, -1 for names that it does not have."""
        marks = self.template.surface.landmarks
        return torch.tensor([marks.get(n, -1) for n in names], dtype=torch.int64)

    def predict(
        self, image: Tensor, *, mask: Tensor | None = None, box: Sequence[float] | Tensor | None = None
    ) -> Reconstruction:
        """The object of an image as a mesh.

        Args:
            image: (3, H, W) in [0, 1].
            mask: (H, W) bool of the object; its box tells where to look, and its outline where the mesh's has to be.
            box: x0, y0, x1, y1 in pixels, in place of the mask. With neither the object fills the image.

        Raises:
            TypeError, ValueError: another shape, an empty mask or box, a box outside of the image.
        """
        sizes = check_shape(check_float(image, "image"), "3 H W", "image")
        H, W = sizes["H"], sizes["W"]
        if mask is not None:
            check_shape(mask, f"{H} {W}", "mask")
        if mask is None:
            where = torch.tensor([0.0, 0.0, W, H]) if box is None else torch.as_tensor(box).float()
            crop_box(where, (H, W))  # parts of it that are not in the image are white
            padding = 0.0 if box is None else 0.1
            crop = crop_object(
                image, torch.ones(H, W, dtype=torch.bool), self.size, box=where, padding=padding
            )
        else:
            crop = crop_object(image, mask, self.size)
        with torch.no_grad():
            found = self.model.look(as_images(crop[0][None]))
            known = found if mask is None else found._replace(mask=_SURE * (2 * crop[1][None].float() - 1))
            posed = self.model.settled(known)
        return self.reconstructions([image], posed, self.model.evidence(found, posed), [crop[2]])[0]

    def reconstructions(
        self, images: Sequence[Tensor], posed: Posed, evidence: Tensor, crops: Sequence[Crop]
    ) -> list[Reconstruction]:
        """Solved poses as meshes in their images.

        Args:
            images: n of (3, H, W) in [0, 1], of any sizes.
            posed: of n crops.
            evidence: (n, 8) of the crops, see `ToThePoint.evidence`.
            crops: where each was cut from its image.
        """
        if not images:
            return []
        faces, surface, s = self.model.faces, self.template.surface, posed.solution
        screen, half = on_screen(posed.projected, self.size), self.size / 2
        units = [1 / crop.scale[0] for crop in crops]
        placed = torch.stack(
            [
                torch.cat([crop.to_image(x[:, :2]).float(), unit * x[:, 2:]], 1)
                for x, crop, unit in zip(screen, crops, units, strict=True)
            ]
        )
        seen = self.model.seen(posed, self.size)
        at = self._textured(placed[..., :2], seen)
        sure, told = self.confidence(evidence).tolist(), self.warnings(posed, evidence)
        out = []
        for i, (image, crop) in enumerate(zip(images, crops, strict=True)):
            H, W = image.shape[-2:]
            colors = sample_image(image, at[i]).clamp(0, 1)
            u, v = (at[i] / at.new_tensor([W, H])).unbind(1)
            shape = (posed.verts[i], colors, torch.stack([u, 1 - v], 1))
            verts, colors, uv = (x.to(surface.dtype) for x in shape)
            fragments = rasterize(placed[i], faces, (H, W))
            pixels = PixelMap.of_fragments(fragments, surface, confidence=sure[i])
            scale, t = float(s.scale[i]) * half * units[i], crop.to_image((half * (s.t[i] + 1))[None])[0]
            mesh = Mesh(verts, faces, colors, uv)
            out.append(Reconstruction(mesh, placed[i], seen[i], s.R[i], scale, t, pixels, sure[i], told[i]))
        return out

    def _textured(self, at: Tensor, seen: Tensor) -> Tensor:
        """(n, V, 2) pixels that show each vertex; of a hidden one those of the other side, where that is seen."""
        there = self.template.mirrored(seen[..., None].float())[..., 0] > 0.5
        return torch.where((~seen & there)[..., None], self.template.mirrored(at), at)

    def confidence(self, evidence: Tensor) -> Tensor:
        """(n,) in [0, 1], the probability that a rotation is within 30 degrees of the truth.

        Args:
            evidence: (n, 8), see `ToThePoint.evidence`.
        """
        weight = cast(Tensor, self.model.calibration)[:-1]
        return (evidence.to(weight) @ weight).sigmoid()

    def warnings(self, posed: Posed, evidence: Tensor) -> list[tuple[str, ...]]:
        """What speaks against each pose, in sentences.

        Args:
            posed: n.
            evidence: (n, 8), see `ToThePoint.evidence`.
        """
        limit = float(cast(Tensor, self.model.calibration)[-1])
        s, out = posed.solution, []
        apart = rotation_angle(s.R, s.second.R).rad2deg()
        for sure, unique, far in zip(
            self.confidence(evidence).tolist(), s.unique.tolist(), apart.tolist(), strict=True
        ):
            told = []
            if not unique and far > _FAR:
                told.append(f"another pose, {far:.0f} degrees away, explains the positions almost as well")
            if sure < limit:
                told.append(
                    f"the pose is doubtful, or this is something else (confidence {sure:.2f} below {limit:.2f})"
                )
            if not self.model.calibrated:
                told.append(UNCALIBRATED)
            out.append(tuple(told))
        return out

    def save(self, folder: str | Path) -> None:
        """Write the model and, in template/, its surface."""
        folder, t = Path(folder), self.template
        t.surface.save(folder / "template")
        about = {
            "size": self.size,
            "about": self.about,
            "solver": {k: getattr(self.model, k) for k in _SOLVER},
            "n_modes": self.model.shape.n_modes,
            "n_symmetric": self.model.shape.n_symmetric,
            "reflection": t.reflection.tolist(),
        }
        save_model(folder, _Whole(self.model), about, kind=KIND)


_SOLVER = ("steps", "mode", "scale", "hidden", "ridge", "lens", "outline")
_TEMPLATE = ("source", "weights", "mirror_source", "mirror_weights")


class _Whole(nn.Module):
    """A model together with the arrays of its template."""

    def __init__(self, model: ToThePoint) -> None:
        super().__init__()
        self.model = model
        for name in _TEMPLATE:
            self.register_buffer(name, getattr(model.template, name).clone())


def load(folder: str | Path) -> Predictor:
    """Read what `Predictor.save` or `train` wrote.

    Raises:
        ImportError: the package of the backbone is missing.
        ValueError: nothing there, files of something else.
    """
    folder = Path(folder)

    def built(about: dict[str, Any]) -> nn.Module:
        surface = load_surface(folder / "template")
        V, told = surface.n_verts, about["about"]
        near, share = torch.zeros(V, 3, dtype=torch.int64), torch.zeros(V, 3, dtype=torch.float64)
        reflection = torch.tensor(about["reflection"], dtype=torch.float64)
        template = ObjectTemplate(surface, near, share, near.clone(), share.clone(), reflection)
        shape = shape_model(template, about["n_modes"], n_symmetric=about["n_symmetric"])
        net = features(told["backbone"], enlarged=told.get("enlarged", 1), trunk=told.get("trunk"))
        if net._kept and told.get("digest", net.digest()) != net.digest():
            raise ValueError(f"trained with other weights of {told['backbone']}; train it again")
        head = position_head(told["head"], net, template, **told["head_settings"])
        return _Whole(ToThePoint(head, shape, template, **about["solver"]))

    whole, about = load_model(folder, built, kind=KIND)
    model = whole.model
    model.template = replace(model.template, **{name: getattr(whole, name) for name in _TEMPLATE})
    return Predictor(model, about["size"], about["about"])


def train(
    crops: ObjectCrops,
    template: ObjectTemplate,
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    keypoints: bool = True,
    points: list[tuple[Tensor, Tensor, Tensor]] | None = None,
    shapes: Tensor | None = None,
    up: Tensor | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
    look: Callable[[Predictor, Mapping[str, float]], None] | None = None,
) -> Predictor:
    """Learn to reconstruct a category; a run that was killed goes on.

    A fifteenth of the crops is set aside: ridge and weights are chosen and the confidence calibrated on them.

    Args:
        crops: to learn from.
        template: of the category; its landmarks are the keypoints.
        out: folder for model, state and logs; of rounds, and of the part in which the backbone is learned, in folders
            of their own in it.
        recipe: network, losses, schedule.
        keypoints: whether to use the crops' keypoints.
        points: without keypoints, for each crop correspondences to start from, see `explain_by_points`; None starts
            from pose hypotheses by the masks.
        shapes: (n, V, 3) of the category, if such are known, see `zoo_shapes`: mean shape and modes are theirs then;
            None learns them from the crops.
        up: (3,) the template's upward direction, if the images are upright; see `mask_hypotheses`.
        seed: of everything random.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done).
        look: called about once a minute with the model as it is and {"epoch", "step", "seconds"}.

    Raises:
        ValueError: crops with empty masks only, no keypoint in use, a backbone that cannot be tuned, anything that
            `fit` complains about.
    """
    crops, kept = usable(crops)
    points = None if points is None else [points[i] for i in kept.tolist()]
    if not keypoints:
        crops = crops.without_keypoints()
    vertices = _vertices(crops, template)
    tunable = recipe.head == "control" and recipe.backbone in (LITE0, *SHIPPED)
    if recipe.tuned and not tunable:
        raise ValueError(
            f"recipe: expected tuned 0 with head {recipe.head!r} and backbone {recipe.backbone!r}, found {recipe.tuned}"
        )
    K = recipe.n_modes
    shape = shape_model(template, K, n_symmetric=round(recipe.symmetric * K), seed=seed)
    if shapes is not None:
        shape.take_from(shapes)
    told = None
    if recipe.fit is not None:
        how = {"keypoints": keypoints, "points": points, "learn_shape": shapes is None, "up": up}
        told = _explained(crops, shape, template, vertices, recipe, **how, seed=seed, progress=progress)
        shape.requires_grad_(False)
    model = _network(recipe, shape, template, 0.0 if told is None else told.lens, seed)
    net = model.head.backbone
    about = _about(recipe) | {"keypoints": keypoints, "crops": len(crops), "seed": seed}
    if net.frozen:
        about["digest"] = net.digest()
    first, last = recipe.split() if tunable else (recipe, None)
    if last is not None:
        about |= {"tuned": recipe.tuned, "trunk": recipe.trunk}
    run = _Run(Path(out), recipe.size, about, seed, accelerator, devices, progress, look)
    held = (torch.arange(len(crops)) % _EVERY == _EVERY - 1) & (len(crops) >= FEWEST)
    rows = torch.nonzero(~held)[:, 0]
    told, steps = _taught(run, model, first, (crops, rows, vertices), told)
    if last is not None:
        model = unfrozen(model, recipe.enlarged, recipe.trunk)
        precision = usual_precision(accelerator)
        about = about | {"digest": model.head.backbone.digest(), "precision": precision}
        run = replace(run, about=about)
        losses = BatchLosses(last, crops[rows], vertices, None if told is None else _targets(told, rows))
        # whoever lengthens a run gets another start for this part, and so another folder
        run.fit(model, losses, f"tuned{steps}", _ROUNDS, precision, after=steps)
    if told is not None:
        settle(model, crops, told, held, seed=seed)
    predictor = run.described(model.eval())
    predictor.save(out)
    return predictor


@dataclass(frozen=True)
class _Run:
    """Where and how a training runs: what all its parts have in common."""

    out: Path
    size: int
    about: dict[str, Any]
    seed: int
    accelerator: str
    devices: int
    progress: Callable[[str, float], None] | None
    look: Callable[[Predictor, Mapping[str, float]], None] | None

    def described(self, model: nn.Module) -> Predictor:
        return Predictor(cast(ToThePoint, model), self.size, self.about)

    def draw(self, after: int, model: nn.Module, told: Mapping[str, float]) -> None:
        assert self.look is not None
        self.look(self.described(model), {**told, "step": told["step"] + after})

    def fit(
        self,
        model: ToThePoint,
        losses: BatchLosses,
        folder: str,
        part: int,
        precision: str,
        *,
        after: int = 0,
    ) -> int:
        """Train in a folder of the run, after so many steps of it; returns how many there are then."""
        drawn = Pictures(partial(self.draw, after), epochs=None, minutes=1.0)
        history = fit(
            model,
            partial(losses.batches, self.seed),
            losses,
            out=self.out / folder,
            schedule=losses.recipe.schedule,
            seed=self.seed + part,
            accelerator=self.accelerator,
            devices=self.devices,
            precision=precision,
            bad_steps="skip",
            run=self.about,
            progress=self.progress,
            pictures=None if self.look is None else drawn,
        )
        return after + int(history[-1]["step"])


def _taught(
    run: _Run,
    model: ToThePoint,
    recipe: Recipe,
    data: tuple[ObjectCrops, Tensor, Tensor],
    told: Explained | None,
) -> tuple[Explained | None, int]:
    """Learn from what is believed of the crops, in rounds where there are several hypotheses.

    Args:
        run: of which this is a part.
        model: changed in place.
        recipe: of this part.
        data: all crops, the rows that are learned from, and the keypoints' vertices.
        told: what is believed.

    Returns:
        What is believed then, and how many steps were done.
    """
    crops, rows, vertices = data
    rounds = _ROUNDS if told is not None and told.belief.shape[1] > 1 else 1
    views: View | None = None
    steps = 0
    for k in range(rounds):
        goals = None if told is None else _targets(told, rows)
        losses = BatchLosses(recipe.part(k, rounds), crops[rows], vertices, goals)
        few = len(rows) <= 2 * recipe.views
        if few and model.head.backbone.frozen and recipe.head == "control" and not recipe.losses.need_image:
            if views is None:
                with seeded(run.seed):
                    losses.keep_views(model.eval(), losses.recipe.views, progress=run.progress)
                views = losses.views
            losses.views = views
            model.train()
        steps = run.fit(model, losses, "" if rounds == 1 else f"round{k}", k, "32-true", after=steps)
        if rounds > 1 and told is not None and k < rounds - 1:
            told = believed(told, reconstructed(model.eval(), crops)[0].points)
    return told, steps


def _targets(told: Explained, rows: Tensor) -> Targets:
    return Targets(told.points[rows], told.seen[rows], told.belief[rows])


def _network(
    recipe: Recipe, shape: ShapeModes, template: ObjectTemplate, lens: float, seed: int
) -> ToThePoint:
    """The network of a recipe, before it has learned anything."""
    with seeded(seed):
        net = features(recipe.backbone, enlarged=recipe.enlarged)
        head = position_head(recipe.head, net, template, **recipe.head_settings)
        return ToThePoint(head, shape, template, **({"lens": lens} | dict(recipe.solver)))


def _about(recipe: Recipe) -> dict[str, Any]:
    """What a model keeps of its recipe: what it takes to build it again, and the losses."""
    return {
        "recipe": recipe.name,
        "backbone": recipe.backbone,
        "enlarged": recipe.enlarged,
        "head": recipe.head,
        "head_settings": dict(recipe.head_settings),
        "losses": asdict(recipe.losses),
    }


def _vertices(crops: ObjectCrops, template: ObjectTemplate) -> Tensor:
    """(L,) the template's vertex of each keypoint."""
    marks = template.surface.landmarks
    if missing := [n for n in crops.names if n not in marks]:
        raise ValueError(
            f"crops: expected keypoints that are landmarks of the template, found {', '.join(missing[:5])}"
        )
    return torch.tensor([marks[n] for n in crops.names], dtype=torch.int64)


def _explained(
    crops: ObjectCrops,
    shape: ShapeModes,
    template: ObjectTemplate,
    vertices: Tensor,
    recipe: Recipe,
    **how: Any,
) -> Explained:
    """Where the vertices are believed to be in each crop; `how` is of `explain`."""
    assert recipe.fit is not None
    where = torch.nan_to_num(2 * crops.points / crops.size - 1)
    collection = Collection(crops.mask.float(), where, crops.visible.float(), vertices)
    fit = replace(recipe.fit, arap_modes=recipe.fit.arap_modes * (1 - recipe.symmetric))
    return explain(collection, shape, template.surface.faces, losses=fit, epochs=recipe.fit_epochs, **how)
