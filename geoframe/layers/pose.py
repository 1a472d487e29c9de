"""Branches that look at a whole cloud: coefficients of a shape basis, and the rotation of the cloud."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.layers.mlp import linear, shared_mlp
from geoframe.surface.clouds import check_clouds
from geoframe.transforms import rotation_about_axis, sixd_to_rotation

_ROWS = 4096  # points whose features are computed at once
_POSE_SIZE = {"vertical": 1, "any": 6}


class PoseCoefficientBranch(nn.Module):
    """Clouds to K coefficients and a rotation: a PointNet whose maximum over the points is the answer.

    Args:
        n_coefficients: K.
        rotation: "vertical", one angle about axis `up`; "any", six numbers, our extension.
        up: the vertical axis, 0 to 2.
        hidden: widths of the layers before the last.

    Source: Fernandez-Labrador et al. 2020, section 4; widths are those of the released code. There the angle
        gets no gradient; here it does.
    """

    def __init__(
        self,
        n_coefficients: int,
        *,
        rotation: str = "vertical",
        up: int = 2,
        hidden: Sequence[int] = (64, 128),
    ) -> None:
        super().__init__()
        self.n_coefficients = check_int(n_coefficients, "n_coefficients", low=1)
        self.rotation = check_choice(rotation, ("vertical", "any"), "rotation")
        self.up = check_int(up, "up", low=0, high=2)
        self.mlp = shared_mlp((3, *hidden, n_coefficients + _POSE_SIZE[rotation]), activate_last=False)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients and rotations of clouds.

        Args:
            points: (B, N, 3).

        Returns:
            coefficients: (B, K), unbounded.
            rotation: (B, 3, 3) from the canonical frame to that of the points.
        """
        check_clouds(points, 1)
        coefficients, pose = self.mlp(points).amax(1).tensor_split([self.n_coefficients], dim=-1)
        if self.rotation == "vertical":
            return coefficients, rotation_about_axis(pose[..., 0], self.up)
        identity = pose.new_tensor([1, 0, 0, 0, 1, 0])
        return coefficients, sixd_to_rotation(pose + identity)


class GlobalBranch(nn.Module):
    """Clouds to F numbers: a PointNet, the maximum and mean of its features over the points, a second MLP.

    The second one has no batch norm: over the few clouds of a batch it would be noise, in numbers that are to
    be exact.

    Args:
        n_out: F.
        n_in: C, channels of a point.
        n_extra: E, features of the whole cloud that the second MLP gets besides.
        hidden: widths of the PointNet.
        head: widths of the second MLP before the last.
    """

    def __init__(
        self,
        n_out: int,
        *,
        n_in: int = 3,
        n_extra: int = 0,
        hidden: Sequence[int] = (64, 128, 256),
        head: Sequence[int] = (256, 128),
    ) -> None:
        super().__init__()
        self.point_mlp = shared_mlp((n_in, *hidden))
        widths = (2 * hidden[-1] + n_extra, *head, n_out)
        layers = [m for pair in pairwise(widths) for m in (linear(*pair), nn.ReLU())]
        self.head = nn.Sequential(*layers[:-1])

    def forward(self, points: Tensor, extra: Tensor | None = None) -> Tensor:
        """The numbers of clouds.

        Args:
            points: (B, N, C).
            extra: (B, E) features of the whole cloud.

        Returns:
            (B, F), unbounded.
        """
        pooled = self.pooled(points)
        return self.head(pooled if extra is None else torch.cat([pooled, extra], dim=-1))

    def pooled(self, points: Tensor) -> Tensor:
        """Maxima and means (B, 2 H) of the features of the points of clouds (B, N, C), before the second MLP."""
        if self._is_plain(points):
            return torch.cat(self._pooled(points), dim=-1)
        h = self.point_mlp(points)
        return torch.cat([h.amax(1), h.mean(1)], dim=-1)

    def _is_plain(self, points: Tensor) -> bool:
        """Whether `_pooled` can be used."""
        plain = points.dtype == torch.float32 and points.device.type == "cpu" and points.shape[-1] == 3
        return plain and len(self.point_mlp) == 6 and not (self.training or torch.is_grad_enabled())

    def _pooled(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Maxima and means (B, C) of the features of clouds: a few clouds after the other, in memory that stays in the
        cache, and each value is touched once where tensor operations read and write it five times."""
        from geoframe.layers._points import first_layer, pool_positive

        (W, b), (V, c) = (self.point_mlp[i + 1].fold(self.point_mlp[i]) for i in (0, 3))  # type: ignore[operator]
        B, N = points.shape[:2]
        few = max(1, _ROWS // N)
        new = points.new_empty
        hidden, features = new(min(few, B) * N, len(b)), new(min(few, B) * N, len(c))
        most, mean = new(B, len(c)), new(B, len(c))
        rows, first, shift = (x.detach().contiguous().numpy() for x in (points.reshape(-1, 3), W.mT, b))
        h, f, last, top, middle = (x.numpy() for x in (hidden, features, c, most, mean))
        for i in range(0, B, few):
            n = min(few, B - i) * N
            first_layer(rows[i * N : i * N + n], first, shift, h[:n])
            torch.mm(hidden[:n], V.mT, out=features[:n])
            pool_positive(f[:n], last, top[i : i + few], middle[i : i + few])
        return most, mean
