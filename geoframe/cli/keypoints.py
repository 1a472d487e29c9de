"""`geoframe keypoints`: train on the clouds of a category, predict, evaluate, register."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoframe.cli._clouds import predict_each, read_clouds, read_each
from geoframe.cli._common import PartFailed, given, progress_bar, save_json, warn

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.models.category_keypoints import Predictor

_COLUMNS = {
    "coverage_percent": "coverage %",
    "model_error_percent": "model error %",
    "correspondence_percent": "correspondence %",
    "inclusivity_percent": "inclusivity %",
    "symmetry_error_deg": "symmetry error deg",
    "n_keypoints": "N'",
}


def train(
    *,
    data: str,
    category: str,
    out: Path,
    recipe: Literal["geoframe", "paper"] = "geoframe",
    epochs: int = 200,
    degrees: float = 45.0,
    points: int = 1024,
    keypoints: int | None = None,
    mode: Literal["symmetric", "deformation", "plain"] | None = None,
    rotation: Literal["vertical", "any"] | None = None,
    forms: Literal["released", "written"] | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    up: Literal["x", "y", "z"] | None = None,
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
) -> None:
    """Learn the keypoints of a category from its clouds, without labels; a run that was killed goes on.

    OUT gets model.safetensors and model.json, log.csv, the same for TensorBoard, and the state to go on from. Files
    that cannot be read are told and left out.

    Args:
        data: folder (ModelNet, ShapeNet-part, Dynamic FAUST, npz, meshes or clouds), file, or "procedural".
        category: its name in that data; of procedural data chair, table, aeroplane, car or motorbike.
        out: folder for the model.
        recipe: geoframe is ours, paper the published method.
        epochs: passes over the data; the learning rate is halved every fifth of them.
        degrees: how far clouds may be rotated about the vertical, both ways; 180 for any.
        points: points a cloud.
        keypoints: keypoints before non-maximum suppression; by default 12, with recipe paper 14.
        mode: every shape symmetric (the default); only the space of deformations (for what moves its limbs); or no
            symmetry.
        rotation: of recipe paper, about the vertical or any axis.
        forms: of recipe paper's losses, those of its released code (the default) or as it is written.
        batch_size: clouds a step; by default 16, with recipe paper 32.
        limit: learn from the first so many clouds only, to try things out; by default from all.
        up: the vertical axis, if not the one usual in that data.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
    """
    from geoframe.data import load_clouds
    from geoframe.models.category_keypoints import train as learn
    from geoframe.models.category_keypoints.recipe import PAPER_AS_WRITTEN, RECIPES

    if recipe != "paper" and (rotation or forms):
        raise ValueError("--rotation, --forms: expected only with --recipe paper, found another recipe")
    plan = PAPER_AS_WRITTEN if forms == "written" else RECIPES[recipe]
    plan = plan.with_epochs(epochs).with_settings(
        **given(n_keypoints=keypoints, mode=mode, rotation=rotation)
    )
    if batch_size is not None:
        plan = plan.with_batch_size(batch_size)
    clouds = load_clouds(data, category, n_points=points, up=up, limit=limit, on_bad_file=warn)
    if data == "procedural":
        category = category.removeprefix("procedural-")  # the experiments' spelling
    with progress_bar(f"{category}, {len(clouds)} clouds") as progress:
        predictor = learn(
            clouds,
            out=out,
            category=category,
            recipe=plan,
            degrees=degrees,
            seed=seed,
            devices=devices,
            accelerator=accelerator,
            progress=progress,
        )
    if told := _calibration(predictor):
        print(told)
    print(
        f"{predictor.n_keypoints} keypoints of {category}; wrote model.safetensors, model.json and log.csv to {out}"
    )


def predict(
    model: str,
    clouds: list[str],
    /,
    *,
    data: str | None = None,
    out: Path = Path("keypoints"),
    category: str | None = None,
    split: Literal["train", "test", "val", "all"] | None = None,
    show: int = 12,
    points: int | None = None,
    up: Literal["x", "y", "z"] | None = None,
) -> None:
    """Find the keypoints of clouds: keypoints.json, NAME.keypoints.ply each, keypoints.png and keypoints.html.

    Keypoints are in the clouds' own coordinates, in the same order for all. keypoints.json has by the clouds' names
    also `scores`, `uncertainties` and `warnings`, which are told on the screen, too; `up` is the vertical axis that the
    clouds were taken to have. Files that cannot be read, or hold no usable cloud, are told and left out; the exit
    status is 1 then, and 2 if nothing is left.

    Args:
        model: folder that `geoframe keypoints train` wrote; or the name of a category of which the package has a model
            of procedural shapes, such as chair, which doubts more real ones than a model trained on such.
        clouds: one or several mesh or cloud files, or what `train` takes.
        data: the same as an option.
        out: folder for the results.
        category: if not the one the model was trained on.
        split: which part of the data; by default all files of a plain folder, else what is for the test.
        show: how many clouds come into picture and page.
        points: points a cloud; by default as many as in the training.
        up: the vertical axis of the data; by default the layout's, or else that along which the clouds of a folder
            make sense together, which is told; where a single cloud makes no sense, another one is tried.
    """
    import torch

    from geoframe._check import check_int
    from geoframe._files import staged_folder
    from geoframe.models.category_keypoints import load
    from geoframe.surface import PointCloud, save
    from geoframe.viz.clouds import draw_clouds, keypoint_colors, write_clouds_page
    from geoframe.viz.surfaces import save_picture

    check_int(show, "--show", low=1)
    if bool(clouds) == (data is not None):
        there = "both" if clouds else "neither"
        raise ValueError(
            f"--data: expected the clouds once, as second argument or with --data, found {there}"
        )
    predictor = load(model)
    bad: list[str] = []
    some = read_clouds(clouds or [str(data)], category, split, up, points, predictor, bad=bad)
    some, found = predict_each(predictor, some, bad)
    names, keypoints = list(some.names), found.keypoints
    for line in bad:
        warn(line)
    warnings = {name: text for name, text in zip(names, found.warnings, strict=True) if text}
    for name, text in warnings.items():
        warn(f"{name}: {text}")
    scores = found.score.tolist()
    colors = torch.as_tensor(keypoint_colors(predictor.n_keypoints))
    shown = [x.numpy() for x in some.points[:show]], [k.numpy() for k in keypoints[:show]]
    drawn = [
        _standing(x, found.rotation[:show], predictor.up, some.up)
        for x in (some.points[:show], keypoints[:show])
    ]
    titles = [_title(*x, predictor.limit) for x in zip(names, scores, strict=True)][:show]
    with staged_folder(out) as folder:
        told = {
            "model": model,
            "category": predictor.category,
            "limit": predictor.limit,
            "up": "xyz"[some.up],
        }
        tables = {"keypoints": keypoints, "scores": found.score, "uncertainties": found.uncertainty}
        told |= {key: dict(zip(names, x.tolist(), strict=True)) for key, x in tables.items()}
        save_json(told | {"warnings": warnings, "failed": bad}, folder / "keypoints.json")
        for name, k in zip(names, keypoints, strict=True):
            save(PointCloud(k.double(), colors=colors), folder / f"{name}.keypoints.ply")
        save_picture(draw_clouds(*drawn, up=some.up, titles=titles), folder / "keypoints.png")
        title = f"{predictor.n_keypoints} keypoints of {predictor.category or 'the category'}"
        write_clouds_page(folder / "keypoints.html", *shown, names=titles, up=some.up, title=title)
    print(
        f"{predictor.n_keypoints} keypoints on {len(names)} clouds; wrote keypoints.json, .png, .html and PLY to {out}"
    )
    if bad:
        raise PartFailed(f"{len(bad)} of {len(names) + len(bad)} clouds were left out, see above")


def _standing(points: Tensor, rotation: Tensor, own: int, up: int) -> list[Any]:
    """Arrays of points (n, N, 3), those of objects that stand along another axis than `up` on their feet.

    Args:
        points: of clouds, or keypoints.
        rotation: (n, 3, 3) from the canonical frame, whose vertical axis is `own`, to the clouds.
        own: see `rotation`.
        up: the vertical axis of the picture.
    """
    import torch

    from geoframe.placing.look_again import sides_of_box

    sides = torch.stack([torch.eye(3, dtype=torch.float64), *sides_of_box(up)])
    which = (sides[:, up] @ rotation[..., own].double().mT).argmax(0)
    return [x.numpy() for x in (points.double() @ sides[which].mT).to(points)]


def _title(name: str, score: float, limit: float) -> str:
    """A cloud's name with its score, if it has one."""
    if score != score:
        return name
    return f"{name}: score {score:.2f}{', doubtful' if score < limit else ''}"


