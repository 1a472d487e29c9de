"""Category keypoints from end to end: train on the clouds of a category, detect, measure, register.

clouds = load_clouds("modelnet10", "chair")
detector = train(clouds, out="chair")
found = detector.detect(cloud)            # (N', 3) ordered keypoints, in the cloud's units
numbers = evaluate(detector, load_clouds("modelnet10", "chair", split="test"))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoframe import metrics
from geoframe._cache import cache_key
from geoframe._check import check_choice, check_float, check_int, check_shape
from geoframe._files import atomic_path
from geoframe.data import CloudBatches, CloudSet, corrupt, normalise
from geoframe.losses import (
    chamfer_loss,
    coverage_loss,
    extent_loss,
    inclusivity_loss,
    local_shape_loss,
    outside_loss,
    separation_loss,
    upright_loss,
)
from geoframe.models.category_keypoints.network import (
    CategoryKeypoints,
    Keypoints,
    PaperKeypoints,
    build,
    symmetry_frame,
)
from geoframe.surface.clouds import box, nearest_sq
from geoframe.training.loop import Schedule, fit
from geoframe.transforms import Similarity

RECIPES = ("geoframe", "paper")
_FORMAT = "geoframe category keypoints 1"
_TWO_PLANES = ("table",)  # categories whose shapes are symmetric both ways
_INFERENCE_BATCH = 32


@dataclass(frozen=True)
class PaperLosses:
    """Chamfer, coverage and inclusivity with weights 1, 1, 2; the released code's forms or the paper's own."""

    released: bool = True

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars; the sum is minimised."""
        found, points = model(batch["seen"]), batch["points"]
        form, box_form = ("mean", "sides") if self.released else ("squared_sum", "volume")
        return {
            "chamfer": chamfer_loss(found.nodes, found.keypoints, form=form),
            "coverage": coverage_loss(found.nodes, points, form=box_form),
            "inclusivity": 2 * inclusivity_loss(found.nodes, points, form=form),
        }


