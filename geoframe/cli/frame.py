"""`geoframe frame`: learn an object frame from a folder of images, predict with it, measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from geoframe.cli._common import progress_bar, warn


def train(
    *,
    data: Path,
    out: Path,
    recipe: Literal["geoframe", "dense", "symmetric", "compressed"] = "geoframe",
    group: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    backbone: str | None = None,
    crop: Literal["whole", "centre", "box", "landmarks"] = "whole",
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
) -> None:
    """Learn an object frame from images of a category, without labels; a run that was killed goes on.

    OUT gets model.safetensors and model.json, log.csv, the same for TensorBoard, and the state to go on from. Images
    that cannot be read are told and left out.

    Args:
        data: a folder of images, or the root of CelebA, AFLW or 300-W; landmarks, if there are any, are not used.
        out: folder for the model.
        recipe: geoframe is ours; dense, symmetric and compressed are chapters 5, 6 and 7 of the thesis.
        group: none, mirror or rotation-N; by default the recipe's.
        minutes: budget of time; by default the recipe's number of steps.
        steps: number of steps.
        backbone: of recipe geoframe: small, efficientnet-lite0 or auto:FOLDER.
        crop: how images become squares; landmarks crops by them, which then is no longer unsupervised.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
    """
    from dataclasses import replace

    from geoframe.cli._points import lasting
    from geoframe.data.face_files import load_landmark_images
    from geoframe.models.object_frame import RECIPES
    from geoframe.models.object_frame import train as learn

    plan = RECIPES[recipe]
    if backbone is not None:
        if recipe != "geoframe":
            raise ValueError(f"--backbone: expected only with --recipe geoframe, found {recipe}")
        plan = replace(plan, settings={**plan.settings, "backbone": backbone})
    if group is not None:
        plan = replace(plan, group=group)
    plan = lasting(plan, minutes, steps)
    images = load_landmark_images(data)
    with progress_bar(f"{len(images)} images") as progress:
        predictor = learn(
            images,
            out=out,
            recipe=plan,
            crop=crop,
            seed=seed,
            devices=devices,
            accelerator=accelerator,
            progress=progress,
            on_bad_file=warn,
        )
    print(f"{predictor.about['steps']} steps; wrote model.safetensors, model.json and log.csv to {out}")


def predict(
    model: Path,
    /,
    *,
    data: Path,
    out: Path,
    labelled: Path | None = None,
    method: Literal["cascade", "linear"] = "cascade",
    save: Path | None = None,
    page: bool = False,
    seed: int = 0,
) -> None:
    """The frame of images as colours, and their landmarks: landmarks.json, landmarks.png, frame.png.

    Landmarks need annotated images, once: a few are enough, from a JSON or CSV file of points. Images that cannot be
    read are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        model: folder that `geoframe frame train` wrote.
        data: a folder of images.
        out: folder for the results.
        labelled: annotated images to learn your landmarks from: a folder with landmarks.json or landmarks.csv, or
            such a file.
        method: cascade is ours; linear the papers' regression.
        save: folder for the model with these landmarks, which needs no --labelled from then on.
        page: also write landmarks.html.
        seed: of what is learned from the annotated images.
    """
    from geoframe.cli._points import with_regressor, write_predictions
    from geoframe.data.face_files import load_landmark_images
    from geoframe.models.object_frame import load

    bad: list[str] = []
    predictor = with_regressor(load(model), labelled, method, seed, bad)
    if save is not None:
        predictor.save(save)
    kept, cut = predictor.squares(load_landmark_images(data), on_bad_file=bad.append)
    write_predictions(out, model, predictor, kept, cut, bad, page)


def evaluate(
    model: Path,
    /,
    *,
    data: Path,
    labelled: Path,
    out: Path,
    labels: tuple[str, ...] = ("10", "50", "all"),
    method: Literal["cascade", "linear"] = "cascade",
    seed: int = 0,
) -> None:
    """Measure a frame on annotated images: evaluation.json and evaluation.md.

    A regressor learns from the annotated images of --labelled, once for each number of labels (three draws, averaged),
    and is measured on --data. No person should be in both.

    Args:
        model: folder that `geoframe frame train` wrote.
        data: annotated images to measure on: a folder with landmarks.csv or landmarks.json.
        labelled: annotated images to learn from, likewise.
        out: folder for the results.
        labels: how many annotated images the regressor learns from, one run for each number.
        method: cascade is ours; linear the papers' regression.
        seed: of draws, pairs and warps.
    """
    from geoframe.cli._points import counts, labelled_squares, write_evaluation
    from geoframe.models.object_frame import evaluate as measure
    from geoframe.models.object_frame import load

    asked = counts(labels)
    predictor = load(model)
    bad: list[str] = []
    known = labelled_squares(predictor, labelled, bad)
    test = labelled_squares(predictor, data, bad)
    numbers = measure(predictor, known, test[:2], labels=asked, method=method, seed=seed)
    about = {"recipe": predictor.about["recipe"], "method": method, "labelled": len(known[0])}
    write_evaluation(out, numbers, about, bad, len(test[0]))
