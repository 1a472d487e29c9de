"""`geoframe reconstruct`: one photograph to a posed, deformed, textured mesh; train, predict, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoframe.cli._common import PartFailed, counted, given, progress_bar, read_boxes, save_json, warn
from geoframe.cli._reconstructed import reconstructed, told_once

if TYPE_CHECKING:
    from torch import Tensor

    from geoframe.data.object_crops import ObjectCrops
    from geoframe.data.object_templates import ObjectTemplate
    from geoframe.models.to_the_point import Predictor, Recipe, Reconstruction

Layout = Literal["auto", "renders", "folder", "cub", "pascal3d"]

_TABLE = {
    "iou_soft": "IoU, soft silhouettes",
    "iou_hard": "IoU",
    "pck_10": "PCK@0.1, through the 3D shape",
    "pck_15": "PCK@0.15, through the 3D shape",
    "pck_10_regressed": "PCK@0.1, by regression alone",
    "rotation_median_deg": "rotation error, median, degrees",
    "reversed": "reversed",
    "surface_percent": "surface error, % of the size",
    "iou_3d": "3D IoU",
    "confidence": "mean confidence",
    "right": "rotation right",
    "doubtful": "with a warning",
    "doubtful_where_right": "with a warning where right",
    "doubtful_where_wrong": "with a warning where wrong",
}


def train(
    *,
    data: Path,
    out: Path,
    template: Path | None = None,
    layout: Layout = "auto",
    part: str = "train",
    category: str | None = None,
    keypoints: bool = True,
    embedding: Path | None = None,
    up: Literal["x", "y", "z", "none"] = "y",
    minutes: float | None = None,
    steps: int | None = None,
    recipe: Literal["geoframe", "paper", "code"] = "geoframe",
    backbone: str | None = None,
    tuned: float | None = None,
    size: int | None = None,
    vertices: int | None = None,
    modes: int | None = None,
    symmetric: float | None = None,
    most: int | None = None,
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
) -> None:
    """Learn to reconstruct a category from images with masks, with keypoints or without; a killed run goes on.

    OUT gets the model (model.safetensors, model.json, template/), log.csv, the same for TensorBoard, pictures/ of six
    fixed images while it learns, and the state to go on from. A fifteenth of the images, of 200 and more, is set aside
    to choose the ridge and to calibrate the confidence. Of renders of an animal, and without keypoints of a thing, on
    the zoo's own surface mean shape and modes are those of the zoo; of all else they are learned from the images.

    Args:
        data: a folder of `geoframe render --keep-vertices`; or of images/, masks/ and perhaps keypoints.json; or the
            folder of annotations of CUB (*_cub_cleaned.mat) or PASCAL3D+ (CLASS_train.mat, CLASS_kps.mat).
        out: folder for the model.
        template: a mesh file or a folder of `geoframe canonical`; its landmarks are the keypoints. By default the
            surface of the renders.
        layout: of the data; auto looks.
        part: of CUB and PASCAL3D+: train, val or test.
        category: of PASCAL3D+, such as car; or the embedding's surface, the same as the template's.
        keypoints: --no-keypoints learns from the masks alone.
        embedding: without keypoints, a model of `geoframe embed` whose pixel maps tell the views to start from,
            "animals" or "things" for those that geoframe comes with, or "none" for pose hypotheses by the masks; by
            default animals or things for renders of what these know, and else none.
        up: the template's upward axis, if the images are upright; none looks for all rotations.
        minutes: of training, after the fits; none for the recipe's steps.
        steps: of training.
        recipe: geoframe is ours; paper has the published losses, code those of the released code.
        backbone: small, tiny, efficientnet-lite0, or auto: with a folder or name of transformers' hub; or animals or
            things, which tell the parts of these apart: by default animals for renders of animals, and things for
            renders of cars and aeroplanes.
        tuned: share of the steps, the last ones, in which a pretrained backbone is learned, too (animals, things and
            efficientnet-lite0): such a step takes six times as long. By default a quarter for renders with a backbone
            that knows them, else 0.
        size: pixels of the crops.
        vertices: of the template.
        modes: K, of deformation; 0 is rigid. By default 64 of the zoo's for renders of animals, 12 for renders of
            things, and else the recipe's, 24.
        symmetric: share of the modes that are mirror-symmetric: 1 for things, less for animals, which bend; by default
            1 for renders of things and else the recipe's, .4.
        most: use at most so many images.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
    """
    import torch

    from geoframe.models.to_the_point import train as learn
    from geoframe.models.to_the_point.evaluate import UNCALIBRATED

    changes = given(
        backbone=backbone, size=size, n_verts=vertices, n_modes=modes, symmetric=symmetric, tuned=tuned
    )
    plan = _plan(recipe, data, changes)
    if minutes is not None or steps is not None:
        plan = plan.lasting(minutes=minutes, steps=steps)
    bad: list[str] = []
    with progress_bar("reconstruct train") as progress:
        shape = _template(template, data, plan.n_verts)
        plan, shapes = _known_shapes(plan, data, shape, template, keypoints=keypoints, modes=modes)
        crops = _crops(data, layout, shape, plan.size, part, category, most, bad, progress)
        shown = None if template is not None else _shown(data)
        points = None if keypoints else _embedded(embedding, crops, shape, category, shown, progress)
        axis = None if up == "none" else torch.eye(3)["xyz".index(up)]
        predictor = learn(
            crops,
            shape,
            out=out,
            recipe=plan,
            keypoints=keypoints,
            points=points,
            shapes=shapes,
            up=axis,
            seed=seed,
            devices=devices,
            accelerator=accelerator,
            progress=progress,
            look=_looker(out, crops),
        )
    for line in bad:
        warn(line)
    told = predictor.about
    print(
        f"{told['crops']} images, {'with' if keypoints else 'without'} keypoints, K = {predictor.model.shape.n_modes}; "
        f"wrote model.safetensors, model.json, template and log.csv to {out}"
    )
    if not predictor.model.calibrated:
        warn(UNCALIBRATED)
    if bad:
        raise PartFailed(f"{len(bad)} images were left out, see above")


def _plan(name: str, data: Path, changes: Mapping[str, Any]) -> Recipe:
    """A recipe, changed; ours by default with fewer modes for renders of things, which do not bend, and with a backbone
    that knows what is rendered, if there is one, and is learned on in the end."""
    from dataclasses import replace

    from geoframe.data.rendered_files import load_rendered
    from geoframe.heads.zoo_maps import shipped_for
    from geoframe.models.to_the_point import RECIPES
    from geoframe.models.to_the_point.recipe import THINGS_BEND, TUNED
    from geoframe.zoo.things import THINGS

    if not data.exists():
        raise ValueError(f"--data: expected a folder of images, found nothing at {data}")
    things = (data / "set.json").is_file() and set(load_rendered(data).surface_names) <= set(THINGS)
    usual: dict[str, Any] = {}
    if changes.get("backbone") in ("small", "tiny"):  # learned from such crops, not from larger pictures
        usual["enlarged"] = 1
    if name == "geoframe":
        usual |= THINGS_BEND if things else {}
        shown = _shown(data)
        backbone = None if shown is None else shipped_for(shown)
        if backbone is not None:
            usual["backbone"] = backbone
            usual["tuned"] = TUNED if changes.get("backbone", backbone) == backbone else 0.0
    return replace(RECIPES[name], **{**usual, **changes})


def _shown(data: Path) -> str | None:
    """The category of a folder of renders of one category, on whose surface they are told."""
    from geoframe.data.rendered_files import load_rendered

    names = load_rendered(data).surface_names if (data / "set.json").is_file() else ()
    return names[0] if len(names) == 1 else None


def _known_shapes(
    plan: Recipe,
    data: Path,
    template: ObjectTemplate,
    own: Path | None,
    *,
    keypoints: bool,
    modes: int | None,
) -> tuple[Recipe, Tensor | None]:
    """Shapes of the zoo for renders of one category on its surface, of which animals have more modes, if none are asked
    for; with keypoints things do as well without."""
    from dataclasses import replace

    from geoframe.data.object_templates import zoo_shapes
    from geoframe.data.rendered import categories
    from geoframe.data.rendered_files import load_rendered
    from geoframe.data.zoo_surfaces import zoo_surface
    from geoframe.models.to_the_point.recipe import KNOWN_MODES
    from geoframe.zoo.things import THINGS

    name = _shown(data) if own is None and plan.name == "geoframe" else None
    if name is None or name not in categories() or (keypoints and name in THINGS):
        return plan, None
    if load_rendered(data).surfaces()[0].n_verts != zoo_surface(name).n_verts:
        return plan, None
    if modes is None and name not in THINGS:
        plan = replace(plan, n_modes=KNOWN_MODES)
    return plan, zoo_shapes(name, template)


def _template(path: Path | None, data: Path, n_verts: int) -> ObjectTemplate:
    from geoframe.canonical import load_surface
    from geoframe.data.object_templates import ObjectTemplate, zoo_template
    from geoframe.data.rendered_files import load_rendered
    from geoframe.data.zoo_surfaces import zoo_surface

    if path is not None:
        return ObjectTemplate.of(load_surface(path), n_verts)
    if not (data / "set.json").is_file():
        raise ValueError(
            "--template: expected a mesh or a folder of geoframe canonical with this data, found none"
        )
    pictures = load_rendered(data)
    if len(pictures.categories) != 1:
        raise ValueError(f"--data: expected renders of one category, found {', '.join(pictures.categories)}")
    own, name = pictures.surfaces()[0], pictures.surface_names[0]
    return (
        zoo_template(name, n_verts)
        if own.n_verts == zoo_surface(name).n_verts
        else ObjectTemplate.of(own, n_verts)
    )


def _crops(
    data: Path,
    layout: str,
    template: ObjectTemplate,
    size: int,
    part: str,
    category: str | None,
    most: int | None,
    bad: list[str],
    progress: Any,
) -> ObjectCrops:
    """The images of any of the layouts as crops."""
    from geoframe.data.category_files import cub_crops, pascal3d_crops
    from geoframe.data.object_crops import folder_crops, rendered_crops
    from geoframe.data.rendered_files import load_rendered

    if layout == "auto":
        layout = "renders" if (data / "set.json").is_file() else "folder"
        if any(data.glob("*_cub_cleaned.mat")) or any(data.glob("data/*_cub_cleaned.mat")):
            layout = "cub"
        elif any(data.glob("*_kps.mat")) or any(data.glob("data/*_kps.mat")):
            layout = "pascal3d"
    if layout == "renders":
        return rendered_crops(load_rendered(data), template, size=size, most=most, progress=progress)
    names = tuple(template.surface.landmarks)
    if layout == "folder":
        crops = folder_crops(data, size=size, names=names, on_bad_file=bad.append)
    elif layout == "cub":
        crops = cub_crops(data, part, size=size, on_bad_file=bad.append)
    else:
        if category is None:
            raise ValueError("--category: expected the class of PASCAL3D+, such as car, found none")
        crops = pascal3d_crops(data, category, part, size=size, on_bad_file=bad.append)
    return crops if most is None else crops[range(min(most, len(crops)))]


def _embedded(
    path: Path | None,
    crops: ObjectCrops,
    template: ObjectTemplate,
    category: str | None,
    shown: str | None,
    progress: Any,
) -> list[tuple[Tensor, Tensor, Tensor]] | None:
    """Correspondences of each crop by a surface embedding, by default the one that geoframe comes with."""
    from geoframe.heads.zoo_maps import SHIPPED, shipped_for
    from geoframe.models.surface_embedding import load
    from geoframe.models.to_the_point.network import embedded_points

    usual = None if shown is None else shipped_for(shown)
    if path is None:
        path, category = None if usual is None else SHIPPED[usual], category or shown
    if path is None or str(path) == "none":
        return None
    predictor = load(path)
    return embedded_points(crops, template, predictor, category or predictor.names[0], progress=progress)


def _looker(out: Path, crops: ObjectCrops) -> Any:
    """Draws the reconstructions of six fixed crops into OUT/pictures, about once a minute."""
    shown = crops[list(range(0, len(crops), max(len(crops) // 6, 1)))[:6]]

    def look(predictor: Predictor, told: Mapping[str, float]) -> None:
        from geoframe.models.to_the_point.evaluate import reconstructed
        from geoframe.viz.images import contact_sheet
        from geoframe.viz.reconstruction_page import draw_on_image
        from geoframe.viz.surfaces import save_picture

        found, posed = reconstructed(predictor.model, shown)
        evidence = predictor.model.evidence(found, posed)
        images = [x.float() / 255 for x in shown.image]
        whole = predictor.reconstructions(images, posed, evidence, [_own(shown.size)] * len(images))
        pictures: list[Any] = [*images, *map(draw_on_image, images, whole)]
        folder = out / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        save_picture(contact_sheet(pictures, columns=len(images)), folder / f"{int(told['step']):06d}.png")

    return look


def _own(size: int) -> Any:
    """The crop that is the whole of a picture."""
    from geoframe.data.crops import Crop

    return Crop((0, 0, size, size), (size, size))


def predict(
    images: list[Path],
    /,
    *,
    model: Path,
    out: Path,
    masks: Path | None = None,
    boxes: Path | None = None,
    views: int = 8,
    show: int = 12,
    jobs: int = 1,
) -> None:
    """Turn photographs into meshes: NAME.obj with texture, NAME.json, NAME.npz, NAME.png, NAME.gif and a page.

    NAME.obj has texture coordinates into NAME_texture.png; NAME.json the pose, confidence and warnings; NAME.npz the
    `PixelMap`; NAME.png the mesh over the image and from all around, NAME.gif the same turning. Files that cannot be
    read are told and left out; the exit status is 1 then, and 2 if nothing is left.

    Args:
        images: files, or folders of them.
        model: folder that `geoframe reconstruct train` wrote.
        out: folder for the results.
        masks: a folder with the mask of each image, NAME.png.
        boxes: JSON file {"NAME.jpg": [x0, y0, x1, y1], ...} of where the object is; without masks or boxes it fills
            the image.
        views: of a whole turn; 0 for none, and no NAME.gif, which takes two thirds of the time.
        show: how many images come into reconstruction.html; 0 for no page.
        jobs: images at once, each in a process of its own with one thread, which has to load the model first.
    """
    from geoframe._files import staged_folder
    from geoframe.data.image_files import list_images
    from geoframe.viz.reconstruction_page import write_reconstruction_page

    files = [f for path in images for f in (list_images(path) if path.is_dir() else [path])]
    if not files or len({f.stem for f in files}) < len(files):
        raise ValueError("images: expected one or more files of different names, found none or some alike")
    places = read_boxes(boxes, files)
    rows: list[dict[str, Any]] = []
    shown: list[tuple[Tensor, Reconstruction, str]] = []
    bad: list[str] = []
    with staged_folder(out) as folder, progress_bar("reconstruct predict") as progress:
        done = reconstructed(
            files, model, folder, masks=masks, boxes=places, views=views, show=show, jobs=jobs
        )
        for i, (row, kept, failed) in enumerate(done):
            progress(files[i].name, (i + 1) / len(files))
            rows += [] if row is None else [row]
            shown += [kept] if kept is not None and len(shown) < show else []
            bad += [] if failed is None else [failed]
        if not rows:
            raise ValueError(bad[0])
        if shown:
            pictures, meshes, names = zip(*shown, strict=True)
            write_reconstruction_page(folder / "reconstruction.html", pictures, meshes, names)
        save_json({"model": str(model), "images": rows, "failed": bad}, folder / "predictions.json")
    for line in told_once(rows):
        warn(line)
    for line in bad:
        warn(line)
    more = f"{', NAME.gif' if views else ''}{', reconstruction.html' if shown else ''}"
    print(f"{counted(len(rows), 'image')}; wrote NAME.obj, NAME.json, NAME.npz, NAME.png{more} to {out}")
    if bad:
        raise PartFailed(f"{len(bad)} of {len(files)} images were left out, see above")


def evaluate(
    model: Path,
    /,
    *,
    data: Path,
    out: Path,
    layout: Layout = "auto",
    part: str = "test",
    category: str | None = None,
    deform: bool = True,
    alternations: int | None = None,
    most: int | None = None,
) -> None:
    """Measure a model on images that it was not trained on: evaluation.json and evaluation.md.

    Args:
        model: folder that `geoframe reconstruct train` wrote.
        data: as `train` takes it.
        out: folder for the results.
        layout: of the data; auto looks.
        part: of CUB and PASCAL3D+.
        category: of PASCAL3D+.
        deform: --no-deform measures the mean shape.
        alternations: of pose and deformation; by default those of the model.
        most: use at most so many images.
    """
    from geoframe._files import staged_folder
    from geoframe.models.to_the_point import evaluate as measure
    from geoframe.models.to_the_point import load
    from geoframe.models.to_the_point.evaluate import UNCALIBRATED

    predictor = load(model)
    bad: list[str] = []
    with progress_bar("reconstruct evaluate") as progress:
        crops = _crops(data, layout, predictor.template, predictor.size, part, category, most, bad, progress)
        numbers = measure(predictor, crops, deform=deform, steps=alternations, progress=progress)
    with staged_folder(out) as folder:
        save_json(
            {"model": str(model), "data": str(data), **numbers, "failed": bad}, folder / "evaluation.json"
        )
        lines = [f"| {label} | {numbers[key]:.4f} |" for key, label in _TABLE.items() if key in numbers]
        text = "\n".join(["| measure | value |", "|---|---|", *lines])
        (folder / "evaluation.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"{len(crops)} images; wrote evaluation.json and evaluation.md to {out}")
    if not predictor.model.calibrated:
        warn(UNCALIBRATED)
    for line in bad:
        warn(line)
    if bad:
        raise PartFailed(f"{len(bad)} images were left out, see above")
