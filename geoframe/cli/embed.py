"""`geoframe embed`: for every pixel a place on a canonical surface; train, predict, evaluate, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoframe.cli._annotated import annotated, compared, read_images, read_match
from geoframe.cli._common import PartFailed, counted, given, progress_bar, read_boxes, save_json, warn

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.canonical.surface import Surface
    from geoframe.data.pixel_samples import PixelSamples
    from geoframe.models.surface_embedding import Predictor, Recipe
    from geoframe.pixels import PixelMap

# Points of a rendered picture that are kept: it is seen a few times, some of its points each time.
_POINTS = 256
_TABLE = {
    "geodesic_error_mean": "geodesic error, mean",
    "geodesic_error_median": "geodesic error, median",
    "gps": "GPS at true foreground",
    "gps_misses_zero": "GPS, misses as zero",
    "gpsm": "GPSm",
    "ap": "AP of GPSm",
    "mask_iou": "mask IoU",
    "mask_iou_inside": "mask IoU without a band of 1 pixel",
    "mirrored": "mirrored",
    "pck_10": "PCK at 0.1 of points carried from image to image",
    "pck_20": "PCK at 0.2",
}


def train(
    *,
    out: Path,
    category: list[str] | None = None,
    data: Path | None = None,
    images: Path | None = None,
    divisor: Literal[255, 256] = 256,
    surface: Path | None = None,
    name: str | None = None,
    start: Path | None = None,
    match: Path | None = None,
    matched: str | None = None,
    n: int | None = None,
    size: int | None = None,
    minutes: float = 20.0,
    steps: int | None = None,
    recipe: Literal["geoframe", "frozen", "paper"] | None = None,
    backbone: str | None = None,
    dim: int | None = None,
    width: int | None = None,
    functions: int | None = None,
    anchor: str | None = None,
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None,
    aside: bool = True,
) -> None:
    """Learn to map pixels to surfaces, from renders of the zoo or from annotated images; a run that was killed goes on.

    OUT gets model.safetensors and model.json, log.csv, the same for TensorBoard, pictures/ of a few fixed images while
    it learns, and the state to go on from. A twentieth of the renders is set aside to calibrate the confidence on.
    Where ten images and more are annotated, every fifth (at most fifty) is not learned from: in the end GPS on these is
    printed, of the model and, where it knows the surface, of its start. Thirty of them calibrate the confidence, which
    else stays that of the start.

    Args:
        out: folder for the model.
        category: of the zoo, one or several: pictures of them are rendered, and told on one surface.
        data: annotated images instead: a JSON file of points, or a COCO-style JSON file of DensePose.
        images: folder of the images that COCO-style data names; by default that of the JSON file, or images/ in it.
        divisor: of the coordinates in COCO-style data: 256, or 255 as the released evaluation reads them.
        surface: of the data: a mesh file or a folder of `geoframe canonical`.
        name: of that surface, as the data calls it; by default the stem of its path.
        start: a model to go on from: a folder, "animals" for the one that geoframe comes with, or "none". By default
            "animals" for renders of animals, where nothing is said of the network, else none.
        match: map.npz that `geoframe match SOURCE SURFACE` wrote, with SOURCE a surface that START knows: the new
            surface then starts with the embedding of its counterpart.
        matched: name of that SOURCE; by default the first surface of START.
        n: pictures to render, or of annotated images crops to make of them all together; by default as many as the
            recipe says.
        size: pixels of the longer side that the network sees.
        minutes: of training.
        steps: of training, at most.
        recipe: geoframe learns the backbone, too, frozen leaves it as it is, paper has the published losses. By
            default geoframe for renders and after a START that was learned, as "animals" was; frozen for other
            annotated images and with a backbone of transformers.
        backbone: small, efficientnet-lite0, or auto: with a folder or name of transformers' hub.
        dim: numbers of an embedding.
        width: channels of the head's coarse levels.
        functions: eigenfunctions of a surface; 0 for a free table.
        anchor: the species on whose surface all animals are told; by default the first category.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
        precision: 32-true, bf16-mixed or, on a GPU, 16-mixed; by default the recipe geoframe computes in bf16-mixed
            on processors that have bfloat16, in two thirds of the time, and all else in 32-true.
        aside: --no-aside learns from all annotated images, and leaves the confidence as it is.
    """
    from dataclasses import replace

    from geoframe.models.surface_embedding import RECIPES
    from geoframe.models.surface_embedding import train as learn

    if (category is None) == (data is None):
        raise ValueError("--category, --data: expected one of the two, found both or neither")
    changes = given(backbone=backbone, dim=dim, functions=functions)
    first = _first(start, category, usual=recipe in (None, "geoframe") and not given(width=width, **changes))
    plan: Recipe = RECIPES[recipe or _recipe(data is not None, backbone, first)]
    changes = _changes(plan, first, changes | given(image_size=size, precision=precision), width)
    plan = replace(plan, **changes).lasting(minutes=minutes, steps=steps)
    with progress_bar("embed train") as progress:
        held, aside_crops = None, None
        if category is not None:
            samples, surfaces = _rendered(category, anchor, n or plan.pictures, plan, seed, progress)
        else:
            assert data is not None
            samples, surfaces, held, aside_crops = annotated(
                data, surface, name, images, divisor, n or plan.pictures, plan.image_size, seed, aside
            )
        matches = {} if match is None else read_match(match, first, matched, surfaces)
        predictor = learn(
            samples,
            surfaces,
            out=out,
            recipe=plan,
            start=first,
            matches=matches,
            aside=aside_crops,
            seed=seed,
            devices=devices,
            accelerator=accelerator,
            progress=progress,
            look=_looker(out, samples),
        )
        last = "" if held is None else compared(predictor, first, matches, matched, held, progress)
    about = predictor.about
    print(
        f"{', '.join(predictor.names)}: {len(samples)} pictures, {about['steps']} steps in {about['minutes']:.1f} "
        f"minutes; wrote model.safetensors, model.json and log.csv to {out}{last}"
    )


def _first(start: Path | None, category: Sequence[str] | None, *, usual: bool) -> Predictor | None:
    """The model to go on from; see `train`. Nothing is said of the network where it is the `usual` one."""
    from geoframe.models.surface_embedding import load
    from geoframe.zoo import species

    if start is None and usual and category is not None and set(category) <= set(species()):
        start = Path("animals")
    if start is None or str(start) == "none":
        return None
    return load(start)


def _recipe(annotated: bool, backbone: str | None, first: Predictor | None) -> str:
    """The recipe where none is named; see `train`."""
    if first is not None and annotated:
        return "frozen" if first.model.head.backbone.frozen else "geoframe"
    return "frozen" if annotated or (backbone or "").startswith("auto:") else "geoframe"


def _changes(
    plan: Recipe, first: Predictor | None, changes: dict[str, Any], width: int | None
) -> dict[str, Any]:
    """What differs from a recipe's values: as asked for, but as the model to go on from has them."""
    if changes.get("functions") == 0:
        changes["functions"] = None
    if width is not None:
        changes["head"] = {**plan.head, "width": width}
    if first is not None:
        theirs = first.model.head
        changes |= {"dim": theirs.dim, "backbone": theirs.backbone.name}
        if plan.trunk is None or not theirs.backbone.frozen:
            changes |= {"head": theirs.settings, "image_size": first.image_size}
    if "image_size" in changes:
        changes["picture_size"] = None
    return changes


