"""Faces on the zoo's head: an object frame tied to a canonical surface by a few annotated photographs.

    python -m experiments.face_surface.run --out DIR --frame FOLDER [--labels N] [--test N] [--quick]

FOLDER is an object frame that experiments.object_frame.run trained; landmarks that were saved with it are taken as they
are. N annotated faces of the training people (50) teach it landmarks, and the head's surface what the frame says of its
vertices. Then faces of the test people become pixel maps in two ways: by the embedding of each pixel, and by the
landmarks that were found, between which the head is bent. Each face is cropped around the landmarks that were found in
it, none by given ones. Measured are the places where 20 vertices of the head are seen, against the given landmarks, and
how well landmarks are carried from face to face through the head, both in percent of the eyes' distance; beside them
the same landmarks by the regressor, and the mean shape of the crops. Pictures of both ways: WAY_faces.png, the head's
colours on faces; WAY_texture.png, faces painted with the texture of the first one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.faces import add_results, load_faces, squares
from geoframe.canonical.surface import Surface
from geoframe.data.face_files import eye_distance
from geoframe.data.rendered import template_surface
from geoframe.heads.landmarks import crops_around
from geoframe.heads.on_surface import SurfaceFrame, map_by_landmarks, spread_landmarks, tie_to_surface
from geoframe.metrics.landmarks import percent_error
from geoframe.models import object_frame
from geoframe.models.object_frame.predictor import describe
from geoframe.pixels import PixelMap
from geoframe.viz.images import as_picture, contact_sheet, draw_pixel_map
from geoframe.viz.surfaces import save_picture
from geoframe.warps import to_pixels

SIZE = 96  # pixels of a crop
# which of the 68 points is which landmark of the zoo's head; its own left is on the right of a photograph
LANDMARKS = {
    "nasion": 27,
    "nose_tip": 30,
    "subnasale": 33,
    "upper_lip_top": 51,
    "lower_lip_bottom": 57,
    "chin": 8,
    "right_brow_outer": 17,
    "right_brow_middle": 19,
    "right_brow_inner": 21,
    "left_brow_inner": 22,
    "left_brow_middle": 24,
    "left_brow_outer": 26,
    "right_nose_wing": 31,
    "left_nose_wing": 35,
    "right_eye_outer": 36,
    "right_eye_inner": 39,
    "left_eye_inner": 42,
    "left_eye_outer": 45,
    "right_mouth_corner": 48,
    "left_mouth_corner": 54,
}
INDEX = list(LANDMARKS.values())
FRONT = (1.0, 0.0, 0.0)  # the head looks along +x


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frame", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(argv)
    faces = load_faces(asked.out / "faces")
    frame = object_frame.load(asked.frame)
    n_test = 8 if asked.quick else asked.test
    order = torch.randperm(len(faces.train), generator=torch.Generator().manual_seed(asked.seed))
    known = squares(frame, faces.train.only(order[: asked.labels]))
    test = squares(frame, faces.test.only(range(0, len(faces.test), max(1, len(faces.test) // n_test))))
    fitted: Any = frame
    if not frame.can_predict:
        fitted = frame.with_landmarks(known[0], known[1], groups=known[2], seed=asked.seed)

    surface = template_surface("head")
    vertices = torch.tensor([surface.landmarks[name] for name in LANDMARKS])
    tied = tie(fitted, surface, vertices, *known[:2])
    found, sure = fitted.landmarks(test[0])
    crops, warp = crops_around(test[0], found, fitted.regressor.shape, SIZE)
    true = to_pixels(warp.inverse(test[1])[0], SIZE, SIZE)
    regressed = to_pixels(warp.inverse(found)[0], SIZE, SIZE)
    size = eye_distance(true)
    for name, points in (("regressor", regressed), ("mean_shape", true.mean(0).expand_as(true))):
        error = percent_error(points[:, INDEX], true[:, INDEX], size)
        add_results(asked.out, "face_surface", {f"{name}_percent": float(error.mean())})
    by_landmarks = [
        map_by_landmarks(surface, vertices, p[INDEX], (SIZE, SIZE), direction=FRONT, confidence=float(c))
        for p, c in zip(regressed, sure, strict=True)
    ]
    by_embedding = [tied.pixel_map(e, (SIZE, SIZE)) for e in frame.embed(crops, size=SIZE)]
    for name, maps in (("landmarks", by_landmarks), ("embedding", by_embedding)):
        add_results(asked.out, f"face_surface/{name}", measured(maps, vertices, true))
        draw(asked.out, name, maps, crops)


def tie(fitted: Any, surface: Surface, vertices: Tensor, images: Tensor, points: Tensor) -> SurfaceFrame:
    """The frame on the surface, by annotated faces."""
    crops, warp = crops_around(images, points, fitted.regressor.shape, SIZE)
    seen, places = spread_landmarks(surface, vertices, warp.inverse(points)[0][:, INDEX], direction=FRONT)
    descriptors = describe(fitted.embed(crops, size=SIZE), places)
    return tie_to_surface(descriptors.flatten(0, 1), seen.repeat(len(images)), surface)


def measured(maps: Sequence[PixelMap], vertices: Tensor, true: Tensor) -> dict[str, float]:
    """Errors in percent of the eyes' distance; a landmark that is not seen counts as the mean shape's."""
    size = eye_distance(true)
    goal = true[:, INDEX]
    mean = goal.mean(0)
    places = torch.stack([m.points(vertices).pixels for m in maps])
    seen = torch.isfinite(places).all(-1)
    places = torch.where(seen[..., None], places, mean)
    other = [i - 1 for i in range(len(maps))]
    carried = torch.stack([maps[i].correspond(maps[j], goal[i]).target for i, j in enumerate(other)])
    there = torch.isfinite(carried).all(-1)
    carried = torch.where(there[..., None], carried, mean)
    return {
        "vertices_percent": float(percent_error(places, goal, size).mean()),
        "vertices_median": float(percent_error(places, goal, size).median()),
        "vertices_seen": float(seen.float().mean()),
        "carried_percent": float(percent_error(carried, goal[other], size[other]).mean()),
        "carried_seen": float(there.float().mean()),
    }


def draw(out: Path, name: str, maps: Sequence[PixelMap], crops: Tensor) -> None:
    """NAME_faces.png and NAME_texture.png."""
    shown = range(min(16, len(maps)))
    pairs = [x for i in shown for x in (as_picture(crops[i]), draw_pixel_map(maps[i], crops[i]))]
    save_picture(contact_sheet(pairs, columns=8), out / f"{name}_faces.png")
    texture, known = maps[0].gather(crops[0])
    painted = []
    for i in shown:
        on = maps[i].carry(torch.cat([texture, known[:, None].float()], 1))
        shown_there = on[..., 3:] > 0.5
        picture = torch.where(shown_there, on[..., :3] / on[..., 3:].clamp_min(0.5), crops[i].movedim(0, -1))
        painted += [as_picture(crops[i]), as_picture(picture.movedim(-1, 0).clamp(0, 1))]
    save_picture(contact_sheet(painted, columns=8), out / f"{name}_texture.png")


if __name__ == "__main__":
    main()