def _calibration(predictor: Predictor) -> str:
    """What a calibrated model says of itself; empty of another one."""
    made = predictor.about.get("calibration")
    if made is None:
        return ""
    clean, moved = made["flagged"]["clean"], made["flagged"]["moved"]
    told = f"the score, calibrated on {made['clouds']} clouds and odd shapes made of them, doubts "
    told += f"{100 * clean:.0f} % of the clean ones"
    if moved == moved:  # some did
        told += f" and {100 * moved:.0f} % of those whose keypoints corruptions had moved"
    alike = {2: "half a turn", 4: "a quarter of a turn", 36: "any turn"}.get(made.get("turns"))
    return told + (f"; {alike} about the vertical is taken to make no difference" if alike else "")


def evaluate(
    model: str,
    /,
    *,
    data: str,
    out: Path,
    category: str | None = None,
    split: Literal["train", "test", "val", "all"] = "test",
    degrees: float | None = None,
    seed: int = 1,
    points: int | None = None,
    up: Literal["x", "y", "z"] | None = None,
    planes: str | None = None,
) -> None:
    """Measure a model on clouds that are aligned in the data and rotated here: evaluation.json and evaluation.md.

    Files that cannot be read are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        model: folder that `geoframe keypoints train` wrote, finished or not; or a model of the package.
        data: what `train` takes.
        out: folder for the results.
        category: if not the one the model was trained on.
        split: which part of the data; test is every seventh file of a plain folder, as train leaves it.
        degrees: largest rotation about the vertical; by default that of the training.
        seed: of the rotations.
        points: points a cloud; by default as many as in the training.
        up: the vertical axis of the data; by default as of `predict`.
        planes: axes across true planes of symmetry, such as x or xy, once the model's vertical axis is the data's; by
            default those that the clouds have.
    """
    from geoframe._files import staged_folder
    from geoframe.models.category_keypoints import evaluate as measure
    from geoframe.models.category_keypoints import load

    if planes is not None and (not planes or not set(planes) <= set("xyz")):
        raise ValueError(f"--planes: expected letters of axes, such as x or xy, found {planes!r}")
    axes = None if planes is None else tuple("xyz".index(a) for a in planes)
    predictor = load(model)
    bad: list[str] = []
    clouds = read_clouds([data], category, split, up, points, predictor, bad=bad, surfaces=True)
    clouds, _ = predict_each(predictor, clouds, bad)
    up_of_data = "xyz"[clouds.up]
    clouds = clouds.standing(predictor.up)
    for line in bad:
        warn(line)
    if not predictor.about.get("finished", True):
        warn(f"{model}: the run is not finished, it has {predictor.about['epochs']} epochs")
    angle = predictor.about["degrees"] if degrees is None else degrees
    numbers = measure(predictor, clouds, degrees=angle, seed=seed, true_axes=axes)
    text = _markdown(predictor, numbers, len(clouds), angle, beside=data != "procedural")
    with staged_folder(out) as folder:
        save_json(
            {
                "category": predictor.category,
                "shapes": len(clouds),
                "degrees": angle,
                "up": up_of_data,
                "failed": bad,
                **numbers,
            },
            folder / "evaluation.json",
        )
        (folder / "evaluation.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"wrote evaluation.json and evaluation.md to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} of {len(clouds) + len(bad)} clouds were left out, see above")


