"""The network: images to embeddings of pixels, and beside it the embeddings of the surfaces' vertices.

One image network serves all surfaces, and knows nothing of categories: what a pixel shows is said in the space that
the surfaces share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from geoframe._check import check_shape
from geoframe.canonical import GeodesicRows
from geoframe.canonical.surface import Surface
from geoframe.data.image_files import box_of_mask
from geoframe.data.pixel_samples import crop_box
from geoframe.heads.fields import Field, FieldHead
from geoframe.heads.upright import LEAST_AREA, TURNS, Glimpse, Upright
from geoframe.layers.logistic import fit_logistic
from geoframe.layers.vertex_embedding import SharedEmbedding, VertexEmbedding
from geoframe.surface import farthest_points

if TYPE_CHECKING:
    from geoframe.pixels import PixelMap

KERNEL = 0.1  # sqrt(area): a pixel is right whose vertex is nearer than this to the truth
_REPRESENTATIVES = 256
_CLOSE = 0.9  # of the image: a smaller crop around what was found is looked at instead, the second time
_SMALL = 0.3  # of the image: of a smaller crop, the third look is at the crop


class Embedded(NamedTuple):
    """What the network says.

    Attributes:
        embedding: (B, D, h, w) of squares of `stride` pixels, not normalised.
        mask: (B, h, w) logits: above 0 where the object is.
        tables: (V, D) unit embeddings of the vertices, one a surface, in their order.
        turned: see `PixelMap`.
    """

    embedding: Tensor
    mask: Tensor
    tables: tuple[Tensor, ...]
    turned: int | None = 0


Look = tuple[
    tuple[int, int, int, int], Embedded
]  # the crop x0, y0, x1, y1 in pixels, and what was said of it


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

    def verdict(self, found: PixelMap, *, sided: bool) -> Verdict:
        """Whether a map is to be believed.

        Args:
            found: with its embedding.
            sided: whether image and mirror image were looked at.
        """
        assert isinstance(self.limits, Tensor)
        least, least_sides = self.limits.tolist()
        if float(found.mask.float().mean()) < LEAST_AREA:
            return Verdict(0.0, 0.0, ("nothing of the category is seen in the picture",))
        score, sides, told = float(found.confidence[found.mask].mean()), 1.0, []
        if found.turned:
            told.append(f"the picture was looked at turned by {found.turned} degrees counterclockwise")
        elif found.turned is None:
            told.append("which way is up is not clear, the picture was looked at as it is")
        if found.embedding is not None and sided:
            sides = float(found.embedding[found.mask].norm(dim=1).mean())
        if score < least:
            told.append(
                f"the picture probably shows nothing of the category (score {score:.3f} below {least:.3f}); "
                "where it is small in the picture, give its box"
            )
        elif sides < least_sides:
            told.append(
                f"left and right, or front and back, may be exchanged (sides {sides:.3f} below {least_sides:.3f})"
            )
        return Verdict(score, sides, tuple(told))


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
        self.upright = Upright(head.dim)

    @property
    def dim(self) -> int:
        """D."""
        return self.head.dim

    def first(self, name: str) -> SurfaceEmbedding:
        """The same network with one of its surfaces before the others.

        Args:
            name: of the surface.
        """
        tables = {n: self.surfaces[n] for n in sorted(self.surfaces.names, key=lambda n: n != name)}
        out = SurfaceEmbedding(self.head, SharedEmbedding(tables), style=self.style).train(self.training)
        out.calibration, out.upright = self.calibration, self.upright
        return out

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
        return torch.exp(-distances.square() / (2 * KERNEL**2)).float()


def mirror_rotation(table: Tensor, mirror: Tensor) -> Tensor:
    """(D, D) rotation that takes embeddings of vertices as near to those of their mirror images as it gets.

    Args:
        table: (V, D).
        mirror: (V,) the vertex on the other side.
    """
    E = table.detach().double()
    U, _, Vt = torch.linalg.svd(E.T @ E[mirror])
    return (U @ Vt).float()  # E S is nearest to E[mirror], and S is its own inverse


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


def upright(
    first: Look, look: Callable[[int], Look], model: Upright, seen: Callable[[Embedded], Glimpse | None]
) -> Look:
    """The first look, or one at the image turned by 90, 180 or 270 degrees, if it is the right one.

    Args:
        first: at the image as it is.
        look: at the image turned by so many degrees.
        model: tells which look is right.
        seen: some pixels of a look.
    """
    score = model.score(seen(first[1]))
    if score > float(model.enough):
        return first
    looks = [first, *(look(degrees) for degrees in TURNS[1:])]
    turned = model.choose([score, *(model.score(seen(found)) for _, found in looks[1:])])
    return (first[0], first[1]._replace(turned=None)) if turned is None else looks[TURNS.index(turned)]


def closer_crops(mask: Tensor, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    """Crops of an image (H, W) for its second and third look.

    Args:
        mask: (h, w) bool, what the first look at the whole image found; not empty.
        size: H, W.

    Returns:
        Of the second look: around what was found, or the whole image where that is not much smaller. Of the third: the
        same if it is small, else the whole image.
    """
    H, W = size
    unit = torch.tensor([W, H]) / torch.tensor([mask.shape[1], mask.shape[0]])
    near = crop_box(box_of_mask(mask) * unit.repeat(2), size)
    share = (near[2] - near[0]) * (near[3] - near[1]) / (H * W)
    whole = (0, 0, W, H)
    return near if share < _CLOSE else whole, near if share < _SMALL else whole


def mean_of(looks: Sequence[Look], *, coarse: int = 0) -> Embedded:
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


def within(fields: Sequence[Tensor], crop: tuple[int, int, int, int], size: tuple[int, int]) -> list[Tensor]:
    """Vertices, mask and others of a crop as those of its image.

    Args:
        fields: (h, w, ...) each, of any resolution: integers, booleans, floating.
        crop: x0, y0, x1, y1 in pixels.
        size: H, W of the image.

    Returns:
        (H, W, ...) each; outside of the crop -1, False or 0.
    """
    x0, y0, x1, y1 = crop
    whole = []
    for field in fields:
        empty = False if field.dtype == torch.bool else 0.0 if field.is_floating_point() else -1
        out = torch.full((*size, *field.shape[2:]), empty, dtype=field.dtype)
        out[y0:y1, x0:x1] = enlarged(field, (y1 - y0, x1 - x0))
        whole.append(out)
    return whole


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w, ...) at another size, by the nearest pixel."""
    if x.shape[:2] == size:
        return x
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
