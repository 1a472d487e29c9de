"""Category keypoints in use: train on the clouds of a category, predict, register.

clouds = load_clouds("modelnet10", "chair")
predictor = train(clouds, out="chair")
found = predictor.predict(cloud)                  # keypoints (K, 3) ordered, in the cloud's units; score, warnings
numbers = evaluate(predictor, load_clouds("modelnet10", "chair", split="test"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoframe import metrics
from geoframe._cache import cache_key
from geoframe._check import check_choice, check_finite, check_int
from geoframe._random import seeded
from geoframe._threads import together
from geoframe.data import CloudBatches, CloudSet, normalise
from geoframe.models.category_keypoints.network import NETWORKS, CategoryKeypoints, Keypoints, Network, build
from geoframe.models.category_keypoints.recipe import OURS, Recipe
from geoframe.placing import CATEGORY_MODELS
from geoframe.placing.calibrate import Calibrated, calibrate, set_aside
from geoframe.placing.confidence import FORMAT, Confidence, evidence, keypoint_gaps
from geoframe.placing.judge import looks
from geoframe.placing.locate import INFERENCE_BATCH, locate, settle
from geoframe.placing.look_again import WIDEST_START, LookAgain, Seen, on_side
from geoframe.placing.parts import Parts
from geoframe.placing.placement import N_SEEN, Placement
from geoframe.placing.prediction import Prediction
from geoframe.surface.clouds import as_points
from geoframe.training import fit, load_model, save_model
from geoframe.training.checkpoints import STATE, read_state
from geoframe.transforms import Similarity

KIND = "category keypoints"
_AXES = ("x", "y", "z")
_LOOKED_AT = 32  # clouds, for the axis that they stand along


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with what belongs to it.

    Attributes:
        model: in evaluation mode.
        category: its name.
        group: (K,) int64, the final keypoint that each of the network's K ends in (non-maximum suppression).
        canonical: (K', 3) places of the final keypoints in the common frame, averaged over the training clouds.
        about: how it was trained: recipe, network, degrees, seed, epochs, shapes, points, data (a digest), and how it
            was calibrated.
        placement: finds tilt and walls; None where there were too few clouds to learn it from.
        confidence: scores and uncertainties; None likewise.
    """

    model: Network
    category: str
    group: Tensor
    canonical: Tensor
    about: dict[str, Any] = field(default_factory=dict)
    placement: Placement | None = None
    confidence: Confidence | None = None

    @property
    def n_keypoints(self) -> int:
        """K', the number of final keypoints."""
        return len(self.canonical)

    @property
    def up(self) -> int:
        """The vertical axis, 0 to 2."""
        return self.model.up

    @property
    def limit(self) -> float:
        """The score below which there is a warning; NaN from a model that was not calibrated."""
        return float("nan") if self.confidence is None else float(self.confidence.limit)

    def predict(self, points: Any, *, up: str | None = None, any_up: bool = True) -> Prediction:
        """Ordered keypoints of clouds of any position, size and rotation about the vertical.

        Stray points, outliers and a floor are left out, a tilt of up to about 15 degrees is undone.

        Args:
            points: (..., N, 3) floating tensor, array or list, in any units. Coordinates with a large offset are to be
                float64.
            up: the vertical axis of the clouds, "x", "y" or "z"; None for that of the model.
            any_up: where the score is low, see whether the cloud makes more sense on another side; other turns about
                the vertical are tried in any case.

        Raises:
            TypeError: not numbers.
            ValueError: another shape, no cloud, too few points, NaN, a single point repeated.
        """
        points = _usable(points)
        clouds = points.reshape(-1, *points.shape[-2:])
        shift = 0 if up is None else self.up - _AXES.index(check_choice(up, _AXES, "up"))
        given = torch.eye(3, dtype=torch.float64).roll(shift, 0)
        threads = torch.get_num_threads() if clouds.device.type == "cpu" else 1
        parts = clouds.chunk(min(threads, len(clouds)))  # small steps: each thread does its clouds by itself
        told: Any = together(*(partial(self._predicted, part, given, any_up) for part in parts))
        *fields, warnings = zip(*told, strict=True)
        tensors = [torch.cat(x).reshape((*points.shape[:-2], *x[0].shape[1:])) for x in fields]
        return Prediction._make([*tensors, sum(warnings, ())])

    @torch.no_grad()
    def common_up(self, points: Any) -> tuple[str, dict[str, float]]:
        """The vertical axis of clouds that all have the same one, such as those of a folder.

        Args:
            points: (..., N, 3) as of `predict`; the first 32 clouds are looked at.

        Returns:
            "x", "y" or "z": that of the model, unless the clouds make far more sense along another; and the mean score
            along each. The model's and nothing from a model that was not calibrated.

        Raises:
            TypeError, ValueError: as `predict`.
        """
        points = _usable(points)
        if self.confidence is None:
            return _AXES[self.up], {}
        clouds = points.reshape(-1, *points.shape[-2:])[:_LOOKED_AT].double()
        axis, mean = LookAgain(self._look, self.up, self.limit).common_axis(clouds)
        return _AXES[axis], dict(zip(_AXES, mean.tolist(), strict=True))

    @torch.no_grad()
    def _predicted(self, clouds: Tensor, given: Tensor, any_up: bool) -> Prediction:
        """`predict` of clouds (B, N, 3), to be turned by `given` (3, 3)."""
        upright = on_side(clouds, given.expand(len(clouds), 3, 3))
        seen = self._look(upright)
        stands = given.repeat(len(clouds), 1, 1)
        if self.confidence is not None:
            again = LookAgain(self._look, self.up, self.limit)
            pose = getattr(self.model, "pose", None)
            if pose is not None and pose.limit <= WIDEST_START:
                seen = again.other_turns(upright, seen)
            if any_up:
                seen, other = again.other_sides(upright, seen)
                stands = other @ stands
        return self._told(clouds, seen, given, stands)

    @torch.no_grad()
    def predict_normalised(self, points: Tensor) -> Keypoints:
        """All that the network says of clouds (B, N, 3) that were normalised to scale 2; keypoints are the final K'."""
        return self._network(points, upright=False)

    def _network(self, points: Tensor, *, upright: bool) -> Keypoints:
        """What the network says of clouds; of `upright` ones, in the canonical frame, nodes are from fewer points."""
        weight = self.model.basis.basis  # says where and how precisely to compute
        parts = []
        for p in points.split(INFERENCE_BATCH):
            p = p.to(weight)
            eye = torch.eye(3).to(weight).expand(len(p), 3, 3)
            parts.append(self.model(p, eye, node_points=N_SEEN) if upright else self.model(p))
        found = Keypoints(*(torch.cat(x).to(points.device) for x in zip(*parts, strict=True)))
        group = self.group.to(points.device)
        return found._replace(
            keypoints=metrics.merged(found.keypoints, group), canonical=metrics.merged(found.canonical, group)
        )

    @torch.no_grad()
    def _look(
        self, clouds: Tensor, turn: Tensor | None = None, *, any_turn: bool = True, quick: bool = False
    ) -> Seen:
        """Find objects and keypoints of clouds (B, N, 3) whose vertical axis is the model's.

        With rotations `turn` (B, 3, 3) the clouds are looked at in these frames; without `any_turn` around them only.
        """
        if turn is None:
            located = locate(self.model, self.placement, clouds)
        else:
            there = clouds.double() @ turn
            located = locate(self.model, self.placement, there, any_turn=any_turn, quick=quick)
            located = located._replace(motion=_rotation(turn).after(located.motion))
        found = self._network(located.points, upright=isinstance(self.model, CategoryKeypoints))
        B, K = found.keypoints.shape[:2]
        score, uncertainty = torch.full((B,), torch.nan), torch.full((B, K), torch.nan)
        if self.confidence is not None:
            assert isinstance(self.model, CategoryKeypoints) and self.placement is not None
            weight = self.model.basis.basis
            parts = []
            for i in range(0, B, INFERENCE_BATCH):
                some = Keypoints(*(x[i : i + INFERENCE_BATCH].to(weight) for x in found))
                p, left = (x[i : i + INFERENCE_BATCH].to(weight) for x in (located.points, located.left))
                told = evidence(self.model, self.confidence.occupancy, p, some, left)
                told = self.confidence.judged(told, looks(self.model, self.placement, p))
                parts.append(self.confidence(told, keypoint_gaps(some.keypoints, some.nodes, p)))
            score, uncertainty = (torch.cat(x).to(clouds.device) for x in zip(*parts, strict=True))
        return Seen(located, found, score, uncertainty)

    def _told(self, points: Tensor, seen: Seen, given: Tensor, stands: Tensor) -> Prediction:
        """What was found, in the frame of the clouds (B, N, 3); rotations `given` and `stands` are what stood up."""
        motion, found = seen.located.motion, seen.found
        back = _rotation(given.mT.expand(len(stands), 3, 3).to(motion.R)).after(motion)
        keypoints, nodes = (back(x.double()).to(points.dtype) for x in (found.keypoints, found.nodes))
        kind = self.model.basis.basis.dtype
        doubts = zip(seen.score.tolist(), stands, strict=True)
        warnings = tuple(self._warning(score, given, side) for score, side in doubts)
        uncertainty = seen.uncertainty * motion.scale[:, None].to(seen.uncertainty)
        tensors = (
            keypoints,
            found.canonical,
            nodes,
            (back.R @ found.rotation.double()).to(kind),
            found.coefficients,
            seen.score,
            uncertainty,
            seen.located.dropped,
        )
        return Prediction._make([*tensors, warnings])

    def _warning(self, score: float, given: Tensor, side: Tensor) -> str:
        """What a user should know about a cloud; empty if nothing."""
        told = []
        if score < self.limit:
            told.append(
                f"score {score:.2f} is below {self.limit:.2f}: the keypoints are not to be trusted; the cloud may be "
                f"incomplete, uneven, on its side (say which axis is up) or no {self.category or 'such object'}"
            )
        if not torch.equal(side, given):
            axis = side[self.up]
            way = "-" if float(axis.sum()) < 0 else ""
            told.append(f"the object is taken to stand along {way}{_AXES[int(axis.abs().argmax())]}")
        return "; ".join(told)

    def save(self, folder: str | Path, *, small: bool = False) -> None:
        """Write model.safetensors and model.json into a folder, which is made if need be.

        Args:
            folder: for the two files.
            small: large matrices with a byte a number: a quarter of the size; keypoints move by about 0.002.
        """
        about = {
            "category": self.category,
            "settings": self.model.settings,
            "group": self.group.tolist(),
            "canonical": self.canonical.tolist(),
            "calibrated": self.confidence is not None,
            "evidence": FORMAT,
            "about": self.about,
        }
        parts = Parts(self.model, self.placement, self.confidence)
        save_model(folder, parts.stored_small() if small else parts, about, kind=KIND)


