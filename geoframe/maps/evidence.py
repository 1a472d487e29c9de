"""What speaks for a map and against it, without knowing the truth: the measures that a confidence is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe.canonical.surface import Surface
from geoframe.landmarking import NamedLandmarks, predict_landmarks
from geoframe.landmarking.inputs import local_shape
from geoframe.maps.quality import GeodesicDistortion

KNOWN = 0.5  # chance that a surface is a human or an animal from which its named landmarks are used
SURE = 0.5  # confidence of a named landmark on both surfaces, at least
CURVATURE = slice(16, 24)  # of `LocalShape.even`: how far diffusion moves a vertex, inwards and in all
LEAST = 5  # landmarks, at least: fewer say nothing
FAR = 0.5  # of sqrt(area): a named landmark is never farther off than that, so that one does not outvote the others


def named_landmarks(surface: Surface) -> NamedLandmarks:
    """`predict_landmarks`, once for a surface."""
    return surface.once("named landmarks", lambda: predict_landmarks(surface))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What of two surfaces a map between them is compared with, computed once for all maps.

    Attributes:
        distortion: of geodesic distances.
        even1: (V1, p) curvature of surface 1 at several scales, each column of mean 0 and variance 1; even2 (V2, p).
        odd1: (V1, q) what changes its sign on a mirror image, each column of mean square 1; odd2 (V2, q).
        share2: (V2,) areas of the vertices of surface 2, of sum 1.
        named1: (L,) vertices that a network takes for landmarks on both surfaces, here on surface 1; empty if unknown.
        named2: (L,) those on surface 2.
        to1: (L, V1) distances from the first over sqrt(area).
        names: of these landmarks.
    """

    distortion: GeodesicDistortion
    even1: Tensor
    even2: Tensor
    odd1: Tensor
    odd2: Tensor
    share2: Tensor
    named1: Tensor
    named2: Tensor
    to1: Tensor
    names: tuple[str, ...]

    @classmethod
    def of(cls, one: Surface, two: Surface, distortion: GeodesicDistortion) -> Evidence:
        """Compute, or take from the surfaces, what maps between them are compared with."""
        shares = [torch.as_tensor(s.laplacian[1] / s.laplacian[1].sum()) for s in (one, two)]
        shapes = [local_shape(s) for s in (one, two)]
        even1, even2 = (
            _standard(x.even[:, CURVATURE].double(), m, centred=True)
            for x, m in zip(shapes, shares, strict=True)
        )
        odd1, odd2 = (
            _standard(x.odd.double(), m, centred=False) for x, m in zip(shapes, shares, strict=True)
        )
        first, second = named_landmarks(one), named_landmarks(two)
        both = sure_on_both(first, second)
        named1, named2 = first.vertices[both].cpu(), second.vertices[both].cpu()
        rows = one.distances(named1).cpu().double() if len(named1) else torch.zeros(0, one.n_verts).double()
        to1 = rows / float(one.area) ** 0.5
        names = tuple(first.names[i] for i in torch.nonzero(both).ravel().tolist())
        return cls(distortion, even1, even2, odd1, odd2, shares[1], named1, named2, to1, names)

    def likeness(self, p2p_21: Tensor) -> dict[str, float]:
        """How alike the surfaces are where the map p2p_21 (V2,) takes one to the other.

        Returns:
            `shape_correlation` of the curvature at four scales, signed and in all, and `handedness_correlation` of
            what changes its sign on a mirror image, both in [-1, 1]; of a mirror image of the right map the second
            is negative, of one turned by half a circle about zero. Where landmarks have been named on both
            surfaces also `named_landmark_error`, their mean distance over sqrt(area) to where the map takes them,
            each counted as at most `FAR`.
        """
        to, weight = p2p_21.cpu(), self.share2[:, None]
        found = {
            "shape_correlation": float((weight * self.even2 * self.even1[to]).sum(0).mean()),
            "handedness_correlation": float((weight * self.odd2 * self.odd1[to]).sum(0).mean()),
        }
        if len(self.named1):
            found["named_landmark_error"] = float(self.named_gaps(to).clamp(max=FAR).mean())
        return found

    def named_gaps(self, p2p_21: Tensor) -> Tensor:
        """(L,) distances over sqrt(area) from the named landmarks to where the map p2p_21 (V2,) takes them."""
        return self.to1.gather(1, p2p_21.cpu()[self.named2][:, None])[:, 0]

    def handedness(self, places_21: Tensor, at: Tensor) -> float:
        """`handedness_correlation` of a map that is known at some vertices alone, which share the area evenly.

        Args:
            places_21: (N,) vertices of surface 1.
            at: (N,) the vertices of surface 2 that go there.
        """
        return float((self.odd2[at.cpu()] * self.odd1[places_21.cpu()]).mean())

    def measures(self, p2p_21: Tensor, p2p_12: Tensor) -> dict[str, float]:
        """`likeness`, and how the maps p2p_21 (V2,) and p2p_12 (V1,) change distances: `distortion` as of
        `GeodesicDistortion`, and `distortion_spread`, the root mean square of the same changes over the mean distance,
        in which one limb in the wrong place counts for more."""
        mean, spread = self.distortion.mean_and_spread(p2p_21, p2p_12)
        return {"distortion": mean, "distortion_spread": spread, **self.likeness(p2p_21)}


def sure_on_both(one: NamedLandmarks, two: NamedLandmarks) -> Tensor:
    """(L,) which landmarks are sure on both surfaces; none where one of these is something else."""
    both = torch.minimum(one.confidence, two.confidence) >= SURE
    if min(one.known, two.known) < KNOWN or int(both.sum()) < LEAST:
        both = torch.zeros_like(both)
    return both


def _standard(f: Tensor, share: Tensor, *, centred: bool) -> Tensor:
    """Columns of mean square 1 over the surface, about their mean or as they are."""
    if centred:
        f = f - share @ f
    return f / (share @ f.square()).sqrt().clamp_min(1e-12)
