"""`geoframe features`: features of pixels from motion; train on videos and renders, predict, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoframe.cli._common import PartFailed, progress_bar, save_json, warn

if TYPE_CHECKING:
    from torch import Tensor


def train(
    *,
    out: Path,
    data: Path | None = None,
    renders: int = 0,
    recipe: Literal["geoframe", "paper"] = "geoframe",
    form: Literal["kta", "ce", "ce-rev"] | None = None,
    steps: int | None = None,
    gap: int = 3,
    flow: Literal["own", "dis"] = "own",
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
) -> None:
    """Learn features from how pixels move, without labels; a run that was killed goes on.

    OUT gets model.safetensors and model.json, log.csv, the same for TensorBoard, and the state to go on from. Frames
    that cannot be read are told and left out; the exit status is 1 then.

    Args:
        out: folder for the model.
        data: folder of frames, or of folders of frames.
        renders: how many scenes of the zoo with exact flow are added.
        recipe: geoframe is ours, paper the published settings.
        form: of the loss, if not that of the recipe.
        steps: length of the run, if not that of the recipe.
        gap: frames between the two of a pair.
        flow: own is deep matching; dis is OpenCV's, of the extra bench, and much faster.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
    """
    from geoframe._check import check_int
    from geoframe.models.flow_similarity import train as learn
    from geoframe.models.flow_similarity.recipe import RECIPES

    check_int(renders, "--renders", low=0)
    check_int(gap, "--gap", low=1)
    if data is None and not renders:
        raise ValueError("--data, --renders: expected frames or a number of renders, found neither")
    plan = RECIPES[recipe] if form is None else RECIPES[recipe].with_form(form)
    plan = plan if steps is None else plan.with_steps(steps)
    bad: list[str] = []
    frames = [] if data is None else _frames(data, gap, flow, bad)
    frames += _rendered(renders, plan.crop, seed) if renders else []
    for line in bad:
        warn(line)
    with progress_bar(f"{len(frames)} frames") as progress:
        learn(
            frames,
            out=out,
            recipe=plan,
            seed=seed,
            devices=devices,
            accelerator=accelerator,
            progress=progress,
        )
    print(f"learned from {len(frames)} frames; wrote model.safetensors, model.json and log.csv to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} pairs of frames were left out, see above")


def predict(model: Path, /, *, data: Path, out: Path, stride: int = 4, clusters: int = 6) -> None:
    """Describe the pixels of pictures: NAME.npz with features (D, h, w) and clusters (h, w), NAME.png, features.json.

    The pixels of all pictures are grouped together; NAME.png shows picture, features as colours and groups. Pictures
    that cannot be read are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        model: folder that `geoframe features train` wrote.
        data: a picture, or a folder of them.
        out: folder for the results.
        stride: pixels between features.
        clusters: groups.
    """
    from geoframe._files import staged_folder
    from geoframe.models.flow_similarity import cluster, load
    from geoframe.viz.flow import draw_features
    from geoframe.viz.surfaces import save_picture

    predictor = load(model)
    bad: list[str] = []
    pictures = _pictures(data, bad)
    features = {name: predictor.predict(image, stride=stride) for name, image in pictures.items()}
    groups = cluster(list(features.values()), clusters)
    for line in bad:
        warn(line)
    with staged_folder(out) as folder:
        for (name, field), group in zip(features.items(), groups, strict=True):
            _save_npz(folder / f"{name}.npz", field, group)
            save_picture(draw_features(pictures[name], field, group), folder / f"{name}.png")
        told = {"model": str(model), "stride": stride, "pictures": list(features), "failed": bad}
        save_json(told, folder / "features.json")
    print(f"features of {len(features)} pictures; wrote an npz and a PNG each to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} of {len(features) + len(bad)} pictures were left out, see above")


def evaluate(model: Path, /, *, data: Path, out: Path, stride: int = 4, seed: int = 0) -> None:
    """Measure features by a linear probe for the foreground: evaluation.json.

    Every second picture is for the probe to learn from, the others test it.

    Args:
        model: folder that `geoframe features train` wrote.
        data: folder of pictures NAME.jpg with masks NAME.png.
        out: folder for the result.
        stride: pixels between features.
        seed: of the pixels that the probe learns from.
    """
    from geoframe._files import staged_folder
    from geoframe.data.image_files import read_image, read_mask
    from geoframe.models.flow_similarity import evaluate as measure
    from geoframe.models.flow_similarity import load

    predictor = load(model)
    files = sorted(p for p in data.glob("*.jpg") if p.with_suffix(".png").is_file())
    if len(files) < 2:
        raise ValueError(f"{data}: expected at least two pictures NAME.jpg with NAME.png, found {len(files)}")
    numbers = measure(
        predictor,
        [(read_image(p), read_mask(p.with_suffix(".png"))) for p in files],
        stride=stride,
        seed=seed,
    )
    with staged_folder(out) as folder:
        save_json(numbers, folder / "evaluation.json")
    print(f"foreground by a linear probe: IoU {numbers['probe_iou']:.1f} %; wrote evaluation.json to {out}")


def _frames(data: Path, gap: int, flow: str, bad: list[str]) -> list[tuple[Tensor, Tensor]]:
    """Frames with their flow to the frame `gap` later, of one folder or of each folder in it."""
    from geoframe.data.image_files import list_images, read_image
    from geoframe.flow import dis_flow
    from geoframe.models.deep_matching import match_images

    folders = sorted(p for p in data.glob("*") if p.is_dir()) or [data]
    found: list[tuple[Tensor, Tensor]] = []
    for folder in folders:
        images = [p for p in list_images(folder) if p.suffix.lower() != ".png" or folder == data]
        for a, b in list(zip(images, images[gap:], strict=False))[::gap]:
            try:
                one, two = read_image(a), read_image(b)
                found.append((one, dis_flow(one, two) if flow == "dis" else match_images(one, two).flow))
            except ValueError as err:
                bad.append(f"{a.name} to {b.name}: {err}")
    if not found:
        raise ValueError(f"{data}: expected frames {gap} apart that can be read, found none")
    return found


def _rendered(n: int, crop: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Scenes of the zoo with their exact flow."""
    from geoframe.data.moving_scenes import zoo_scene
    from geoframe.data.rendered import categories, render_set

    pictures = next(render_set(categories(), n, size=128, seed=seed).batches(n))
    side = round(1.3 * crop)
    scenes = (zoo_scene(pictures.image, pictures.mask, (side, side), seed=seed + i) for i in range(n))
    return [(s.image0, s.flow) for s in scenes]


def _pictures(data: Path, bad: list[str]) -> dict[str, Tensor]:
    """Pictures by the names of their files, one or those of a folder."""
    from geoframe.data.image_files import list_images, read_image

    found: dict[str, Any] = {}
    for path in list_images(data) if data.is_dir() else [data]:
        try:
            found[path.stem] = read_image(path)
        except ValueError as err:
            if not data.is_dir():
                raise
            bad.append(str(err))
    if not found:
        raise ValueError(f"{data}: expected at least one picture that can be read, found none")
    return found


def _save_npz(path: Path, field: Tensor, groups: Tensor) -> None:
    import numpy as np

    np.savez_compressed(path, features=field.numpy(), clusters=groups.numpy())
