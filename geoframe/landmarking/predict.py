"""`predict_landmarks`: the zoo's landmarks on any human or animal, named by networks trained on the zoo alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe.canonical.surface import Surface
from geoframe.landmarking.inputs import Inputs, network_inputs
from geoframe.landmarking.network import LandmarkNetwork
from geoframe.landmarking.sides import NEAR, locate, other
from geoframe.spectral.basis import Eigenbasis, eigenbasis
from geoframe.surface.mesh import Mesh

WEIGHTS = Path(__file__).with_name("weights.safetensors")
CRUMPLED = 0.55  # share of the area that smoothing leaves: below that there is noise, see `without_noise`
NOISE_SIZE = 128  # eigenfunctions that keep the shape and leave the noise
SMOOTH_SIZE = 200  # those that know of edges alone, likewise; a tenth of the vertices at most


@dataclass(frozen=True, eq=False)
class NamedLandmarks:
    """Landmarks that were found on a surface.

    Attributes:
        names: of the L landmarks, those of `geoframe.zoo.landmark_names`, in that order.
        vertices: (L,) int64.
        confidence: (L,) in [0, 1], the chance that the landmark lies within 0.1 sqrt(area) of its right place.
        known: in [0, 1], the chance that the surface is a human or an animal at all, whole or a part.
    """

    names: tuple[str, ...]
    vertices: Tensor
    confidence: Tensor
    known: float

    @property
    def mirrored(self) -> tuple[tuple[str, str], ...]:
        """The names that a mirror image exchanges, (left, right)."""
        return tuple((n, other(n)) for n in self.names if n.startswith("left_"))

    def surest(self, n: int | None = None, *, at_least: float = 0.5) -> dict[str, int]:
        """Name -> vertex of the landmarks of highest confidence, the surest first; none stands on another's vertex.

        Args:
            n: at most so many; None for all.
            at_least: the lowest confidence.
        """
        found: dict[str, int] = {}
        for i in torch.argsort(-self.confidence, stable=True).tolist():
            vertex = int(self.vertices[i])
            if self.confidence[i] >= at_least and vertex not in found.values() and len(found) != n:
                found[self.names[i]] = vertex
        return found


def predict_landmarks(surface: Mesh) -> NamedLandmarks:
    """Name the landmarks of a human or an animal, in any pose.

    Networks see the surface and its mirror image, and their heatmaps are averaged. A surface crumpled by noise is
    smoothed first, which takes two eigenbases more. The answer is the same after
    a motion, a change of scale or another order of the vertices, and exchanges left and right on a mirror image.

    Args:
        surface: a mesh with outward or inward faces, holes allowed; a `geoframe.Surface` lends its eigenbasis of 128
            functions, which is most of the work.

    Returns:
        All the landmarks, each with its confidence, also those that the surface lacks or that were not found. Take
        none where `known` is below a half: chairs, cars and heads have vertices too.

    Raises:
        TypeError: not a mesh.
        ValueError: a batch, NaN, no area.
    """
    surface = without_noise(Surface.of(surface))
    x = network_inputs(surface)
    networks = _networks()
    density, known = averaged(networks.models, x, networks.names)
    place, score, source = locate(x, density, networks.names)
    chance = torch.sigmoid(networks.slope * torch.logit(score, eps=1e-4) + networks.shift)
    known_chance = float(torch.sigmoid(networks.known_slope * known + networks.known_shift))
    vertices = _settle(surface, x, density[:, source], place)
    return NamedLandmarks(networks.names, vertices, chance * known_chance, known_chance)


def without_noise(surface: Surface, k: int = NOISE_SIZE) -> Surface:
    """The surface itself, or where noise crumples it the same triangles on positions without the noise.

    There is noise if the positions, projected to the k lowest eigenfunctions, span much less area: of a clean animal
    0.8 to 0.9 of it are left, with noise of 0.5, 1 and 2 % of sqrt(area) at 5,000 vertices 0.6, 0.3 and 0.1. The
    positions returned are projected to eigenfunctions that know of edges, not of lengths, as noise changes lengths:
    for 1 and 2 % on people 0.5 and 0.8 % off, where those of the crumpled surface leave 0.9 and 1.1 %.
    """
    return surface.once(("without noise", k), lambda: _smoothed(surface, k))


def _smoothed(surface: Surface, k: int) -> Surface:
    used = int((surface.laplacian[1] > 0).sum())
    crumpled = _projected(surface, surface.basis(min(k, max(1, used))))
    if float(crumpled.face_areas.sum()) >= CRUMPLED * float(surface.face_areas.sum()):
        return surface
    few = max(1, min(SMOOTH_SIZE, used // 10))
    return Surface.of(_projected(surface, eigenbasis(surface, few, kind="equilateral")))


def _projected(surface: Surface, basis: Eigenbasis) -> Mesh:
    """The triangles on positions of eigenfunctions alone."""
    verts = surface.verts.detach().to(basis.vecs)
    middle = basis.mass @ verts / basis.mass.sum()
    return Mesh(basis.lift(basis.project(verts - middle)) + middle, surface.faces)


@torch.no_grad()
def averaged(models: Sequence[LandmarkNetwork], x: Inputs, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The mean over networks and both sides: densities (S, L) at unit area, and the logit () of being known."""
    swap = [names.index(other(n)) for n in names]
    density, known = torch.zeros(len(x.mass), len(names)), torch.zeros(())
    for model in models:
        here, there = model(x, 1.0), model(x, -1.0)
        density += here.log_density.exp() + there.log_density.exp()[:, swap]
        known += here.known + there.known
    return density / (2 * len(models)), known / (2 * len(models))


