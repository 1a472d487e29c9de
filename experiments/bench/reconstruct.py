"""To The Point in use: seconds a crop behind the backbone, with the files of each mesh and without.

python -m experiments.bench.reconstruct [--json FILE] [--case CASE ...]

meshes-128x32   both looks of the head, masks along edges, pose and modes by sixteen alternations, outlines, evidence,
                and 32 meshes in the colours of their pictures of 128 pixels, with their `PixelMap`
files-128x32    the same, and NAME.obj, NAME.mtl and NAME_texture.png of each; 64 crops a second on two cores

The crops are renders of horses, the modes those of the zoo. The head's weights are random, which has no part in its
time; poses are solved from the true positions with noise, as heads tell them that have learned. What the backbone says
is computed before. There is no peer to run beside; the peer's seconds are the limit, and the row says so.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from experiments.bench._harness import Row, main, measure
from geoframe._random import seeded
from geoframe.data.crops import Crop, resized
from geoframe.data.object_crops import ObjectCrops, rendered_crops
from geoframe.data.object_templates import zoo_shapes, zoo_template
from geoframe.data.rendered import render_set
from geoframe.heads.positions import Positions
from geoframe.heads.zoo_maps import ANIMALS
from geoframe.models.to_the_point import Predictor, Reconstruction
from geoframe.models.to_the_point.network import ToThePoint, features, position_head, shape_model
from geoframe.models.to_the_point.recipe import KNOWN_MODES, OURS
from geoframe.render import rasterize, vertex_visibility
from geoframe.viz.reconstruction_page import save_textured

CROPS, CROPS_A_SECOND, SIZE = 32, 64, 128
NOISE = 0.03  # of the positions, in halves of the side
LENS, RIDGE, OUTLINE = 0.15, 0.02, 6.0  # as trainings choose them for horses


def scene() -> tuple[Predictor, ObjectCrops]:
    """A network for horses that has learned nothing, and crops of renders."""
    template = zoo_template("horse")
    crops = rendered_crops(render_set("horse", 2 * CROPS, size=SIZE), template, size=SIZE, most=CROPS)
    n_symmetric = round(OURS.symmetric * KNOWN_MODES)
    shape = shape_model(template, KNOWN_MODES, n_symmetric=n_symmetric)
    shape.take_from(zoo_shapes("horse", template))
    with seeded(0):
        head = position_head(
            OURS.head, features(ANIMALS, enlarged=OURS.enlarged), template, **OURS.head_settings
        )
    solver = {"lens": LENS} | dict(OURS.solver) | {"ridge": RIDGE, "outline": OUTLINE}
    return Predictor(ToThePoint(head, shape, template, **solver).eval(), OURS.size), crops


def told(crops: ObjectCrops, faces: torch.Tensor) -> Positions:
    """What a head that has learned says of crops: the truth, less exactly."""
    assert crops.screen is not None and crops.truth is not None
    made = torch.Generator().manual_seed(0)
    screen = torch.cat([crops.screen, SIZE * crops.truth[..., 2:]], -1)
    seen = vertex_visibility(rasterize(screen, faces, (SIZE, SIZE)), faces, screen)
    points = 2 * crops.screen / SIZE - 1
    mask = F.avg_pool2d(crops.mask[:, None].float(), SIZE // OURS.size)[:, 0]
    none = torch.full((len(crops),), 0.05)
    return Positions(
        points + NOISE * torch.randn(points.shape, generator=made),
        8 * seen.float() - 4,
        8 * mask - 4,
        spread=none,
        apart=none,
    )


def inference(name: str, files: bool) -> list[Row]:
    """Seconds a crop."""
    predictor, crops = scene()
    model, images = predictor.model, [*(crops.image.float() / 255)]
    found, small = told(crops, model.faces), resized(torch.stack(images), (OURS.size, OURS.size))
    net = model.head.backbone
    with torch.no_grad():
        maps = itertools.cycle([net(small), net(small.flip(-1))])
    net.forward = lambda image: list(next(maps))  # type: ignore[method-assign]
    whole = [Crop((0, 0, SIZE, SIZE), (OURS.size, OURS.size))] * len(crops)

    def meshes() -> list[Reconstruction]:
        with torch.no_grad():
            model.look(small)
            posed = model.settled(found)
            return predictor.reconstructions(images, posed, model.evidence(found, posed), whole)

    def write() -> None:
        folder = Path(
            tempfile.mkdtemp(dir=out)
        )  # a new one, as `geoframe reconstruct predict` writes into one
        for i, (image, mesh) in enumerate(zip(images, meshes(), strict=True)):
            save_textured(image, mesh, folder / f"{i}.obj")

    with tempfile.TemporaryDirectory() as out:
        return timed(name, write if files else meshes)


def timed(name: str, run: Callable[[], object]) -> list[Row]:
    """Seconds a crop on the wall, and milliseconds of all cores together."""
    used: list[float] = []

    def clocked() -> None:
        start = time.process_time()
        run()
        used.append(time.process_time() - start)

    timing, limit = measure(clocked, repeats=7), 1 / CROPS_A_SECOND
    cores = 1000 * statistics.median(used) / CROPS
    seconds = timing.median / CROPS
    note = f"{1 / seconds:.0f} crops a second, {cores:.1f} ms of a core each, spread {timing.spread / CROPS:.2g} s"
    return [Row(name, seconds, limit, limit / seconds, f"limit, {CROPS_A_SECOND} a second", note)]


CASES = {
    "meshes-128x32": lambda: inference("meshes-128x32", False),
    "files-128x32": lambda: inference("files-128x32", True),
}

if __name__ == "__main__":
    main(__doc__, CASES)
