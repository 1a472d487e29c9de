"""`geoframe landmarks`: learn K landmarks from a folder of images; predict with them or an object frame, measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from geoframe.heads.trained import LandmarkPredictor


def train(
    *,
    data: Path,
    out: Path,
    k: int = 20,
    method: Literal["sparse", "inter-intra"] = "sparse",
    recipe: Literal["geoframe", "paper", "shifted", "baseline"] = "geoframe",
    minutes: float | None = None,
    steps: int | None = None,
    frame: Path | None = None,
    crop: Literal["whole", "centre", "box", "landmarks"] = "whole",
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
) -> None:
    """Learn K landmarks from images of a category, without labels; a run that was killed goes on.

    OUT gets model.safetensors and model.json, log.csv, the same for TensorBoard, and the state to go on from. Images
    that cannot be read are told and left out.

    Args:
        data: a folder of images, or the root of CelebA, AFLW or 300-W; landmarks, if there are any, are not used.
        out: folder for the model.
        k: number of landmarks.
        method: sparse is chapter 4 of the thesis, inter-intra the paper of that name.
        recipe: geoframe is ours, which learns an object frame first; paper the published one; of sparse also shifted,
            of inter-intra also baseline.
        minutes: budget of time, after the object frame; by default the recipe's number of steps.
        steps: number of steps, likewise.
        frame: of sparse with recipe geoframe: folder that `geoframe frame train` wrote, to start from.
        crop: how images become squares; landmarks crops by them, which then is no longer unsupervised.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
    """
    from geoframe.cli._points import lasting, learn
    from geoframe.models import inter_intra, object_frame, sparse_landmarks

    system: Any = sparse_landmarks if method == "sparse" else inter_intra
    if recipe not in system.RECIPES:
        raise ValueError(
            f"--recipe: expected {', '.join(system.RECIPES)} with --method {method}, found {recipe}"
        )
    plan = lasting(system.RECIPES[recipe].with_k(k), minutes, steps)
    more: dict[str, Any] = {}
    if frame is not None:
        if method != "sparse" or recipe != "geoframe":
            raise ValueError(
                "--frame: expected only with --method sparse and --recipe geoframe, found another"
            )
        more["frame"] = object_frame.load(frame)
    common: dict[str, Any] = {"seed": seed, "devices": devices, "accelerator": accelerator}
    learn(system, data, out, plan, crop=crop, **common, **more)


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
    """Landmarks of images, and of an object frame its colours: landmarks.json, landmarks.png, frame.png, warped.png.

    The K landmarks that were learned without labels or, once there are annotated images, those of them: a few are
    enough, from a JSON or CSV file of points. frame.png shows each image beside its frame, warped.png the first image
    in the shape of the others. The frames of a video are a folder of images like any other. Images that cannot be
    read are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        model: folder that `geoframe frame train` or `geoframe landmarks train` wrote.
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

    bad: list[str] = []
    predictor = with_regressor(_load(model)[1], labelled, method, seed, bad)
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
    """Measure landmarks, or an object frame, on annotated images: evaluation.json and evaluation.md.

    A regressor learns from the annotated images of --labelled, once for each number of labels (three draws, averaged),
    and is measured on --data. No person should be in both.

    Args:
        model: folder that `geoframe frame train` or `geoframe landmarks train` wrote.
        data: annotated images to measure on: a folder with landmarks.csv or landmarks.json.
        labelled: annotated images to learn from, likewise.
        out: folder for the results.
        labels: how many annotated images the regressor learns from, one run for each number.
        method: cascade is ours; linear the papers' regression.
        seed: of draws, pairs and warps.
    """
    from geoframe.cli._points import counts, labelled_squares, write_evaluation

    asked = counts(labels)
    system, predictor = _load(model)
    bad: list[str] = []
    known = labelled_squares(predictor, labelled, bad)
    test = labelled_squares(predictor, data, bad)
    numbers = system.evaluate(predictor, known, test[:2], labels=asked, method=method, seed=seed)
    about = {"recipe": predictor.about["recipe"], "method": method, "labelled": len(known[0])}
    write_evaluation(out, numbers, about, bad, len(test[0]))


def _load(model: Path) -> tuple[Any, LandmarkPredictor]:
    """The system that a folder holds a model of, and the model.

    Raises:
        ValueError: a folder with none.
    """
    from geoframe._files import read_text
    from geoframe.models import inter_intra, object_frame, sparse_landmarks

    about = model / "model.json"
    told = read_text(about) if about.is_file() else ""
    for system in (object_frame, inter_intra):
        if f'"{system.predictor.KIND}"' in told:
            return system, system.load(model)
    return sparse_landmarks, sparse_landmarks.load(model)