def _settle(surface: Surface, x: Inputs, density: Tensor, peak: Tensor) -> Tensor:
    """(L,) the vertices nearest to the middle of the probability around each peak, on the same side of a limb."""
    size = float(surface.face_areas.sum()) ** 0.5
    verts = surface.verts.detach().to("cpu", torch.float32) / size
    normals = surface.vertex_normals.detach().to("cpu", torch.float32)
    near_peak = torch.cdist(verts[x.vertex[peak]], verts[x.vertex])
    faces_along = normals[x.vertex[peak]] @ normals[x.vertex].T > 0.3
    weight = torch.exp(-(near_peak**2) / (2 * NEAR**2)) * faces_along * (x.mass[:, None] * density).T
    weight = weight + 1e-12 * (torch.arange(len(x.vertex)) == peak[:, None])
    middle = (weight / weight.sum(1, keepdim=True)) @ verts[x.vertex]
    gap = torch.cdist(middle, verts)
    wrong_side = (normals[x.vertex[peak]] @ normals.T <= 0.3) | (x.vertex[peak][:, None] == -1)
    gap = gap + 10.0 * wrong_side
    best = gap.argmin(1)
    return torch.where(wrong_side.all(1), x.vertex[peak], best)


class _Networks(NamedTuple):
    """The shipped networks with the calibration of what they say."""

    models: tuple[LandmarkNetwork, ...]
    names: tuple[str, ...]
    slope: float
    shift: float
    known_slope: float
    known_shift: float


@lru_cache(maxsize=1)
def _networks() -> _Networks:
    return load_networks(WEIGHTS)


def load_networks(path: Path) -> _Networks:
    """Networks that `save_networks` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  not a dict
    models = []
    for i in range(about["n_models"]):
        model = LandmarkNetwork(len(about["names"]), about["width"], about["n_blocks"])
        model.load_state_dict({k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{i}.")})
        models.append(model.eval().requires_grad_(False))
    return _Networks(tuple(models), tuple(about["names"]), **about["calibration"])


def save_networks(
    path: Path, models: Sequence[LandmarkNetwork], names: Sequence[str], calibration: dict[str, float]
) -> None:
    """Write networks of one shape in half precision.

    Args:
        path: of the safetensors file.
        models: networks with the same settings, whose answers are averaged.
        names: of the landmarks, in the order of the networks' outputs.
        calibration: slope and shift of the confidence, known_slope and known_shift of `known`: each is the sigmoid
            of slope times the logit plus shift.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{i}.{k}": v.half().contiguous() for i, m in enumerate(models) for k, v in m.state_dict().items()
    }
    about = {
        "n_models": len(models),
        "names": list(names),
        "width": models[0].first.out_features,
        "n_blocks": len(models[0].blocks),
        "calibration": calibration,
    }
    save_file(tensors, path, {"about": json.dumps(about)})