@dataclass(frozen=True)
class OurLosses:
    """The same three aims, on keypoints as well as on nodes; and keypoint k is to be at alike places everywhere.

    Keypoints are kept apart and shapes upright, too.
    """

    chamfer: float = 1.5
    extent: float = 2.0
    surface: float = 1.0
    outside: float = 2.5
    alike: float = 5.0
    apart: float = 10.0
    upright: float = 1.0

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars; the sum is minimised."""
        found, points = model(batch["seen"]), batch["points"]
        straight = points @ found.rotation
        extents = extent_loss(found.keypoints, points) + extent_loss(found.canonical, straight)
        extents = extents + 0.5 * extent_loss(found.nodes, points)
        on = inclusivity_loss(found.keypoints, points, form="mean")
        return {
            "chamfer": self.chamfer * chamfer_loss(found.nodes, found.keypoints, form="mean"),
            "extent": self.extent * extents,
            "surface": self.surface * (on + 0.5 * inclusivity_loss(found.nodes, points, form="mean")),
            "outside": self.outside * outside_loss(found.keypoints, points, reach=0.12),
            "alike": self.alike * local_shape_loss(found.canonical, straight[:, ::2].detach(), radius=0.45),
            "apart": self.apart * separation_loss(found.canonical, distance=0.3),
            "upright": self.upright * upright_loss(found.canonical),
        }


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained model with what belongs to it.

    Attributes:
        model: in evaluation mode.
        recipe: "geoframe" or "paper". category: its name.
        group: (K,) int64, the final keypoint that each of the model's K ends in (non-maximum suppression).
        canonical: (N', 3) places of the final keypoints in the common frame, over the training shapes on average.
        about: how it was trained: degrees, seed, epochs, shapes.
    """

    model: PaperKeypoints | CategoryKeypoints
    recipe: str
    category: str
    group: Tensor
    canonical: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def n_keypoints(self) -> int:
        """N', the number of final keypoints."""
        return len(self.canonical)

    @torch.no_grad()
    def predict(self, points: Tensor) -> Keypoints:
        """All the model says, of clouds (B, N, 3) normalised to scale 2; keypoints are the final N'."""
        weight = self.model.basis.basis  # says where and how precisely to compute
        parts = [self.model(p.to(weight)) for p in points.split(_INFERENCE_BATCH)]
        found = Keypoints(*(torch.cat(x).to(points.device) for x in zip(*parts, strict=True)))
        group = self.group.to(points.device)
        return found._replace(
            keypoints=metrics.merged(found.keypoints, group), canonical=metrics.merged(found.canonical, group)
        )

    def detect(self, points: Tensor) -> Tensor:
        """Ordered keypoints (..., N', 3) of clouds (..., N, 3) of any position and size, in their units.

        Raises:
            TypeError, ValueError: not floating, no cloud, too few points, NaN, a single point repeated.
        """
        check_shape(check_float(points, "points"), "... N 3", "points")
        if not points.numel():
            raise ValueError(f"points: expected at least one cloud, found shape {tuple(points.shape)}")
        clouds = points.reshape(-1, *points.shape[-2:])
        settled, centre, half = settle(self.model, clouds)
        found = self.predict(settled).keypoints.to(points.dtype) * half[:, None, None] + centre[:, None]
        return found.reshape(*points.shape[:-2], -1, 3)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and model.json into `folder`."""
        from safetensors.torch import save_file

        folder = Path(folder)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(tensors, str(temporary))
        described = {
            "format": _FORMAT,
            "recipe": self.recipe,
            "category": self.category,
            "settings": self.model.settings,
            "group": self.group.tolist(),
            "canonical": self.canonical.tolist(),
            "about": self.about,
        }
        with atomic_path(folder / "model.json") as temporary:
            temporary.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def settle(model: PaperKeypoints | CategoryKeypoints, clouds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clouds (B, N, 3) normalised by the box that is aligned with their plane of symmetry, as far as the model knows.

    The axis-aligned box of a cloud that comes turned is another one than that of the cloud before, and so is its
    centre. So the cloud is turned back, boxed again, and once more.

    Returns:
        points (B, N, 3), centre (B, 3), half (B,): ``points * half + centre`` are the clouds.
    """
    points, centre, half = normalise(clouds)
    frame = symmetry_frame(model.basis)
    for _ in range(2):
        parts = [model.rotation(p.to(frame)) for p in points.split(_INFERENCE_BATCH)]
        axes = (torch.cat(parts) @ frame.mT).to(clouds)
        low, high = box(clouds @ axes)
        centre = (axes @ (low + high)[..., None] / 2)[..., 0]
        half = (high - low).amax(-1) / 2
        points = (clouds - centre[:, None]) / half[:, None, None]
    return points, centre, half


