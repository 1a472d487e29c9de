"""Training of one network, and the calibration of what several say together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.landmark_network.shapes import Example
from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.landmarking.inputs import Inputs, network_inputs
from geoframe.landmarking.network import LandmarkNetwork
from geoframe.landmarking.predict import averaged
from geoframe.landmarking.sides import BALL, NEAR, locate, other
from geoframe.spectral.basis import Eigenbasis, kept_basis
from geoframe.surface import Mesh

NAMES = tuple(zoo.landmark_names())
SWAP = [NAMES.index(other(n)) for n in NAMES]
RATE, BATCH, AVERAGE = 2e-3, 4, 0.995  # of AdamW; surfaces a step; decay of the mean of the weights
SEEN = (320, 512)  # vertices of each surface that a step sees, drawn anew each time
OF_KNOWN, OF_ABSENT = 0.5, 0.1  # weights of the verdict, and of the absence of landmarks from other things


class Lesson(NamedTuple):
    """A surface as the network takes it, the distances (S, L) from its landmarks, and whether it is an animal."""

    seen: Inputs
    distance: Tensor
    known: bool


def lesson(e: Example) -> Lesson:
    """Of an example."""
    surface = Surface.of(Mesh(torch.as_tensor(e.verts), torch.as_tensor(e.faces)))
    kept_basis(surface, Eigenbasis(*(torch.as_tensor(a).double() for a in (e.vals, e.vecs, e.mass))))
    seen = network_inputs(surface, n_samples=surface.n_verts)
    return Lesson(seen, torch.as_tensor(e.distance[:, seen.vertex.numpy()].astype(np.float32)).T, e.known)


def train(
    lessons: Sequence[Lesson],
    n_steps: int,
    seed: int,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> LandmarkNetwork:
    """A network trained from a seed: the mean of its weights over the last few hundred steps."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = LandmarkNetwork(len(NAMES))
    even, odd = (torch.cat([getattr(x.seen, part) for x in lessons if x.known]) for part in ("even", "odd"))
    model.mean.copy_(even.mean(0))
    model.spread.copy_(torch.cat([even.std(0), odd.square().mean(0).sqrt()]))
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    mean = copy.deepcopy(model)
    order: list[int] = []
    for step in range(n_steps):
        share = step / n_steps
        rate = RATE * min(1.0, step / 100 + 0.01) * (0.5 + 0.5 * np.cos(np.pi * share) + 0.005)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if len(order) < BATCH:
            order = rng.permutation(len(lessons)).tolist()
        loss = loss_of(model, *_batch([lessons[order.pop()] for _ in range(BATCH)], rng))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        keep = min(AVERAGE, (step + 1) / (step + 11))
        with torch.no_grad():
            for p, q in zip(mean.parameters(), model.parameters(), strict=True):
                p.lerp_(q, 1 - keep)
        progress(step, loss.item())
    return mean.eval()


def loss_of(model: LandmarkNetwork, x: Inputs, distance: Tensor, known: Tensor, side: Tensor) -> Tensor:
    """Cross entropy to a Gaussian around each landmark, or to its absence, and of the verdict.

    Args:
        x: a batch. distance: (B, S, L). known: (B,). side: (B, 1, 1), -1 where the mirror image is shown.
    """
    said = model(x, side)
    wanted = x.mass[..., None] * torch.exp(-(distance.clamp(max=10) ** 2) / (2 * NEAR**2))
    wanted = wanted / wanted.sum(1, keepdim=True).clamp(min=1e-9)
    there = torch.isfinite(distance).any(1)
    parts = torch.where(there, -(wanted * said.log_density).sum(1), -said.log_absent).mean(1)
    verdict = torch.nn.functional.binary_cross_entropy_with_logits(said.known, known)
    return (parts * torch.where(known > 0, 1.0, OF_ABSENT)).mean() + OF_KNOWN * verdict


def _batch(lessons: Sequence[Lesson], rng: np.random.Generator) -> tuple[Inputs, Tensor, Tensor, Tensor]:
    """Some vertices of each surface, half of the surfaces as their mirror images."""
    n = int(rng.integers(*SEEN))
    sides = [1.0 if rng.uniform() < 0.5 else -1.0 for _ in lessons]
    some = [_some(x, n, rng) for x in lessons]
    distance = [d if side > 0 else d[:, SWAP] for (_, d), side in zip(some, sides, strict=True)]
    inputs = Inputs(*(torch.stack(field) for field in zip(*(x for x, _ in some), strict=True)))
    known = torch.tensor([float(x.known) for x in lessons])
    return inputs, torch.stack(distance), known, torch.tensor(sides)[:, None, None]


def _some(x: Lesson, n: int, rng: np.random.Generator) -> tuple[Inputs, Tensor]:
    """`n` vertices by chance, which share the area of all among them."""
    S = len(x.distance)
    pick = torch.as_tensor(rng.permutation(S)[:n] if n < S else np.r_[:S, rng.integers(0, S, n - S)])
    nearest = torch.cdist(x.seen.place, x.seen.place[pick]).argmin(1)
    mass = torch.zeros(n).index_add_(0, nearest, x.seen.mass)
    by_vertex = {
        f: getattr(x.seen, f)[pick] for f in ("even", "odd", "vecs", "grad_x", "grad_y", "place", "vertex")
    }
    return x.seen._replace(**by_vertex, mass=mass), x.distance[pick]


class Trial(NamedTuple):
    """What networks say of lessons: error, score and whether the landmark is there (n, L); verdict, truth (m,)."""

    error: Tensor
    swapped: Tensor
    score: Tensor
    there: Tensor
    verdict: Tensor
    known: Tensor


def trial(models: Sequence[LandmarkNetwork], lessons: Sequence[Lesson]) -> Trial:
    """Of networks together; errors are geodesic, over sqrt(area)."""
    rows, verdicts = [], []
    for x in lessons:
        density, verdict = averaged(models, x.seen, NAMES)
        peak, score, _ = locate(x.seen, density, NAMES)
        here = x.distance.gather(0, peak[None])[0]
        there = x.distance[:, SWAP].gather(0, peak[None])[0]
        verdicts.append(float(verdict))
        if x.known:
            rows.append(
                (here, (there < 0.5 * here) & (here > BALL), score, torch.isfinite(x.distance).any(0))
            )
    parts = (torch.stack(field) for field in zip(*rows, strict=True))
    return Trial(*parts, torch.tensor(verdicts), torch.tensor([x.known for x in lessons]))


def calibrate(t: Trial) -> dict[str, float]:
    """Slope and shift of the confidence and of the verdict, by logistic regression; a landmark that the surface lacks
    counts as wrong wherever it is seen."""
    right = (t.error < BALL) & t.there
    slope, shift = _logistic(torch.logit(t.score, eps=1e-4).ravel(), right.ravel().float())
    known_slope, known_shift = _logistic(t.verdict, t.known.float())
    return {"slope": slope, "shift": shift, "known_slope": known_slope, "known_shift": known_shift}


def _logistic(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and shift with the largest likelihood, held by a weak prior."""
    p = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    x, y = x.double(), y.double()
    optimiser = torch.optim.LBFGS([p], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(p[0] * x + p[1], y)
        loss = loss + 1e-3 * ((p[0] - 1) ** 2 + p[1] ** 2)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(p[0]), float(p[1])
