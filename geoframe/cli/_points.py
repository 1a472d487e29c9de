"""What `geoframe frame` and `geoframe landmarks` share: reading, the files of predictions, the table of errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoframe.cli._common import PartFailed, progress_bar, save_json, text_table, warn

if TYPE_CHECKING:
    from geoframe.data.face_files import LandmarkSet, Squares

_SHOWN = 32


def lasting(plan: Any, minutes: float | None, steps: int | None) -> Any:
    """The recipe with the length that was asked for, if any was.

    Raises:
        ValueError: both minutes and steps.
    """
    if minutes is not None and steps is not None:
        raise ValueError("--steps: expected --minutes or --steps, found both")
    if minutes is not None:
        return plan.with_minutes(minutes)
    return plan if steps is None else plan.with_steps(steps)


def learn(system: Any, data: Path, out: Path, plan: Any, **options: Any) -> None:
    """Train a system on the images of a folder, with a bar, and tell what was written.

    Args:
        system: module with `train`.
        data: see `load_landmark_images`.
        out: folder for the model.
        plan: the recipe.
        **options: of `train`.
    """
    from geoframe.data.face_files import load_landmark_images

    images = load_landmark_images(data)
    with progress_bar(f"{len(images)} images") as progress:
        predictor = system.train(images, out=out, recipe=plan, progress=progress, on_bad_file=warn, **options)
    print(f"{predictor.about['steps']} steps; wrote model.safetensors, model.json and log.csv to {out}")


def with_regressor(predictor: Any, labelled: Path | None, method: str, seed: int, bad: list[str]) -> Any:
    """The predictor with landmarks learned from annotated images; as it is without any."""
    from geoframe.data.face_files import load_landmark_images

    if labelled is None:
        return predictor
    known, cut = predictor.squares(load_landmark_images(labelled), on_bad_file=bad.append)
    return predictor.with_landmarks(cut.images, cut.points, groups=groups_of(known), method=method, seed=seed)


def groups_of(images: LandmarkSet) -> Any:
    """Numbers of people, images without a known one each a group of its own."""
    import torch

    own = torch.arange(len(images)) + (int(images.identity.max()) if len(images) else 0) + 1
    return torch.where(images.identity >= 0, images.identity, own)


def write_predictions(
    out: Path, model: Path, predictor: Any, kept: LandmarkSet, cut: Squares, bad: list[str], page: bool
) -> None:
    """landmarks.json, landmarks.png and, of frames, frame.png and warped.png; with `page` also landmarks.html.

    Raises:
        PartFailed: images that were left out.
    """
    from geoframe._files import staged_folder
    from geoframe.models.object_frame import Predictor as Frame
    from geoframe.viz.images import as_picture, contact_sheet, draw_points
    from geoframe.viz.page import card, image, write_page
    from geoframe.viz.surfaces import save_picture
    from geoframe.warps import to_pixels

    has_own = predictor.own_points(cut.images[:1]) is not None
    found = predictor.predict(kept) if predictor.can_predict or has_own else None
    side = cut.images.shape[-1]
    first = range(min(_SHOWN, len(kept)))
    pictures = [cut.images[i].movedim(0, -1).numpy() for i in first]
    with staged_folder(out) as folder:
        told: dict[str, Any] = {"model": str(model), "failed": bad}
        if found is not None:
            told["images"] = [
                {"image": name, "points": p.tolist(), "confidence": float(c)}
                for name, p, c in zip(found.names, found.points, found.confidence, strict=True)
            ]
            told["warnings"] = list(found.warnings)
            shown = []
            for i in first:
                points = to_pixels(_to_square(cut, i, found.points[i]), side, side)
                shown.append(draw_points(pictures[i], points, scale=2))
            save_picture(contact_sheet(shown, kept.names[: len(shown)], columns=8), folder / "landmarks.png")
            if page:
                boxes = [card(n, image(s, n)) for n, s in zip(kept.names, shown, strict=False)]
                write_page(folder / "landmarks.html", "Landmarks", "".join(boxes))
        if isinstance(predictor, Frame):
            some = cut.images[: len(first)]
            colours, warped = predictor.colours(some), predictor.warp_onto(some[:1].expand_as(some), some)
            for name, beside in (("frame", colours), ("warped", [as_picture(x) for x in warped])):
                pairs = [x for i in first for x in (pictures[i], beside[i])]
                save_picture(contact_sheet(pairs, columns=8), folder / f"{name}.png")
        save_json(told, folder / "landmarks.json")
    for line in (*bad, *(found.warnings if found is not None else ())):
        warn(line)
    print(f"{len(kept)} images; wrote {', '.join(sorted(p.name for p in out.iterdir()))} to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} images were left out, see above")


def _to_square(cut: Squares, i: int, points: Any) -> Any:
    from geoframe.warps import to_normalised

    side = cut.images.shape[-1]
    return to_normalised(cut.crops[i].to_crop(points), side, side)


def write_evaluation(
    out: Path, numbers: dict[str, Any], about: dict[str, Any], bad: Sequence[str], images: int
) -> None:
    """evaluation.json and the table of errors by number of labels.

    Raises:
        PartFailed: images that were left out.
    """
    from geoframe._files import staged_folder

    by_labels = {k: v for k, v in numbers.items() if isinstance(v, dict) and not k.endswith("_range")}
    names = list(by_labels)
    rows = [[count, *(by_labels[n][count] for n in names)] for count in by_labels[names[0]]]
    text = text_table(rows, ["labels", *names])
    rest = {k: v for k, v in numbers.items() if not isinstance(v, dict)}
    text += "".join(f"\n{k}: {v:.4g}" for k, v in rest.items())
    with staged_folder(out) as folder:
        save_json({**about, "images": images, "failed": list(bad), **numbers}, folder / "evaluation.json")
        (folder / "evaluation.md").write_text(f"```\n{text}\n```\n", encoding="utf-8")
    for line in bad:
        warn(line)
    print(text)
    print(f"wrote evaluation.json and evaluation.md to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} images were left out, see above")


def counts(labels: Sequence[str]) -> list[int | str]:
    """Numbers of labels as typed: integers or "all".

    Raises:
        ValueError: another word.
    """
    if not labels or not all(x == "all" or (x.isdigit() and int(x) > 0) for x in labels):
        raise ValueError(f"--labels: expected numbers or all, such as 10 50 all, found {' '.join(labels)!r}")
    return [x if x == "all" else int(x) for x in labels]


def labelled_squares(predictor: Any, path: Path, bad: list[str]) -> tuple[Any, Any, Any]:
    """Squares, landmarks and groups of annotated images.

    Raises:
        ValueError: no image with landmarks.
    """
    from geoframe.data.face_files import load_landmark_images

    images = load_landmark_images(path)
    images = images.only(images.annotated)
    if not len(images):
        raise ValueError(f"{path}: expected images with landmarks (a landmarks.csv or .json), found none")
    kept, cut = predictor.squares(images, on_bad_file=bad.append)
    return cut.images, cut.points, groups_of(kept)
