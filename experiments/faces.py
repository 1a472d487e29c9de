"""The faces of GEOFRAME_DATA and their split by people, for the experiments on frames and landmarks."""

from __future__ import annotations

import argparse
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._files import to_json
from geoframe.data.face_files import LandmarkSet, load_landmark_images
from geoframe.viz.images import contact_sheet, draw_points
from geoframe.viz.surfaces import save_picture
from geoframe.warps import to_pixels


class Faces(NamedTuple):
    """Faces in three parts without a common person.

    Attributes:
        train: annotated ones to learn from.
        test: annotated ones to measure on.
        unlabelled: the training part and the pictures without landmarks, whose people are not known.
    """

    train: LandmarkSet
    test: LandmarkSet
    unlabelled: LandmarkSet


def load_faces(folder: Path, *, development: bool = False) -> Faces:
    """Unpack the faces into a folder, unless they are there, and split them by people.

    A third of the people is for the test. With `development`, the rest alone is split again in the same way: settings
    are chosen there.

    Raises:
        ValueError: GEOFRAME_DATA has no faces.
    """
    archive = Path(os.environ.get("GEOFRAME_DATA", "")) / "faces/faces_100.zip"
    if not (folder / "landmarks.csv").is_file():
        if not archive.is_file():
            raise ValueError("GEOFRAME_DATA: expected a folder with faces/faces_100.zip, found none; set it")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    return split_by_people(load_landmark_images(folder), development=development)


def split_by_people(faces: LandmarkSet, *, development: bool = False) -> Faces:
    """A third of the people for the test, see `load_faces`."""
    people = torch.unique(faces.identity[faces.identity >= 0])
    people = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(0))]
    third = len(people) // 3
    test = torch.isin(faces.identity, people[:third])
    if development:
        rest = people[third:]
        held, test = test, torch.isin(faces.identity, rest[: len(rest) // 3])
        faces = faces.only(~held)
        test = test[~held]
    train = (faces.identity >= 0) & ~test
    return Faces(faces.only(train & faces.annotated), faces.only(test & faces.annotated), faces.only(~test))


def squares(predictor: object, faces: LandmarkSet) -> tuple[Tensor, Tensor, Tensor]:
    """Squares, landmarks and people of annotated faces, as a predictor wants them."""
    kept, cut = predictor.squares(faces)  # type: ignore[attr-defined]
    return cut.images, cut.points, kept.identity


def face_options(doc: str | None, variants: Iterable[str], default: list[str]) -> argparse.ArgumentParser:
    """The words that every experiment on faces understands.

    Args:
        doc: text of its --help.
        variants: what --variant may be.
        default: what it is.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a smoke test on few pictures and steps")
    parser.add_argument("--develop", action="store_true", help="measure on a third of the training people")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="of each training; by default the recipe's")
    parser.add_argument("--variant", nargs="+", choices=list(variants), default=default)
    parser.add_argument(
        "--labels", nargs="+", default=["10", "50", "all"], help="annotated pictures learned from"
    )
    parser.add_argument("--test", type=int, help="pictures to measure on, evenly spread; by default all")
    parser.add_argument("--draws", type=int, default=3, help="of 10 and of 50 labels")
    parser.add_argument("--method", nargs="+", choices=["cascade", "linear"], default=["cascade", "linear"])
    return parser


def faces_of(asked: argparse.Namespace) -> tuple[Faces, list[int | str]]:
    """The faces and the numbers of labels that were asked for; few of both with --quick."""
    faces = load_faces(asked.out / "faces", development=asked.develop)
    if asked.quick:
        few = (part.only(range(12)) for part in (faces.train, faces.test, faces.unlabelled))
        return Faces(*few), [5, "all"]
    if asked.test is not None:
        step = max(1, len(faces.test) // asked.test)
        faces = faces._replace(test=faces.test.only(range(0, len(faces.test), step)))
    return faces, [x if x == "all" else int(x) for x in asked.labels]


def trained(out: Path, train: Callable[[], Any], load: Callable[[Path], Any]) -> tuple[Any, dict[str, float]]:
    """The predictor of a folder, trained if it is not there yet, and the CPU seconds that its training took."""
    if not (out / "model.json").is_file():
        start = time.process_time()
        train()
        (out / "cpu_seconds.json").write_text(to_json(time.process_time() - start), encoding="utf-8")
    told = out / "cpu_seconds.json"
    return load(out), {"cpu_seconds": json.loads(told.read_text())} if told.is_file() else {}


def add_results(out: Path, head: str, numbers: Mapping[str, Any]) -> None:
    """Put numbers into OUT/results.json, under flat names such as head/iod_percent_5/all, beside what is there."""
    file = out / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for name, value in numbers.items():
        for key, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            results["/".join(filter(None, (head, name, str(key))))] = number
    file.write_text(to_json(results), encoding="utf-8")


def draw_own_points(predictor: Any, images: Tensor, file: Path) -> None:
    """Landmarks of the network's own on 24 of the pictures."""
    images = images[:: max(1, len(images) // 24)][:24]
    side = images.shape[-1]
    points = to_pixels(predictor.own_points(images), side, side)
    pictures = (np.ascontiguousarray(x.movedim(0, -1).numpy()) for x in images)
    drawn = [draw_points(x, p, scale=2) for x, p in zip(pictures, points, strict=True)]
    save_picture(contact_sheet(drawn, columns=8), file)
