"""The network: images to embeddings of pixels, and beside it the embeddings of the surfaces' vertices.

One image network serves all surfaces, and knows nothing of categories: what a pixel shows is said in the space that
the surfaces share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from geoframe._check import check_shape
from geoframe.canonical import GeodesicRows
from geoframe.canonical.surface import Surface
from geoframe.data.crops import resized
from geoframe.heads.fields import Field, FieldHead
from geoframe.layers.logistic import fit_logistic
from geoframe.layers.vertex_embedding import SharedEmbedding, VertexEmbedding
from geoframe.surface import farthest_points

KERNEL = 0.1  # sqrt(area): a pixel is right whose vertex is nearer than this to the truth
COLORS = 20  # bins of red, green and blue each
COLOR_WEIGHT = 1.8  # chosen on renders: IoU .809 without, .840 with this, no better with more bins or weight
EDGE_REACH = 1.5  # squares of the field; chosen on renders: .8637 without, .8749 with 1, .8777 with 1.5
EDGE_FLATNESS = 3e-5  # variance of colours below which there is no edge; .8756 with 3e-4
EDGE_LIMIT = 4.0  # logits beyond count as this
_EDGE_SIZE = 160  # pixels of the longer side at which edges are looked for
SPECK = 0.02  # of the foreground
_REPRESENTATIVES = 256


class Embedded(NamedTuple):
    """What the network says.

    Attributes:
        embedding: (B, D, h, w) of squares of `stride` pixels, not normalised.
        mask: (B, h, w) logits: above 0 where the object is.
        tables: (V, D) unit embeddings of the vertices, one a surface, in their order.
    """

    embedding: Tensor
    mask: Tensor
    tables: tuple[Tensor, ...]


class Evidence(NamedTuple):
    """What the confidence of pixels is read from.

    Attributes:
        concentration: (N,) in [0, 1], the share of the posterior that lies near the answer.
        agreement: (N,) in [0, 1], how far the image and its mirror image say the same; 1 where only one was asked.
        mask: (N,) logits of the foreground.
    """

    concentration: Tensor
    agreement: Tensor
    mask: Tensor


class Verdict(NamedTuple):
    """Whether a map is to be believed.

    Attributes:
        score: mean confidence over the foreground, in [0, 1]; 0 without foreground.
        sides: mean agreement of the image with its mirror image, in [0, 1].
        warnings: in sentences; none where nothing speaks against the map.
    """

    score: float
    sides: float
    warnings: tuple[str, ...]


class Calibration(nn.Module):
    """Evidence to confidence: a logistic function, fitted on pictures set aside.

    Attributes:
        weight: (4,) of concentration, agreement, mask and 1.
        limits: (2,) mean confidence below which a picture is doubted, mean agreement below which its sides are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([4.0, 4.0, 0.1, -4.0]))
        self.register_buffer("limits", torch.tensor([0.3, 0.5]))

    def forward(self, evidence: Evidence) -> Tensor:
        """(N,) in [0, 1]: the probability that a pixel shows the object and its vertex is right."""
        weight = self.weight
        assert isinstance(weight, Tensor)
        return (_columns(evidence).to(weight) @ weight).sigmoid()

    def fit(self, evidence: Evidence, right: Tensor) -> None:
        """Fit the weights.

        Args:
            evidence: of N pixels that were not trained on.
            right: (N,) bool, which of them show the object and are right.

        Raises:
            ValueError: all right or all wrong, so that nothing can be learned.
        """
        if bool(right.all()) or not bool(right.any()):
            raise ValueError(
                "right: expected some pixels that are right and some that are not, found one kind"
            )
        w = fit_logistic(_columns(evidence), right, penalty=1e-4)
        assert isinstance(self.weight, Tensor)
        self.weight.copy_(w)


def _columns(evidence: Evidence) -> Tensor:
    """(N, 4) evidence as the logistic function takes it."""
    mask = evidence.mask.clamp(-8, 8)
    return torch.stack([evidence.concentration, evidence.agreement, mask, torch.ones_like(mask)], dim=1)


