"""Where each landmark lies, and which of a pair is the left one, decided for all pairs together.

Each heatmap tells left from right for itself, so that the arms may come out right and the legs exchanged. Landmarks of
one limb lie near each other, and hips lie nearer to the shoulder of their own side: that ties the pairs together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from geoframe.landmarking.inputs import Inputs

NEAR = 0.04  # of sqrt(area): the width of the heatmaps that the networks were trained on
BALL = 0.1  # of sqrt(area): a landmark within that is called right
CHAINS = (("shoulder", "elbow", "wrist", "front_paw"), ("hip", "knee", "hock", "hind_paw"))
ACROSS = {("shoulder", "hip"): 1.0, ("ear", "shoulder"): 0.5, ("eye", "ear"): 0.5}
SHARE = 0.25  # of a pair's log odds that counts: the landmarks of a limb err together
TIE = 6.0  # log odds that two pairs are on one side where distances say so: they never erred on 440 animals of the zoo
CLEAR = 0.02  # relative difference of distances from which on they do


def other(name: str) -> str:
    """The name that a mirror image gives to a landmark."""
    side, _, rest = name.partition("_")
    return f"{ {'left': 'right', 'right': 'left'}[side] }_{rest}" if side in ("left", "right") else name


def locate(x: Inputs, density: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples at which the landmarks lie, and how much says so.

    Args:
        x: S samples of a surface.
        density: (S, L) of the landmarks, at unit area.
        names: of the L landmarks.

    Returns:
        place: (L,) int64 into the samples.
        score: (L,) in [0, 1], the probability near it, of either side's landmark, times that of the side.
        source: (L,) int64, whose heatmap has its peak there: the landmark itself, or the other one of its pair.
    """
    gap = torch.cdist(x.place, x.place)
    chance = x.mass[:, None] * density
    peak = (torch.exp(-(gap**2) / (2 * NEAR**2)) @ chance).argmax(0)
    mine = torch.arange(len(names))
    near = (gap[peak] < BALL).to(chance) @ chance  # (L places, L landmarks)
    score = near[mine, mine]
    pairs = [n.removeprefix("left_") for n in names if n.startswith("left_")]
    left, right = (torch.tensor([names.index(f"{side}_{n}") for n in pairs]) for side in ("left", "right"))
    if not len(pairs):
        return peak, score, mine
    keep = _sides(x, near, gap, peak, left, right, pairs)
    apart = gap[peak[left], peak[right]] > BALL
    is_left = keep >= 0.5
    a, b = torch.where(is_left, left, right), torch.where(is_left, right, left)  # whose places they get
    source = mine.clone()
    source[left], source[right] = a, b
    sure = torch.where(is_left, keep, 1 - keep)
    for here, at, there in ((left, a, right), (right, b, left)):
        both = (near[at, here] + near[at, there]).clamp(max=1) * sure
        score[here] = torch.where(apart, both, near[at, here] * sure)
    return peak[source], score, source


def _sides(
    x: Inputs, near: Tensor, gap: Tensor, peak: Tensor, left: Tensor, right: Tensor, pairs: Sequence[str]
) -> Tensor:
    """(P,) probability that what the heatmaps call left of a pair is left, all ways of exchanging being weighed."""
    least = 1e-3
    says = (near[left, left] + least) * (near[right, right] + least)
    says = (says / ((near[left, right] + least) * (near[right, left] + least))).log()
    embedded = (x.vecs[:, 1:] / x.vals[1:].clamp(min=1e-6))[peak]  # distances in it are the biharmonic ones
    tie = torch.zeros(len(pairs), len(pairs))
    along = torch.cdist(embedded, embedded)
    for chain in CHAINS:
        for a, b in itertools.pairwise(chain):
            _tie(tie, along, left, right, pairs, a, b, 1.0)
    for (a, b), weight in ACROSS.items():
        _tie(tie, gap[peak][:, peak], left, right, pairs, a, b, weight)
    ways = torch.tensor(list(itertools.product((1.0, -1.0), repeat=len(pairs))))
    energy = 0.5 * SHARE * ways @ says + TIE * torch.einsum("np,pq,nq->n", ways, tie, ways)
    return (torch.softmax(energy, 0)[:, None] * (ways > 0)).sum(0)


def _tie(
    tie: Tensor,
    distance: Tensor,
    left: Tensor,
    right: Tensor,
    pairs: Sequence[str],
    a: str,
    b: str,
    weight: float,
) -> None:
    """Note in `tie` (P, P) whether pairs a and b lie nearer to each other as they are, or exchanged."""
    if a not in pairs or b not in pairs:
        return
    i, j = pairs.index(a), pairs.index(b)
    same = distance[left[i], left[j]] + distance[right[i], right[j]]
    crossed = distance[left[i], right[j]] + distance[right[i], left[j]]
    relative = (crossed - same) / (crossed + same).clamp(min=1e-9)
    tie[i, j] = 0.5 * weight * torch.tanh(relative / CLEAR)