def load(folder: str | Path) -> Predictor:
    """Read what `Predictor.save` or `train` wrote, a run that is not finished yet, or a model of the package.

    Args:
        folder: of a model or of a run; or, where there is no such folder, the name of a category of which a model of
            procedural shapes comes with the package: aeroplane, car, chair, motorbike, table. Of a run that is not
            finished no keypoints are merged, and there is no score.

    Raises:
        ValueError: nothing there, files of something else, weights that do not fit.
    """
    folder = Path(folder)
    if not folder.exists() and (CATEGORY_MODELS / folder).is_dir():
        folder = CATEGORY_MODELS / folder
    elif not folder.exists():
        known = ", ".join(sorted(f.name for f in CATEGORY_MODELS.iterdir() if f.is_dir()))
        raise ValueError(f"{folder}: expected a folder of a model, or one of {known}, found no such folder")
    if (folder / STATE).is_file() and not (folder / "model.json").is_file():
        return _unfinished(folder)

    def described(about: dict[str, Any]) -> nn.Module:
        model = build(about["about"]["network"], about["settings"])
        numbers = sorted(set(about["group"]))
        if len(about["group"]) != model.basis.n_keypoints or numbers != list(range(len(about["canonical"]))):
            raise ValueError(f"{len(about['group'])} keypoints in {len(about['canonical'])} groups")
        if "calibrated" not in about:  # written by an earlier version
            return model
        if not about["calibrated"]:
            return Parts(model, None, None)
        if about.get("evidence") != FORMAT:
            raise ValueError("scores of another version: run the same training again, which only calibrates")
        return Parts(model, Placement(), Confidence(len(about["canonical"])))

    parts, about = load_model(folder, described, kind=KIND)
    model, rest = (
        (parts.model, (parts.placement, parts.confidence)) if isinstance(parts, Parts) else (parts, ())
    )
    group, canonical = torch.tensor(about["group"]), torch.tensor(about["canonical"])
    return Predictor(model, about["category"], group, canonical, about["about"], *rest)


