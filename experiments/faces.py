"""The faces of GEOFRAME_DATA and their split by people, for the experiments on frames and landmarks."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe.data.face_files import LandmarkSet, load_landmark_images


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
