"""A template with learned modes of deformation, smooth and, where that is asked for, mirror-symmetric."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from geoframe._check import check_int, check_shape


class ShapeModes(nn.Module):
    """``V = T + m + sum_k alpha_k B_k``, with the mean offset m and the modes B_k made of M smooth functions.

    Smooth functions keep a mode from tearing at vertices that no image sees. Those of high frequency start smaller
    and learn more slowly, as they are scaled by ``1 / (1 + lambda / lambda_M * damping)``.

    Args:
        verts: T (V, 3).
        functions: (V, M) smooth functions, such as eigenfunctions of the surface, the lowest first.
        n_modes: K, from 0.
        mirror: (V, V) or None; what carries functions to their mirror images, see `ObjectTemplate.mirrored`.
        reflection: (3, 3) of the mirror plane through 0.
        n_symmetric: how many of the modes, the first ones, are mirror-symmetric; the mean offset always is, where
            there is a mirror.
        spread: of the initial weights; the paper's code draws them from U(0, 0.01).
        seed: of the initial weights.

    Attributes:
        ridge: log of the weight of the squared coefficients, learned in the paper's code.

    Source: Kokkinos & Kokkinos 2021, eq. 3. Differs: there each vertex of each mode is free.
    """

    def __init__(
        self,
        verts: Tensor,
        functions: Tensor,
        n_modes: int,
        *,
        mirror: Tensor | None = None,
        reflection: Tensor | None = None,
        n_symmetric: int = 0,
        spread: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        V = check_shape(verts, "V 3", "verts")["V"]
        M = check_shape(functions, f"{V} M", "functions")["M"]
        check_int(n_modes, "n_modes", low=0)
        check_int(n_symmetric, "n_symmetric", low=0, high=n_modes)
        if (mirror is None) != (reflection is None):
            raise ValueError("mirror, reflection: expected both or neither, found one")
        self.n_symmetric = n_symmetric if mirror is not None else 0
        self.register_buffer("verts", verts.clone())
        self.register_buffer("functions", functions.to(verts).clone())
        self.register_buffer("mirror", None if mirror is None else mirror.to(verts).clone())
        self.register_buffer("reflection", None if reflection is None else reflection.to(verts).clone())
        draw = torch.Generator().manual_seed(seed)
        self.mean = nn.Parameter(torch.zeros(M, 3, dtype=verts.dtype))
        self.modes = nn.Parameter(spread * torch.randn(n_modes, M, 3, generator=draw).to(verts.dtype))
        self.ridge = nn.Parameter(torch.zeros((), dtype=verts.dtype))

    @property
    def n_modes(self) -> int:
        """K."""
        return len(self.modes)

    def template(self) -> Tensor:
        """(V, 3) the mean shape ``T + m``."""
        verts = cast(Tensor, self.verts)
        if self.mirror is None:
            return verts + cast(Tensor, self.functions) @ self.mean
        return verts + self._symmetric(self.mean)

    def basis(self) -> Tensor:
        """(K, V, 3)."""
        odd = cast(Tensor, self.functions) @ self.modes[self.n_symmetric :]
        if not self.n_symmetric:
            return odd
        return torch.cat([self._symmetric(self.modes[: self.n_symmetric]), odd])

    def forward(self, alpha: Tensor, at: Tensor | None = None) -> Tensor:
        """Shapes (..., V, 3) of coefficients (..., K), or some of their vertices.

        Args:
            alpha: (..., K).
            at: (L,) vertices wanted; None for all.
        """
        mean, basis = self.template(), self.basis()
        if at is not None:
            mean, basis = mean[at], basis[:, at]
        return mean + torch.tensordot(alpha, basis, dims=1)

    def reflected(self, field: Tensor) -> Tensor:
        """Vector fields (..., V, 3) as their mirror images are; shapes likewise."""
        return (cast(Tensor, self.mirror) @ field) @ cast(Tensor, self.reflection).mT

    def _symmetric(self, weights: Tensor) -> Tensor:
        """Fields (..., V, 3) of weights (..., M, 3), made symmetric: the functions are mirrored, not each field."""
        functions = cast(Tensor, self.functions)
        mirrored = cast(Tensor, self.mirror) @ functions
        return (functions @ weights + mirrored @ (weights @ cast(Tensor, self.reflection).mT)) / 2

    @torch.no_grad()
    def take_from(self, shapes: Tensor) -> None:
        """Take mean and modes from known shapes: their principal components, as nearly as the functions can say them.

        With a mirror plane the mean of shapes and mirror images gives the symmetric modes, what is left the others.

        Args:
            shapes: (n, V, 3), each turned, moved and scaled as near to the template as it gets; more than modes.
        """
        verts, K = cast(Tensor, self.verts).double(), self.n_modes
        V = len(verts)
        n = check_shape(shapes, f"N {V} 3", "shapes")["N"]
        check_int(n, "number of shapes", low=K + 1)
        x = shapes.to(verts)
        even = x if self.mirror is None else (x + self.reflected(x.to(self.mean)).to(x)) / 2
        mean = even.mean(0)
        odd, k = x - even, self.n_symmetric
        modes = _components(even - mean, k) if k else x[:0]
        modes = torch.cat([modes, _components(odd if self.mirror is not None else x - mean, K - k)])
        functions = cast(Tensor, self.functions).double()
        fields = torch.cat([(mean - verts)[None], modes]).transpose(0, 1).flatten(1)
        weights = torch.linalg.lstsq(functions, fields).solution.unflatten(1, (-1, 3)).transpose(0, 1)
        self.mean.copy_(weights[0].to(self.mean))
        self.modes.copy_(weights[1:].to(self.modes))

    @torch.no_grad()
    def standardise(self, alpha: Tensor) -> Tensor:
        """Move the mean of coefficients (n, K) into the mean shape and scale the modes so that they vary by 1.

        Returns:
            (n, K) the coefficients of the same shapes: of mean 0 and standard deviation 1. A symmetric mean cannot
            take over the mean of a mode that is not; such a mode keeps it.
        """
        centre = alpha.mean(0)
        if self.mirror is not None:
            centre = torch.where(torch.arange(len(centre)) < self.n_symmetric, centre, 0.0)
        self.mean.data += torch.tensordot(centre, self.modes, dims=1)
        alpha = alpha - centre
        spread = alpha.square().mean(0).sqrt().clamp_min(1e-6)
        self.modes.data *= spread[:, None, None]
        out: Tensor = alpha / spread
        return out


def _components(fields: Tensor, k: int) -> Tensor:
    """(k, V, 3) the principal components of fields (n, V, 3) of mean 0, of the length by which these vary."""
    _, s, axes = torch.linalg.svd(fields.flatten(1), full_matrices=False)
    scaled = axes[:k] * s[:k, None] / len(fields) ** 0.5
    return scaled.unflatten(1, (-1, 3))