def _unfinished(folder: Path) -> Predictor:
    """The model of a run as far as it has come."""
    stored = read_state(folder)
    assert stored is not None
    about, tensors = stored
    try:
        run = about["run"]
        model = build(run["network"], run["settings"])
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except (KeyError, TypeError, RuntimeError, ValueError) as err:
        raise ValueError(f"{folder / STATE}: expected a run of {KIND}, found another one") from err
    K = model.basis.n_keypoints
    names = ("recipe", "network", "degrees", "seed", "shapes", "points", "data")
    said = {k: run[k] for k in names} | {"epochs": len(about["history"]), "finished": False}
    return Predictor(model.eval(), run["category"], torch.arange(K), torch.zeros(K, 3), said)


def train(
    clouds: CloudSet,
    *,
    out: str | Path,
    category: str = "",
    recipe: Recipe = OURS,
    degrees: float = 45.0,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Predictor:
    """Learn the keypoints of a category from its clouds, without labels; a run that was killed goes on.

    A finished run goes on, too, if more epochs are asked for; its learning rate falls as it was begun. Of 64 clouds or
    more every eighth is set aside: it calibrates the confidence.

    Args:
        clouds: in any units; each is normalised.
        out: folder for model, state and logs.
        category: its name.
        recipe: network, losses, batches and schedule; `OURS`, `PAPER` or one of your own. Its batch is at most the
            number of clouds and is made a multiple of the devices.
        degrees: in [0, 180]; the largest rotation about the vertical, drawn anew for every batch, on top of what the
            clouds come with. For clouds that are not aligned among themselves pass 180.
        seed: of initial weights, batches and rotations.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done) after every step.

    Returns:
        The predictor, which is also in `out`.

    Raises:
        TypeError: clouds that are no `CloudSet`, a recipe that is no `Recipe`.
        ValueError: fewer clouds than two or than devices, arguments out of range, a folder with a run of other clouds
            or of another recipe.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe: expected a Recipe such as OURS or PAPER, found {type(recipe).__name__}")
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees: expected a number in [0, 180], found {degrees}")
    every = _enough(clouds, check_int(devices, "devices", low=1)).normalised()
    ready, aside = set_aside(every) if recipe.network == "pose_first" else (every, None)
    key = cache_key(ready.points)
    model, ready = _begin(recipe, ready, degrees, seed)
    n, N = ready.points.shape[:2]
    plan = recipe.batches
    batches = CloudBatches(
        ready,
        batch_size=max(min(plan.size, n) // devices, 1) * devices,
        n_points=N,
        n_seen=None if plan.n_seen is None else min(N, plan.n_seen),
        degrees=degrees,
        missing=plan.missing,
        noise=plan.noise,
        seed=seed,
    )
    about = {"recipe": recipe.name, "network": recipe.network, "degrees": degrees, "seed": seed, "shapes": n}
    about |= {"points": N, "data": key}
    said = {**asdict(plan), "size": batches.batch_size}
    run = {
        **about,
        "category": category,
        "settings": model.settings,
        "losses": asdict(recipe.losses),
        "batches": said,
    }
    fit(
        model,
        batches,
        recipe.losses,
        out=out,
        schedule=_as_begun(recipe.schedule, Path(out)),
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        run=run,
        progress=progress,
    )
    about["epochs"] = recipe.schedule.epochs
    predictor = _finish(model.eval(), category, ready, degrees, seed, about)
    if aside is not None:
        if progress is not None:
            progress("calibrating", 1.0)
        steps = min(recipe.placement_steps, (recipe.schedule.epochs or 1) * batches.n_batches)
        predictor = _with_confidence(
            predictor, calibrate(predictor.model, predictor.group, ready, aside, steps, seed)
        )
    predictor.save(out)
    return predictor


def _usable(points: Any) -> Tensor:
    """Clouds (..., N, 3) as a tensor, checked."""
    points = as_points(points, "... N 3", "points")
    if not points.numel():
        raise ValueError(f"points: expected at least one cloud, found shape {tuple(points.shape)}")
    check_finite(points, "points")
    if bool(((points.amax(-2) - points.amin(-2)).amax(-1) <= 0).any()):
        raise ValueError("points: expected clouds of positive size, found one whose points are all the same")
    return points


def _rotation(R: Tensor) -> Similarity:
    """Rotations (B, 3, 3) as similarity transforms."""
    return Similarity(R, R.new_zeros(len(R), 3), R.new_ones(len(R)))


def register(predictor: Predictor, sources: Any, targets: Any) -> tuple[Similarity, Tensor, Tensor]:
    """Similarity transforms that bring each source cloud onto the target it fits best, by ordered keypoints alone.

    Clouds are rotated about the vertical, or about any axis where the network allows for that.

    Args:
        predictor: of the category of the clouds.
        sources: (S, N, 3) in any units.
        targets: (T, M, 3) in any units, the templates.

    Returns:
        motion: R (S, 3, 3), t (S, 3) and scale (S,); ``motion(sources)`` lie on the targets.
        target: (S,) int64, which one.
        residual: (S,) root mean square distance of the keypoints, over half the longest side of the target.

    Raises:
        TypeError, ValueError: as `Predictor.predict`.
    """
    moving, still = (predictor.predict(x).keypoints for x in (sources, targets))
    S, T = len(moving), len(still)
    fits = metrics.fit_similarity(
        moving[:, None].expand(-1, T, -1, -1), still[None].expand(S, -1, -1, -1), up=predictor.model.axis
    )
    size = normalise(targets)[2]
    off = (fits(moving[:, None].expand(-1, T, -1, -1)) - still).square().sum(-1).mean(-1).sqrt() / size
    residual, target = off.min(1)
    row = torch.arange(S)
    motion = Similarity(*(x[row, target] for x in fits))
    return motion, target, residual


def _with_confidence(predictor: Predictor, made: Calibrated) -> Predictor:
    about = predictor.about | {"calibration": made.about}
    return replace(predictor, about=about, placement=made.placement, confidence=made.confidence)


def _as_begun(schedule: Any, out: Path) -> Any:
    """The schedule, with the steps of the learning rate of the run in `out`, if there is one that has fewer epochs."""
    stored = read_state(out) if out.is_dir() else None
    if stored is None or not 0 < len(stored[0]["history"]) < schedule.epochs:
        return schedule
    return replace(schedule, every=stored[0]["run"].get("every", schedule.every))


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


def _begin(recipe: Recipe, ready: CloudSet, degrees: float, seed: int) -> tuple[Network, CloudSet]:
    """The network before training, and the clouds as it is to see them."""
    settings = NETWORKS[recipe.network].settings_of_data(up=ready.up, degrees=degrees)
    with seeded(seed):
        model = build(recipe.network, {**settings, **recipe.settings})
    for _ in range(
        recipe.pose_rounds
    ):  # where clouds come rotated, their boxes are right only once poses are known
        assert isinstance(model, CategoryKeypoints)  # a recipe has rounds only for this network
        model.prepare(ready.rotated(degrees, seed=seed)[0], seed=seed)
        ready = replace(ready, points=settle(model, ready.points)[0])
    return model, ready


def _finish(
    model: Network, category: str, ready: CloudSet, degrees: float, seed: int, about: dict[str, Any]
) -> Predictor:
    """Non-maximum suppression over the training clouds."""
    K = model.basis.n_keypoints
    every = Predictor(model, category, torch.arange(K), torch.zeros(K, 3))
    canonical = every.predict_normalised(ready.rotated(degrees, seed=seed)[0]).canonical
    group = metrics.merge_keypoints(canonical)
    return Predictor(model, category, group, metrics.merged(canonical, group).mean(0), about)