def register(
    model: str,
    sources: Path,
    targets: Path,
    /,
    *,
    out: Path,
    show: int = 4,
    points: int | None = None,
) -> None:
    """Bring shapes onto templates by their keypoints: registration.json and registration.png.

    For every source the similarity transform x -> scale R x + t to the template it fits best, and the residual:
    the root mean square distance of the keypoints over half the longest side of the template. Files that cannot be
    read, or hold no usable cloud, are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        model: folder that `geoframe keypoints train` wrote, or a model of the package.
        sources: a mesh or cloud file, or a folder of them.
        targets: the template, or a folder of templates.
        out: folder for the results.
        show: how many sources come into the picture.
        points: points a cloud; by default as many as in the training.
    """
    from geoframe._check import check_int
    from geoframe._files import staged_folder
    from geoframe.data import CloudSet
    from geoframe.models.category_keypoints import load
    from geoframe.models.category_keypoints import register as bring
    from geoframe.viz.surfaces import save_picture

    check_int(show, "--show", low=1)
    predictor = load(model)
    bad: list[str] = []
    files, clouds = [], []
    for path in (sources, targets):
        some, points_of = read_each(path, predictor.about["points"] if points is None else points, bad)
        usable, _ = predict_each(predictor, CloudSet(points_of, some, predictor.up), bad)
        files.append(list(usable.names))
        clouds.append(usable.points)
    for line in bad:
        warn(line)
    motion, target, residual = bring(predictor, *clouds)
    rows = [
        {
            "source": files[0][i],
            "target": files[1][int(target[i])],
            "scale": float(motion.scale[i]),
            "rotation": motion.R[i].tolist(),
            "translation": motion.t[i].tolist(),
            "residual": float(residual[i]),
        }
        for i in range(len(files[0]))
    ]
    picture = _overlays(clouds, motion(clouds[0]), target, files, predictor.up, show)
    with staged_folder(out) as folder:
        save_json(rows, folder / "registration.json")
        save_picture(picture, folder / "registration.png")
    for row in rows[:20]:
        print(f"{row['source']} to {row['target']}: scale {row['scale']:.4g}, residual {row['residual']:.4f}")
    print(f"wrote registration.json and registration.png to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} clouds were left out, see above")