class SurfaceEmbedding(nn.Module):
    """An image head and the surfaces that it speaks of.

    Args:
        head: images to embeddings and masks.
        surfaces: vertex embeddings of the same dimension, by name.
        style: chance that a picture of a batch takes the means and variances of its finer feature maps in part from
            another picture, while training: what the head then learns depends less on colours and textures.

    Raises:
        ValueError: different dimensions.

    Source: Neverova et al. 2020; the exchange of styles is Zhou et al. 2021, Domain generalization with MixStyle.
    """

    def __init__(self, head: FieldHead, surfaces: SharedEmbedding, *, style: float = 0.0) -> None:
        super().__init__()
        if surfaces.dim != head.dim:
            raise ValueError(f"surfaces: expected dim {head.dim} as the head has, found {surfaces.dim}")
        if not 0 <= style <= 1:
            raise ValueError(f"style: expected a chance in [0, 1], found {style}")
        self.head, self.surfaces, self.style = head, surfaces, style
        self.calibration = Calibration()

    @property
    def dim(self) -> int:
        """D."""
        return self.head.dim

    def forward(self, image: Tensor | Sequence[Tensor]) -> Embedded:
        """Embeddings of images (B, 3, H, W) in [0, 1], or of the backbone's maps of them, finest first."""
        maps = self.head.backbone(image) if isinstance(image, Tensor) and self._mixes else image
        if not isinstance(maps, Tensor) and self._mixes:
            maps = self._restyled(list(maps))
        field: Field = self.head(maps)
        return Embedded(field.embedding, field.mask, tuple(e() for e in self.surfaces.values()))

    @property
    def _mixes(self) -> bool:
        return self.training and self.style > 0

    def _restyled(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w) of which all but the coarsest have exchanged means and variances."""
        B = len(maps[-1])
        device = maps[-1].device
        other = torch.randperm(B, device=device)
        chosen = torch.nonzero(torch.rand(B, device=device) < self.style)[:, 0]
        if not len(chosen):
            return maps
        share = torch.distributions.Beta(0.1, 0.1).sample((len(chosen), 1, 1, 1)).to(maps[-1])
        new = list(maps)
        for i in range(self.head.n_unused, len(maps) - 1):
            x = maps[i]
            new[i] = x.clone()  # keeps the layout in memory, which index_copy does not
            new[i][chosen] = _exchanged(x[chosen], x[other[chosen]], share)
        return new


def _exchanged(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """x (B, C, h, w) with channel means and deviations moved towards those of `other` by `share` (B, 1, 1, 1)."""
    mean, mean2 = x.mean((2, 3), keepdim=True), other.mean((2, 3), keepdim=True)
    std, std2 = (y.std((2, 3), keepdim=True) + 1e-4 for y in (x, other))
    new = std + share * (std2 - std)
    return (x - mean) / std * new + mean + share * (mean2 - mean)


@dataclass(frozen=True, eq=False)
class Target:
    """A surface that pixels are mapped to, in the space of the network.

    Attributes:
        surface: the surface.
        table: (V, D) unit embeddings of its vertices.
        mirror: (V,) int64, for each vertex the one on the other side; None where the surface has no mirror plane.
    """

    surface: Surface
    table: Tensor
    mirror: Tensor | None = None

    @cached_property
    def chosen(self) -> Tensor:
        """(R,) vertices that stand for all."""
        n = min(_REPRESENTATIVES, self.surface.n_verts)
        return farthest_points(self.surface.verts.detach().double().cpu(), n)

    @cached_property
    def rows(self) -> GeodesicRows:
        """Geodesic distances."""
        return GeodesicRows(self.surface)

    @cached_property
    def kernel(self) -> Tensor:
        """(R, R) how near the representatives are to each other: 1 at distance 0."""
        distances = self.rows.rows(self.chosen)[:, self.chosen]
        return torch.exp(-distances.square() / (2 * KERNEL**2))


@torch.no_grad()
def smooth_start(embedding: VertexEmbedding) -> None:
    """Start an embedding of eigenfunctions from its lowest ones, randomly rotated, instead of from noise.

    Neighbours are then close from the first step, and what is left to learn is the image side.
    """
    if embedding.functions is None:
        return
    D = embedding.dim
    k = min(D + 1, embedding.functions)
    turn = torch.linalg.qr(torch.randn(D, D))[0]
    start = torch.zeros(k, D)
    start[1:] = turn[: k - 1]
    embedding.weight.mul_(0.1)
    embedding.weight[:k] += start


def on_functions(embedding: VertexEmbedding, table: Tensor) -> Tensor:
    """The weights with which an embedding is nearest to a table (V, D), in the inner product of the surface."""
    if embedding.basis is None:
        return table
    mass = embedding.surface.basis(1).mass.float()
    mass = mass / mass.sum()
    return embedding.basis.T @ (mass[:, None] * table)


def with_colors(logits: Tensor, image: Tensor) -> Tensor:
    """Mask logits corrected by the picture's own colours: pixels coloured as what is surely the object gain.

    Two histograms of colours, of the foreground and of the rest, each pixel counted by its probability, give a ratio
    of likelihoods. White socks of a brown horse stay lost, brown legs that the network missed are found.

    Args:
        logits: (H, W).
        image: (3, H, W) in [0, 1].

    Returns:
        (H, W).
    """
    bins = (image.detach().cpu().numpy() * (COLORS - 1e-4)).astype(np.int64)
    place = (bins[0] * COLORS + bins[1]) * COLORS + bins[2]
    p = logits.detach().cpu().sigmoid().double().numpy()
    shares = []
    for weight in (p, 1 - p):
        counts = np.bincount(place.ravel(), weight.ravel(), COLORS**3).reshape((COLORS,) * 3)
        counts = ndimage.gaussian_filter(counts, 1.2, mode="nearest")
        shares.append(counts / max(counts.sum(), 1e-9) + 1e-4)
    ratio = np.clip(np.log(shares[0] / shares[1]), -3, 3).ravel()[place]
    return logits + COLOR_WEIGHT * torch.from_numpy(ratio).to(logits)


def with_edges(logits: Tensor, image: Tensor, squares: int) -> Tensor:
    """Mask logits whose outline follows the edges of the picture: a guided filter with the picture as its guide.

    Around each pixel the logits are taken as a linear function of the colours; the mean of these functions is told.

    Args:
        logits: (H, W).
        image: (3, H, W) in [0, 1].
        squares: of the field from which the logits come, along the longer side: they reach no further.

    Returns:
        (H, W).

    Source: He, Sun and Tang 2010, Guided image filtering; for large pictures the functions are found on smaller ones,
        He and Sun 2015.
    """
    size, most = logits.shape, max(logits.shape)
    shrink = min(1.0, _EDGE_SIZE / most)
    guide, p = image.double(), logits.double().clamp(-EDGE_LIMIT, EDGE_LIMIT)[None]
    if shrink < 1:
        small = (max(round(size[0] * shrink), 1), max(round(size[1] * shrink), 1))
        guide, p = resized(guide, small), resized(p, small)
    width = 2 * max(round(EDGE_REACH * most * shrink / squares), 1) + 1
    slope, offset = _linear_in(guide.cpu().numpy(), p[0].detach().cpu().numpy(), width)
    maps = torch.from_numpy(np.concatenate([slope, offset[None]])).to(image.device)
    if shrink < 1:
        maps = nn.functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    return ((maps[:3] * image).sum(0) + maps[3]).to(logits.dtype)


def _linear_in(guide: Any, p: Any, width: int) -> tuple[Any, Any]:
    """Slope (3, H, W) and offset (H, W) with which p (H, W) is linear in a guide (3, H, W), means over squares."""

    def mean(x: Any) -> Any:
        return ndimage.uniform_filter(x, width, mode="nearest")

    middle, level = np.stack([mean(x) for x in guide]), mean(p)
    with_p = np.stack([mean(x * p) for x in guide]) - middle * level
    pairs = {(i, j): mean(guide[i] * guide[j]) - middle[i] * middle[j] for i in range(3) for j in range(i, 3)}
    a, b, c = (pairs[i, i] + EDGE_FLATNESS for i in range(3))
    d, e, f = pairs[0, 1], pairs[0, 2], pairs[1, 2]
    minors = [[b * c - f * f, e * f - d * c, d * f - e * b], [a * c - e * e, d * e - a * f], [a * b - d * d]]
    (m00, m01, m02), (m11, m12), (m22,) = minors
    det = a * m00 + d * m01 + e * m02
    inverse = ((m00, m01, m02), (m01, m11, m12), (m02, m12, m22))
    slope = np.stack([sum(m * x for m, x in zip(row, with_p, strict=True)) / det for row in inverse])
    offset = level - (slope * middle).sum(0)
    return np.stack([mean(x) for x in slope]), mean(offset)


def foreground(logits: Tensor) -> Tensor:
    """The mask (H, W) of logits (H, W): above 0, without holes and specks smaller than 2 % of it."""
    mask = logits.detach().cpu().numpy() > 0
    least = SPECK * mask.sum()
    for inside in (True, False):  # specks first, then holes
        number, n = ndimage.label(mask == inside)
        if n > 1:
            area = np.bincount(number.ravel())
            small = area < least
            small[0] = False
            mask = mask ^ small[number]
    return torch.from_numpy(mask).to(logits.device)


def at_points(field: Tensor, points: Tensor, stride: int) -> Tensor:
    """Values of a field at points between the centres of its squares, bilinear, as `FieldHead.at_size` has them.

    Args:
        field: (B, C, h, w) of squares of `stride` pixels.
        points: (B, P, 2) pixel x, pixel y.
        stride: pixels.

    Returns:
        (B, P, C).
    """
    h, w = check_shape(field, "B C h w", "field")["h"], field.shape[-1]
    extent = points.new_tensor([w * stride, h * stride])
    grid = 2 * points / extent - 1
    found = nn.functional.grid_sample(
        field, grid[:, :, None].to(field), mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[..., 0].mT


def mean_of(looks: Sequence[tuple[tuple[int, int, int, int], Embedded]], *, coarse: int = 0) -> Embedded:
    """The mean of several looks, on the grid of the last one.

    Args:
        looks: crop x0, y0, x1, y1, in pixels, and embedding (D, h, w) and mask (h, w) of each; the last crop is inside
            the others.
        coarse: how many of the first ones do not count for the mask, whose outline they see less well.
    """
    (x0, y0, x1, y1), last = looks[-1]
    h, w = last.mask.shape
    rows, cols = (torch.linspace(a, b, 2 * n + 1)[1::2] for a, b, n in ((y0, y1, h), (x0, x1, w)))
    points = torch.stack(torch.meshgrid(cols, rows, indexing="xy"), -1).reshape(1, -1, 2)
    found = [torch.cat([last.embedding, last.mask[None]])]
    for (left, top, right, bottom), seen in reversed(looks[:-1]):
        height, width = seen.mask.shape
        unit = torch.tensor([width / (right - left), height / (bottom - top)])
        at = ((points - torch.tensor([left, top])) * unit).to(seen.mask)
        both = torch.cat([seen.embedding, seen.mask[None]])[None]
        found.append(at_points(both, at, 1)[0].T.reshape(-1, h, w))
    several = torch.stack(found)
    mask = several[: len(looks) - coarse, -1].mean(0)
    return Embedded(several[:, :-1].mean(0), mask, ())


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w, ...) at another size, by the nearest pixel."""
    rows = ((torch.arange(size[0]) + 0.5) * x.shape[0] / size[0]).long()
    cols = ((torch.arange(size[1]) + 0.5) * x.shape[1] / size[1]).long()
    return x[rows][:, cols]


class Halved(nn.Module):
    """A model whose state is told in float16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (model,)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's own, in float16."""
        return {k: v.half() for k, v in self._model[0].state_dict().items()}