def load_detector(folder: str | Path) -> Detector:
    """Read what `Detector.save` or `train` wrote.

    Raises:
        ValueError: nothing there, files of something else, weights that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    files = (folder / "model.json", folder / "model.safetensors")
    if not all(f.is_file() for f in files):
        raise ValueError(
            f"{folder}: expected model.json and model.safetensors of a trained model, found neither or one"
        )
    try:
        described = json.loads(files[0].read_text(encoding="utf-8-sig"))
        if described.get("format") != _FORMAT:
            raise ValueError(f"format {described.get('format')!r}")
        model = build(described["recipe"], described["settings"])
        model.load_state_dict(load_file(files[1]))
        group, canonical = torch.tensor(described["group"]), torch.tensor(described["canonical"])
        numbers = sorted(set(group.tolist()))
        if len(group) != model.basis.n_keypoints or numbers != list(range(len(canonical))):
            raise ValueError(f"{len(group)} keypoints in {len(canonical)} groups")
        recipe, category, about = (described[k] for k in ("recipe", "category", "about"))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as err:
        first = str(err).splitlines()[0]
        raise ValueError(
            f"{folder}: expected a model of category keypoints, found something else ({first})"
        ) from err
    return Detector(model.eval(), recipe, category, group, canonical, about)


def train(
    clouds: CloudSet,
    *,
    out: str | Path,
    category: str = "",
    recipe: str = "geoframe",
    n_keypoints: int | None = None,
    settings: Mapping[str, Any] | None = None,
    losses: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
    degrees: float = 45.0,
    epochs: int = 200,
    batch_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Detector:
    """Learn keypoints of a category from its clouds, unlabelled and turned by up to `degrees`; goes on where killed.

    Args:
        clouds: in any units; each is normalised. out: folder for model, state and log.csv.
        recipe: "geoframe", ours, or "paper". n_keypoints: N; by default 12 and 14.
        settings: other arguments of the model. losses: instead of the recipe's.
        degrees: largest misalignment, drawn anew for every batch, on top of what the clouds come with: for clouds
            that are not aligned among themselves pass 180. epochs: the rate is halved every fifth of them.
        batch_size: of all devices together, by default 16 and 32; at most the number of clouds, and made a multiple
            of the devices.
        seed: of initial weights, batches and misalignments.
        accelerator, devices, progress: see `geoframe.training.loop.fit`.

    Raises:
        TypeError: clouds that are no `CloudSet`.
        ValueError: fewer clouds than 2 or than devices, arguments out of range, a folder with a run of other clouds,
            settings, batches, losses or epochs.
    """
    check_choice(recipe, RECIPES, "recipe")
    check_int(epochs, "epochs", low=1)
    ours = recipe == "geoframe"
    batch_size = (16 if ours else 32) if batch_size is None else check_int(batch_size, "batch_size", low=1)
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees: expected a number in [0, 180], found {degrees}")
    ready = _enough(clouds, check_int(devices, "devices", low=1)).normalised()
    key = cache_key(ready.points)
    given = {"up": clouds.up, **({"max_angle": max(degrees, 1.0)} if ours else {}), **(settings or {})}
    if n_keypoints is not None:
        given["n_keypoints"] = n_keypoints
    model, ready = _begin(recipe, given, ready, degrees, seed)
    N = ready.points.shape[1]
    batch_size = max(min(batch_size, len(ready)) // devices, 1) * devices
    batches = CloudBatches(
        ready,
        batch_size=batch_size,
        n_points=N,
        n_seen=min(N, 512) if ours else None,
        degrees=degrees,
        missing=0.4 if ours else 0.0,
        noise=0.03 if ours else 0.0,
        seed=seed,
    )
    schedule = Schedule(epochs=epochs, every=max(1, epochs // 5))
    losses = losses or (OurLosses() if ours else PaperLosses())
    about = {"degrees": degrees, "seed": seed, "epochs": epochs, "shapes": len(ready), "points": N}
    run = {"recipe": recipe, "category": category, "data": key, "settings": model.settings, **about}
    run |= {"batch_size": batch_size, "losses": _described(losses)}
    where: dict[str, Any] = {"out": out, "accelerator": accelerator, "devices": devices}
    fit(model, batches, losses, schedule=schedule, seed=seed, run=run, progress=progress, **where)
    detector = _finish(model.eval(), recipe, category, ready, degrees, seed)
    detector.about.update(about)
    detector.save(out)
    return detector


def register(detector: Detector, sources: Tensor, targets: Tensor) -> tuple[Similarity, Tensor, Tensor]:
    """Similarity transforms that bring each source cloud onto the target it fits best, by ordered keypoints alone.

    Turned about the vertical, or any axis where the model allows for that.

    Args:
        sources: (S, N, 3). targets: (T, M, 3), templates; in any units.

    Returns:
        motion: R (S, 3, 3), t (S, 3) and scale (S,); ``motion(sources)`` lie on the targets.
        target: (S,) int64, which one.
        residual: (S,) root mean square distance of the keypoints, over half the longest side of the target.
    """
    moving, still = detector.detect(sources), detector.detect(targets)
    S, T = len(moving), len(still)
    axis = None if detector.model.settings.get("rotation") == "any" else detector.model.settings["up"]
    fit_all = metrics.fit_turn(
        moving[:, None].expand(-1, T, -1, -1), still[None].expand(S, -1, -1, -1), up=axis
    )
    size = normalise(targets)[2]
    off = (fit_all(moving[:, None].expand(-1, T, -1, -1)) - still).square().sum(-1).mean(-1).sqrt() / size
    residual, target = off.min(1)
    row = torch.arange(S)
    motion = Similarity(*(x[row, target] for x in fit_all))
    return motion, target, residual


def _enough(clouds: CloudSet, devices: int) -> CloudSet:
    """The clouds, if there is something to train on."""
    if not isinstance(clouds, CloudSet):
        kind = type(clouds).__name__
        raise TypeError(
            f"clouds: expected a CloudSet, found {kind}; see load_clouds, or CloudSet(points, names)"
        )
    if len(clouds) < max(2, devices):
        raise ValueError(
            f"clouds: expected at least two to learn a category from, and one a device, found {len(clouds)}"
        )
    return clouds


def _begin(
    recipe: str, settings: dict[str, Any], ready: CloudSet, degrees: float, seed: int
) -> tuple[PaperKeypoints | CategoryKeypoints, CloudSet]:
    """The network before training, and the clouds as it is to see them."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would set those of all devices
        model = build(recipe, settings)
    if isinstance(model, CategoryKeypoints):
        for _ in range(2):  # where clouds come turned, their boxes are right only once their poses are known
            model.prepare(ready.turned(degrees, seed=seed)[0], seed=seed)
            ready = replace(ready, points=settle(model, ready.points)[0])
    return model, ready