def _markdown(
    predictor: Predictor, numbers: dict[str, float], n: int, degrees: float, *, beside: bool
) -> str:
    """The paper's table with our row, the published one beside it where that is wanted, and the other numbers."""
    from geoframe.metrics.clouds import PUBLISHED

    rows = {str(predictor.about["recipe"]): [f"{numbers[k]:.4g}" if k in numbers else "" for k in _COLUMNS]}
    if beside and predictor.category in PUBLISHED:
        rows["published"] = [f"{v:g}" for v in PUBLISHED[predictor.category]]
    head = ["measure", *rows]
    lines = [
        f"# {predictor.category}: {n} shapes, rotated by up to {degrees:g} degrees",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for i, name in enumerate(_COLUMNS.values()):
        lines.append(f"| {name} | {' | '.join(row[i] for row in rows.values())} |")
    lines += ["", "| measure | value |", "|---|---|"]
    lines += [f"| {k} | {v:.4g} |" for k, v in numbers.items() if k not in _COLUMNS]
    return "\n".join(lines) + "\n"


def _overlays(clouds: list[Any], moved: Any, target: Any, files: list[list[str]], up: int, show: int) -> Any:
    """Each source over its template before and after."""
    import numpy as np
    import torch

    from geoframe.viz.clouds import draw_clouds

    red, grey = np.array([0.85, 0.25, 0.2]), np.array([0.45, 0.5, 0.57])
    pictures, titles = [], []
    for i in range(min(show, len(clouds[0]))):
        still = clouds[1][int(target[i])]
        for source, when in ((clouds[0][i], "before"), (moved[i], "after")):
            pictures.append(torch.cat([still, source]).numpy())
            titles.append(f"{Path(files[0][i]).stem} on {Path(files[1][int(target[i])]).stem}, {when}")
    colors = [np.concatenate([np.tile(c, (len(p) // 2, 1)) for c in (grey, red)]) for p in pictures]
    return draw_clouds(pictures, up=up, columns=2, size=420, titles=titles, colors=colors)
