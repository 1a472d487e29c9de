"""Low-rank shape bases of keypoints, with a learned plane of symmetry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoframe._check import check_choice, check_int, check_shape


class KeypointBasis(nn.Module):
    """A low-rank model of shapes: coefficients to N ordered keypoints in the canonical frame.

    There are three modes.

    - "plain": all N keypoints are free, ``P = mat(B c)`` (equation 2);
    - "symmetric": the second half is the mirror image of the first, ``P = [H, A H]`` with ``H = mat(B c)``
      (equation 3);
    - "deformation": the halves have mirrored bases and coefficients of their own, ``P = [mat(B c), A mat(B c')]``
      (equation 4).

    The reflection ``A = I - 2 n n^T`` is about a plane through the origin. Shapes are rotated afterwards: the paper's
    equation 3 reflects what is already rotated, its released code and we reflect first.

    Args:
        n_keypoints: N, even with symmetry.
        n_basis: K, the number of basis shapes.
        mode: "plain", "symmetric" or "deformation".
        plane: "vertical", the plane contains axis `up`, or "any".
        up: the vertical axis, 0 to 2.
        mean: add a mean shape, a basis shape whose coefficient is always 1; then all others start small.

    Raises:
        ValueError: N odd with symmetry, an unknown mode.

    Source: Fernandez-Labrador et al. 2020, equations 2-4.
    """

    def __init__(
        self,
        n_keypoints: int,
        n_basis: int,
        *,
        mode: str = "symmetric",
        plane: str = "vertical",
        up: int = 2,
        mean: bool = False,
    ) -> None:
        super().__init__()
        self.mode = check_choice(mode, ("plain", "symmetric", "deformation"), "mode")
        self.plane = check_choice(plane, ("vertical", "any"), "plane")
        self.n_keypoints = check_int(n_keypoints, "n_keypoints", low=2)
        self.n_basis = check_int(n_basis, "n_basis", low=1)
        self.up = check_int(up, "up", low=0, high=2)
        if mode != "plain" and n_keypoints % 2:
            raise ValueError(
                f"n_keypoints: expected an even number with symmetry, found {n_keypoints}; each keypoint has a mirror"
            )
        rows = n_keypoints if mode == "plain" else n_keypoints // 2
        self.basis = nn.Parameter((torch.rand(n_basis, rows, 3) - 0.5) * (0.1 if mean else 1.0))
        self.mean = nn.Parameter(torch.rand(rows, 3) - 0.5) if mean else None
        self.plane_parameter = nn.Parameter(
            torch.rand(2 if plane == "vertical" else 3), requires_grad=mode != "plain"
        )

    @property
    def n_coefficients(self) -> int:
        """How many numbers `forward` expects: K, or 2 K in mode "deformation"."""
        return self.n_basis * (2 if self.mode == "deformation" else 1)

    @property
    def normal(self) -> Tensor:
        """(3,) unit normal of the plane of symmetry in the canonical frame; its sign means nothing.

        In mode "plain" it is not learned.
        """
        n: Tensor = self.plane_parameter
        if self.plane == "vertical":  # two numbers: the axes after `up`
            n = torch.cat([n.new_zeros(1), n]).roll(self.up)
        return n / n.norm().clamp(min=torch.finfo(n.dtype).tiny)

    def reflect(self, points: Tensor) -> Tensor:
        """Mirror images of points (..., 3) of the canonical frame."""
        n = self.normal
        return points - 2 * (points @ n)[..., None] * n

    def forward(self, coefficients: Tensor) -> Tensor:
        """Canonical keypoints of coefficients.

        Args:
            coefficients: (B, K), in mode "deformation" (B, 2 K).

        Returns:
            (B, N, 3); in mode "symmetric", keypoints i and i + N/2 are mirror images.
        """
        check_shape(coefficients, f"B {self.n_coefficients}", "coefficients")
        if self.mode == "plain":
            return self._combine(coefficients)
        first = self._combine(coefficients[:, : self.n_basis])
        second = self._combine(coefficients[:, -self.n_basis :])
        return torch.cat([first, self.reflect(second)], dim=1)

    def _combine(self, c: Tensor) -> Tensor:
        shape = torch.einsum("bk,knd->bnd", c, self.basis)
        return shape if self.mean is None else shape + self.mean


def symmetry_frame(basis: KeypointBasis) -> Tensor:
    """The frame of a basis's plane of symmetry, as rows (3, 3): its normal, the direction along it, up.

    With a plane that is not vertical, up is the direction in the plane nearest to the vertical.
    """
    normal = basis.normal.detach()
    along = torch.linalg.cross(torch.eye(3, dtype=normal.dtype, device=normal.device)[basis.up], normal)
    along = along / along.norm().clamp(min=1e-12)
    return torch.stack([normal, along, torch.linalg.cross(normal, along)])