def _rendered(
    category: Sequence[str], anchor: str | None, n: int, plan: Recipe, seed: int, progress: Any
) -> tuple[PixelSamples, dict[str, Surface]]:
    """Pictures of categories of the zoo; animals all on one surface, others each on its own."""
    from geoframe.data.pixel_samples import rendered_samples
    from geoframe.data.rendered import render_set, template_surface
    from geoframe.zoo import species

    size = plan.picture_size or plan.image_size
    animals = [c for c in category if c in species()]
    if anchor is not None and anchor not in species():
        raise ValueError(f"--anchor: expected a species, one of {', '.join(species())}, found {anchor!r}")
    if len(animals) == len(category):
        on = anchor or category[0]
        pictures = render_set(list(category), n, size=size, seed=seed, surface=on)
        names, number = [on], [0] * len(category)
    else:
        pictures = render_set(list(category), n, size=size, seed=seed)
        names = list(dict.fromkeys(category))
        number = [names.index(c) for c in category]
    samples = rendered_samples(
        pictures, names, number, n_points=_POINTS, seed=seed, progress=lambda s, d: progress(s, 0.0 * d)
    )
    return samples, {name: template_surface(name) for name in names}


def _looker(out: Path, samples: PixelSamples) -> Any:
    """Draws the maps of six fixed pictures into OUT/pictures, about once a minute."""
    shown = samples[list(range(0, len(samples), max(len(samples) // 6, 1)))[:6]]

    def look(predictor: Predictor, told: Mapping[str, float]) -> None:
        from geoframe.viz.images import as_picture, contact_sheet, draw_pixel_map
        from geoframe.viz.surfaces import save_picture

        images = [x.float() / 255 for x in shown.image]
        names = [shown.names[int(i)] for i in shown.surface]
        maps = [predictor.predict(x, category=c, turn=False)[0] for x, c in zip(images, names, strict=True)]
        pictures = [as_picture(x) for x in images]
        pictures += [draw_pixel_map(m, x) for m, x in zip(maps, images, strict=True)]
        folder = out / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        save_picture(contact_sheet(pictures, columns=len(images)), folder / f"{int(told['step']):06d}.png")

    return look


def predict(
    images: list[Path],
    /,
    *,
    out: Path,
    model: Path | None = None,
    category: str | None = None,
    boxes: Path | None = None,
    to: Path | None = None,
    flip: bool = True,
    turn: bool = True,
    embedding: bool = False,
    show: int = 12,
) -> None:
    """Map the pixels of images to a surface: NAME.npz, NAME.png with the surface's colours, and pixels.html.

    NAME.npz holds `vertex` (H, W), -1 outside of the mask, `mask` and `confidence`; `geoframe.PixelMap.load` reads
    it. A folder of video frames is done frame by frame. predictions.json tells score and warnings of each image.
    Files that cannot be read are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        images: files, or folders of them.
        out: folder for the results.
        model: folder that `geoframe embed train` wrote; by default the one that geoframe comes with (animals).
        category: the surface; by default the first that the model was trained on. A model of animals knows every
            species of the zoo.
        boxes: JSON file {"NAME.jpg": [x0, y0, x1, y1], ...} of where the object is; by default the whole image.
        to: another image: where the points that each image shows are seen in it, NAME.matches.npz and .png.
        flip: --no-flip does not look at the mirror image, too: half the time, and worse.
        turn: an image that is not upright for certain is looked at turned by 90, 180 and 270 degrees, too; `turned` in
            predictions.json tells what was taken. --no-turn takes all as they are.
        embedding: write the embedding of each pixel into NAME.npz, too.
        show: how many images come into pixels.html, where pointing at one shows the place on the surface; 0 for
            no page.
    """
    from geoframe._files import staged_folder
    from geoframe.data.image_files import list_images, read_image
    from geoframe.models.surface_embedding import load
    from geoframe.viz.pixel_page import write_pixel_page

    predictor = load(model)
    predictor.target(category)  # told before any work
    files = [f for path in images for f in (list_images(path) if path.is_dir() else [path])]
    if not files:
        raise ValueError("images: expected at least one image, found none")
    if len({f.stem for f in files}) < len(files):
        raise ValueError(
            "images: expected files of different names, found some alike; run them one after another"
        )
    places = read_boxes(boxes, [*files, *([] if to is None else [to])])
    options: dict[str, Any] = {"category": category, "flip": flip, "turn": turn}
    reference = None
    if to is not None:
        picture = read_image(to)
        reference = (picture, predictor.predict(picture, [places.get(to.name)], **options)[0])
    rows: list[dict[str, Any]] = []
    shown: list[tuple[Tensor, PixelMap]] = []
    bad: list[str] = []
    with staged_folder(out) as folder, progress_bar("embed predict") as progress:
        for i, file in enumerate(files):
            progress(file.name, i / len(files))
            try:
                image = read_image(file)
                found = predictor.predict(image, [places.get(file.name)], **options)[0]
            except ValueError as err:
                bad.append(f"{file}: {err}" if str(file) not in str(err) else str(err))
                continue
            rows.append(_write(folder, file, image, found, predictor, reference, embedding))
            shown += [(image, found)] if len(shown) < show else []
        if not rows:
            raise ValueError(bad[0])
        if shown:
            pictures, maps = zip(*shown, strict=True)
            names = [row["image"] for row in rows[: len(shown)]]
            on = category or predictor.names[0]
            write_pixel_page(folder / "pixels.html", maps, pictures, names=names, surface_name=on)
        save_json(
            {"model": str(model or "animals"), "images": rows, "failed": bad}, folder / "predictions.json"
        )
    for row in rows:
        for line in row["warnings"]:
            warn(f"{row['image']}: {line}")
    for line in bad:
        warn(line)
    page = "pixels.html, " if shown else ""
    print(f"{counted(len(rows), 'image')}; wrote NAME.npz, NAME.png, {page}predictions.json to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} of {len(files)} images were left out, see above")


def _write(
    folder: Path,
    file: Path,
    image: Tensor,
    found: PixelMap,
    predictor: Predictor,
    reference: tuple[Tensor, PixelMap] | None,
    embedding: bool,
) -> dict[str, Any]:
    """The files of one image, and what is told of it."""
    import numpy as np

    from geoframe.viz.images import draw_correspondence, draw_pixel_map
    from geoframe.viz.surfaces import save_picture

    name = file.stem
    found.save(folder / f"{name}.npz", embedding=embedding)
    save_picture(draw_pixel_map(found, image), folder / f"{name}.png")
    if reference is not None:
        matches = found.correspond(reference[1])
        with (folder / f"{name}.matches.npz").open("wb") as stream:
            arrays = {k: v.numpy() for k, v in matches._asdict().items()}
            np.savez_compressed(stream, **arrays)
        save_picture(draw_correspondence(image, reference[0], matches), folder / f"{name}.matches.png")
    verdict = predictor.verdict(found)
    share = float(found.mask.float().mean())
    told = {"image": file.name, "score": verdict.score, "sides": verdict.sides, "foreground": share}
    told["turned"] = found.turned
    return told | {"warnings": list(verdict.warnings)}


def evaluate(
    model: Path | None = None,
    /,
    *,
    out: Path,
    category: list[str] | None = None,
    data: Path | None = None,
    images: Path | None = None,
    divisor: Literal[255, 256] = 256,
    n: int = 200,
    size: int = 128,
    seed: int = 1,
    kappa: float = 0.185,
    flip: bool = True,
    decode: Literal["likeliest", "least_expected"] = "likeliest",
) -> None:
    """Measure a model on renders that it has not seen, or on annotated images: evaluation.json and evaluation.md.

    Args:
        model: folder that `geoframe embed train` wrote; by default the one that geoframe comes with.
        out: folder for the results.
        category: what to render; each is told on its own surface. By default the model's first surface.
        data: annotated images instead, as `train` takes them, on surfaces of the model.
        images: as in `train`.
        divisor: as in `train`.
        n: pictures to render.
        size: their pixels.
        seed: of the renders; other than that of the training.
        kappa: of GPS, in parts of the square root of the surface's area.
        flip: --no-flip does not look at the mirror image, too.
        decode: likeliest, as `predict` does, or the vertex of least expected distance, which is slower.
    """
    from geoframe._files import staged_folder
    from geoframe.data.rendered import render_set
    from geoframe.models.surface_embedding import evaluate as measure
    from geoframe.models.surface_embedding import load

    predictor = load(model)
    names = category or [predictor.names[0]]
    pictures: Any
    if data is not None:
        pictures = read_images(data, predictor.target(names[0]).surface, names[0], images, divisor)
    else:
        pictures = render_set(names, n, size=size, seed=seed)
    with staged_folder(out) as folder, progress_bar("embed evaluate") as progress:
        numbers = measure(predictor, pictures, kappa=kappa, flip=flip, decode=decode, progress=progress)
        told = {"model": str(model or "animals"), "category": names, "seed": seed, **numbers}
        save_json(told, folder / "evaluation.json")
        lines = [f"| {label} | {numbers[key]:.4f} |" for key, label in _TABLE.items() if key in numbers]
        text = "\n".join(["| measure | value |", "|---|---|", *lines])
        (folder / "evaluation.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"wrote evaluation.json and evaluation.md to {out}")


def export(
    model: Path | None = None, /, *, out: Path, size: int | None = None, category: list[str] | None = None
) -> None:
    """Write the network as an ONNX file: image (1, 3, H, W) in [0, 1] to embedding (1, D, h, w) and mask (1, h, w).

    Beside it vertices.npz holds for each surface the embeddings of its vertices: the nearest one by inner product is
    what a pixel shows. This is one look at a square; `predict` takes the mean of three looks at other sizes and of
    their mirror images.

    Args:
        model: folder that `geoframe embed train` wrote; by default the one that geoframe comes with.
        out: folder for network.onnx and vertices.npz.
        size: pixels of the square image; by default those of the training.
        category: surfaces for vertices.npz, such as other species of the zoo for a model of animals; by default those
            that the model was trained on.
    """
    import numpy as np

    from geoframe._files import staged_folder
    from geoframe.heads.export import export_onnx
    from geoframe.models.surface_embedding import load

    predictor = load(model)
    tables = {name: predictor.target(name).table.numpy() for name in category or predictor.names}
    S = size or predictor.image_size
    with staged_folder(out) as folder:
        export_onnx(predictor.model.head, folder / "network.onnx", size=(S, S))
        with (folder / "vertices.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **tables)
    print(f"wrote network.onnx for images of {S} x {S} and vertices.npz to {out}")
