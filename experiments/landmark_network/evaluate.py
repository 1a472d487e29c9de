"""Figures on real surfaces: do landmarks of one surface fall on those of another, are other things refused?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from experiments.landmark_network.shapes import largest_piece, simplify
from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.landmarking import predict
from geoframe.landmarking.predict import NamedLandmarks
from geoframe.landmarking.sides import other
from geoframe.surface import Mesh, load
from geoframe.zoo.template import draft

CHOSEN_ON = {"faust": ("tr_reg_081", "tr_reg_083", "tr_reg_084"), "dog": ("dog0", "dog2", "dog5")}
REPORTED = {
    "faust": ("tr_reg_085", "tr_reg_086", "tr_reg_087"),
    "michael": ("michael3", "michael7", "michael12"),
    "wolf": ("wolf0", "wolf1"),
}
ANIMALS = ("cat_lion/cat-00", "cat_lion/lion-00", "camel_gallop/camel-gallop-01")
SURE = 12  # landmarks that are called sure: those of highest confidence on both surfaces


def real_figures(data: Path, networks: predict._Networks) -> dict[str, float]:
    """All figures; `data` has near_isometric and animals."""
    values: dict[str, float] = {}
    with mock.patch.object(predict, "_networks", lambda: networks):
        for half, classes in (("chosen_on", CHOSEN_ON), ("reported", REPORTED)):
            for name, members in classes.items():
                folder = data / "near_isometric" / ("faust" if name == "faust" else "tosca")
                values |= {f"{half}/{name}/{k}": v for k, v in consistency(folder, members).items()}
        for name in ANIMALS:
            found = predict.predict_landmarks(surface_of(data / "animals" / f"{name}.off"))
            values[f"known/{name}"] = found.known
        values |= refusals()
    return values


def surface_of(path: Path) -> Surface:
    """Of a file, in double precision."""
    mesh = load(path)
    assert isinstance(mesh, Mesh)
    return Surface.of(Mesh(mesh.verts.double(), mesh.faces))


def consistency(folder: Path, members: Sequence[str]) -> dict[str, float]:
    """Of all ordered pairs: the landmarks of one surface, carried over by the truth, against those of the other.

    Returns:
        error: mean distance over sqrt(area). sure: that of the surest landmarks. swapped: the share that lies nearer
        to the other side's landmark. wrong: the share farther than 0.1 sqrt(area). known: the lowest.
    """
    truth = np.load(folder / "truth.npz")
    surfaces = {m: surface_of(folder / f"{m}.off") for m in members}
    found = {m: predict.predict_landmarks(s) for m, s in surfaces.items()}
    error, swapped, sure = [], [], []
    for a in members:
        for b in members:
            if a != b:
                here, there = _carried(surfaces[a], surfaces[b], found[a], found[b], truth[a], truth[b])
                both = torch.minimum(found[a].confidence, found[b].confidence)
                error.append(here)
                swapped.append((there < 0.5 * here) & (here > 0.08))
                sure.append(here[both.argsort(descending=True)[:SURE]])
    e = torch.stack(error)
    return {
        "error": float(e.mean()),
        "sure": float(torch.stack(sure).mean()),
        "swapped": float(torch.stack(swapped).float().mean()),
        "wrong": float((e > 0.1).float().mean()),
        "known": min(f.known for f in found.values()),
    }


def _carried(
    a: Surface, b: Surface, of_a: NamedLandmarks, of_b: NamedLandmarks, rows_a: np.ndarray, rows_b: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """(L,) heat distances on b, over sqrt(area), from a's carried landmarks to b's own and to its mirrored ones."""
    known = a.verts[torch.as_tensor(rows_a).long()]
    row = torch.cdist(a.verts[of_a.vertices], known).argmin(1)
    carried = torch.as_tensor(rows_b).long()[row]
    distance = b.distances(carried) / float(b.face_areas.sum()) ** 0.5
    swap = torch.tensor([of_b.names.index(other(n)) for n in of_b.names])
    here = distance.gather(1, of_b.vertices[:, None])[:, 0]
    return here, distance.gather(1, of_b.vertices[swap][:, None])[:, 0]


def refusals() -> dict[str, float]:
    """The highest verdict on members of each other category that no training saw."""
    values = {}
    for category in (*zoo.CATEGORIES, "head"):
        seen = []
        for seed in range(900, 902):
            member = zoo.sample_head(seed) if category == "head" else zoo.sample(category, seed)
            mesh, _ = draft(member)
            verts, faces = largest_piece(*simplify(mesh.verts.numpy(), mesh.faces.numpy(), 2500))
            seen.append(predict.predict_landmarks(Mesh(torch.as_tensor(verts), torch.as_tensor(faces))).known)
        values[f"refused/{category}"] = max(seen)
    return values
