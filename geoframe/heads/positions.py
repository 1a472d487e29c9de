"""Heads that say for every vertex of a template where it is in an image, hidden ones too, and whether it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoframe._check import check_int, check_shape
from geoframe._precision import full_precision
from geoframe.heads.backbone import Backbone, conv
from geoframe.heads.fields import FieldHead
from geoframe.warps import pixel_grid

_COARSE = 4  # cells a side of the paper's last feature map
_WIDTH = 256  # of that map
_FINE = 4  # parts of each side of a square of the heat maps, for which the mask is told one by one


class Positions(NamedTuple):
    """What a head says about images.

    Attributes:
        points: (B, V, 2) x right, y down, in halves of the image's side from its middle: -1 to 1.
        visibility: (B, V) logits.
        mask: (B, m, m) logits of the foreground, or None from a head that does not say.
        heat: (B, P, h, w) logits of where the P control points are, or None from a head without.
        spread: (B,) standard deviation of those places, the mean over the control points, in the unit of `points`;
            or None. It is large where the image shows nothing that the head knows.
        apart: (B,) mean distance between the positions in the image and, turned back, those in its mirror image, in
            the unit of `points`; or None, where nobody looked at that.
    """

    points: Tensor
    visibility: Tensor
    mask: Tensor | None
    heat: Tensor | None = None
    spread: Tensor | None = None
    apart: Tensor | None = None


class DensePositions(nn.Module):
    """The paper's head: one linear layer from a feature map of 4 x 4 to all positions and visibilities.

    Args:
        backbone: whose coarsest map is looked at.
        start: (V, 2) positions that the head says before it has learned anything, inside (-1, 1).

    Source: Kokkinos & Kokkinos 2021, section 4; the released code. Differs: group norm in place of batch norm, so
        that an image does not depend on its batch; positions start at `start`, not all in the middle.
    """

    def __init__(self, backbone: Backbone, start: Tensor) -> None:
        super().__init__()
        V = check_shape(start, "V 2", "start")["V"]
        self.backbone = backbone
        self.enter = conv(backbone.channels[-1], _WIDTH)
        self.out = nn.Linear(_WIDTH * _COARSE**2, 3 * V)
        nn.init.normal_(self.out.weight, std=1e-4)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("start", torch.atanh(start.clamp(-0.99, 0.99)).float())

    def forward(self, image: Tensor) -> Positions:
        """Positions of images (B, 3, H, W) in [0, 1]."""
        coarse = self.enter(self.backbone(image)[-1])
        coarse = F.adaptive_avg_pool2d(coarse, _COARSE)
        found = self.out(coarse.flatten(1)).unflatten(1, (-1, 3))
        return Positions((found[..., :2] + cast(Tensor, self.start)).tanh(), found[..., 2], None)


class ControlPositions(nn.Module):
    """Ours: P control points by soft-argmax, spread to all vertices by smooth functions of the template.

    A global linear layer stays at the mean shape for long; a point that is the mean of a heat map follows the image
    from the first steps. In evaluation mode it may be the mean of a sharper map, nearer to the likeliest place: between
    two legs that are as likely is neither. Between control points the positions are a combination of 1, x, y, z and the
    surface's lowest eigenfunctions, so that every view of the template and its smooth deformations can be said.

    Args:
        backbone: gives the maps.
        verts: (V, 3) of the template.
        functions: (V, M) smooth functions of the template.
        controls: (P,) vertices.
        width: of the decoder, see `FieldHead`.
        stride: of the heat maps, in pixels.
        stiffness: weight of the functions' squared coefficients against the control points' errors.
        sharpness: power of the heat maps in evaluation mode.
    """

    def __init__(
        self,
        backbone: Backbone,
        verts: Tensor,
        functions: Tensor,
        controls: Tensor,
        *,
        width: int = 64,
        stride: int = 4,
        stiffness: float = 0.1,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        V = check_shape(verts, "V 3", "verts")["V"]
        check_shape(functions, f"{V} M", "functions")
        P = check_int(len(controls), "controls", low=4)
        self.field = FieldHead(backbone, P + _FINE**2, width=width, stride=stride, mask=False)
        self.controls, self.sharpness = controls, sharpness
        self.register_buffer("spread", spread_matrix(verts, functions, controls, stiffness).float())
        n_context = backbone.channels[-1]
        self.context = nn.Linear(n_context, width)
        self.inner = nn.Linear(width + 2 * P, 2 * width)
        self.visible = nn.Linear(2 * width, V)

    @property
    def backbone(self) -> Backbone:
        """What gives the maps."""
        return self.field.backbone

    def forward(self, image: Tensor | Sequence[Tensor]) -> Positions:
        """Positions of images (B, 3, H, W) in [0, 1], or of what the backbone says of them, see `FieldHead`."""
        maps = self.backbone(image) if isinstance(image, Tensor) else list(image)
        logits, parts = self.field(maps).embedding.split([len(self.controls), _FINE**2], dim=1)
        at, spread = self._placed(logits)
        in_use = not self.training and self.sharpness != 1
        points = self._carried(self._placed(logits, self.sharpness)[0] if in_use else at)
        inner = F.relu(self.inner(torch.cat([self.context(maps[-1].mean((2, 3))), at.flatten(1)], 1)))
        mask = F.pixel_shuffle(parts, _FINE)[:, 0]
        told = self.backbone.foreground(maps)  # of which the head then learns what is wrong
        if told is not None:
            size = list(mask.shape[-2:])
            mask = mask + F.interpolate(told[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return Positions(points, self.visible(inner), mask, logits, spread)

    @full_precision
    def _placed(self, logits: Tensor, sharpness: float = 1.0) -> tuple[Tensor, Tensor]:
        """(B, P, 2) the control points, and the mean (B,) of their standard deviations."""
        heat = (sharpness * logits.flatten(2)).softmax(-1)
        places = pixel_grid(*logits.shape[-2:], like=heat).reshape(-1, 2)
        at = heat @ places
        variance = heat @ places.square().sum(1) - at.square().sum(-1)
        return at, variance.clamp_min(0).sqrt().mean(1).detach()

    @full_precision
    def _carried(self, at: Tensor) -> Tensor:
        """(B, V, 2) positions of all vertices from those of the control points (B, P, 2)."""
        return cast(Tensor, self.spread).to(at) @ at


def spread_matrix(verts: Tensor, functions: Tensor, controls: Tensor, stiffness: float) -> Tensor:
    """(V, P) that carries positions of control vertices to all vertices; rows sum to 1.

    ``f = a + b . X + sum_m c_m phi_m`` with the coefficients that minimise the errors at the controls plus
    ``stiffness sum c^2``; 1 and the coordinates X are free, so an affine image of the template is carried exactly.

    Args:
        verts: (V, 3).
        functions: (V, M) phi.
        controls: (P,) vertices, not all in one plane.
        stiffness: above 0.
    """
    if not stiffness > 0:
        raise ValueError(f"stiffness: expected a positive number, found {stiffness}")
    X = torch.cat([torch.ones_like(verts[:, :1]), verts, functions.to(verts)], 1).double()
    penalty = torch.full((X.shape[1],), stiffness, dtype=torch.float64)
    penalty[:4] = 1e-9
    at = X[controls]
    return X @ torch.linalg.solve(at.T @ at + torch.diag(penalty), at.T)