def _described(losses: Callable[..., Any]) -> dict[str, Any]:
    """Name and weights, by which losses are told from others."""
    name = getattr(losses, "__qualname__", type(losses).__qualname__)
    weights: dict[str, Any] = asdict(losses) if is_dataclass(losses) and not isinstance(losses, type) else {}

    def plain(x: Any) -> Any:
        return x.tolist() if isinstance(x, Tensor) else type(x).__qualname__

    described: dict[str, Any] = json.loads(json.dumps({"class": name, **weights}, default=plain))
    return described


def _finish(
    model: PaperKeypoints | CategoryKeypoints,
    recipe: str,
    category: str,
    ready: CloudSet,
    degrees: float,
    seed: int,
) -> Detector:
    """Non-maximum suppression over the training shapes."""
    K = model.basis.n_keypoints
    every = Detector(model, recipe, category, torch.arange(K), torch.zeros(K, 3))
    canonical = every.predict(ready.turned(degrees, seed=seed)[0]).canonical
    group = metrics.merge_keypoints(canonical)
    return Detector(model, recipe, category, group, metrics.merged(canonical, group).mean(0))


def _moved(found: Tensor, before: Tensor) -> float:
    return float((found - before).norm(dim=-1).mean())


def _true_axes(ready: CloudSet, category: str) -> tuple[int, ...]:
    """Normals of the planes of symmetry of aligned clouds, see `evaluate`."""
    sides = ((ready.up + 1) % 3, (ready.up + 2) % 3)
    if category in _TWO_PLANES:
        return sides
    return (min(sides, key=lambda axis: float(metrics.asymmetry(ready.points, axis).mean())),)


def evaluate(
    detector: Detector,
    clouds: CloudSet,
    *,
    degrees: float = 45.0,
    seed: int = 1,
    pairs: int = 1000,
    true_axes: tuple[int, ...] | None = None,
) -> dict[str, float]:
    """The measures of the paper's table and ours, over clouds turned by up to `degrees`; percent where it says so.

    Clouds are normalised, then turned or damaged, as the paper does; what ends in "unknown_box" is of `detect`,
    which has to find out centre and size of what it gets. Inclusivity by the distance to the surface, 0.015, is
    there if the clouds have surfaces; by parts if they have labels; the error of the plane if the model has one.

    "moved_by_..." is the mean distance, at scale 2, between the keypoints of a cloud and of the same one damaged:
    without the 30 % of the points that lie farthest on a random side, or with Gaussian noise of 2 % of the scale
    (a standard deviation of 0.04) in each coordinate.

    Args:
        clouds: aligned as the data set has them, so that turning them gives the truth.
        seed: of the turns, the pairs and the damages. pairs: how many are registered.
        true_axes: coordinate axes that are normals of true planes of symmetry; by default the horizontal one about
            which the clouds are most symmetric, and for tables both.

    Raises:
        ValueError: clouds with another vertical axis than the model's, arguments out of range.
    """
    ready = clouds.normalised()
    if ready.up != detector.model.settings["up"]:
        theirs, own = ("xyz"[i] for i in (ready.up, detector.model.settings["up"]))
        raise ValueError(
            f"clouds: expected the model's vertical axis, {own}, found {theirs}; "
            f"if theirs is {own}, load them with up={own!r}"
        )
    points, R = ready.turned(degrees, seed=seed)
    found = detector.predict(points)
    p, nodes = found.keypoints, found.nodes
    numbers = {
        "coverage_percent": 100 * float(metrics.coverage(p, points).mean()),
        "model_error_percent": 100 * float(metrics.model_error(nodes, p).mean()),
        "correspondence_percent": 100.0,
        "inclusivity_percent": 100 * float(metrics.inclusivity(p, points).mean()),
        "n_keypoints": float(detector.n_keypoints),
        "box_overlap_percent": 100 * float(metrics.box_overlap(p, points).mean()),
        "points_covered_percent": 100 * float(metrics.points_covered(p, points).mean()),
        "model_error_unsquared_percent": 100 * float(metrics.model_error(nodes, p, squared=False).mean()),
        "distance_to_points": float(nearest_sq(p, points)[0].sqrt().mean()),
        "repeatability_percent": 100 * float(metrics.repeatability(p, R).mean()),
    }
    if detector.model.basis.mode != "plain":
        axes = _true_axes(ready, detector.category) if true_axes is None else true_axes
        if not axes or not set(axes) <= {0, 1, 2}:
            raise ValueError(f"true_axes: expected numbers of axes, 0 to 2, found {axes}")
        normal, true = (
            x.to(points) for x in (detector.model.basis.normal.detach(), torch.eye(3)[list(axes)])
        )
        off = metrics.symmetry_error(normal, found.rotation, true, R)
        numbers |= {
            "symmetry_error_deg": float(off.mean()),
            "symmetry_error_median_deg": float(off.median()),
        }
    if len(ready) > 1:
        which = metrics.random_pairs(len(ready), pairs, seed=seed)
        for name, axis in (("registration", ready.up), ("registration_any_axis", None)):
            error = metrics.relative_rotation_error(p, R, which, up=axis)
            numbers |= {f"{name}_median_deg": float(error.median()), f"{name}_mean_deg": float(error.mean())}
    if ready.surfaces is not None:
        gap = metrics.surface_distance(p @ R, ready.surfaces)
        numbers["distance_to_surface"] = float(gap.mean())
        numbers["inclusivity_surface_percent"] = 100 * float((gap <= 0.015).double().mean())
    generator = torch.Generator().manual_seed(seed)
    numbers["moved_by_unknown_box"] = _moved(detector.detect(points), p)
    for name, harm in (("missing_30_percent", {"missing": 0.3}), ("noise_2_percent", {"noise": 0.04})):
        hurt = corrupt(points, **harm, generator=generator)
        numbers[f"moved_by_{name}"] = _moved(detector.predict(hurt).keypoints, p)
        numbers[f"moved_by_{name}_unknown_box"] = _moved(detector.detect(hurt), p)
    if ready.labels is not None:
        _, consistent = metrics.semantic_consistency(p, points, ready.labels)
        numbers["semantic_consistency_percent"] = consistent
        numbers["dual_alignment_percent"] = metrics.dual_alignment_score(p, points, ready.labels)
    return numbers
