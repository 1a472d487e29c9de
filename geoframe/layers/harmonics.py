"""How a cloud is rotated about the vertical, by fitting a template that is learned without labels.

A cloud is described by how its points are spread around the vertical axis: for soft rings q (a radius and a
height each) the Fourier coefficients of the angle, ``F_qm = mean_i w_q(r_i, z_i) exp(-i m theta_i)``. Rotating
the cloud by alpha multiplies F_qm by ``exp(-i m alpha)``, so with a template T of the category two scores are
known for every angle at the cost of one:

- fit, the correlation with the rotated template: ``sum_qm a_m Re(F_qm conj(T_qm) exp(i m alpha))``;
- symmetry, the correlation of the cloud with its mirror image about a plane that is rotated with it:
  ``sum_qm a_m Re(F_qm^2 exp(2 i m (alpha + phi)))``, phi the direction of the template's plane.

The angle is where their sum is highest. It follows a rotation of the cloud exactly, whatever the template.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn

from geoframe._check import check_int
from geoframe.surface.clouds import check_clouds

# Our choices; the figures of experiments/category_keypoints were obtained with them.
_RADII, _HEIGHTS, _ORDERS = 8, 12, 24  # rings, and orders of the Fourier series
_WIDTH = 0.7  # standard deviation of a ring, over the spacing of the rings
_BINS = 120  # of the angle, where no gradient is asked for
_LARGEST_RADIUS = 1.2  # of a ring, at scale 2
_SMOOTH = 0.06  # radians: how sharp an angle the weights a_m of the orders resolve
_SYMMETRY = 0.5  # weight of the symmetry score
_RIVAL = 25  # degrees: from there on, another angle is no neighbour of it
_MARGIN = math.radians(5)  # angles may go so far over `max_angle`: the template need not be in the middle


class HarmonicPose(nn.Module):
    """The angle of clouds about the vertical axis; learned by `learn`, not by gradient descent.

    The axis runs through the origin, heights and radii are measured at scale 2: clouds are to be normalised
    (`geoframe.data.normalise`) before they are rotated.

    Args:
        up: the vertical axis, 0 to 2.
        max_angle: degrees in (0, 180]; clouds are known to be rotated by at most so much from the common frame of the
            category. 180 means nothing is known.
        symmetric: the category has a plane of symmetry; if not, the score of symmetry is left out.

    Raises:
        ValueError: an angle out of range.
    """

    template: Tensor
    plane: Tensor

    def __init__(self, *, up: int = 2, max_angle: float = 180.0, symmetric: bool = True) -> None:
        super().__init__()
        self.up = check_int(up, "up", low=0, high=2)
        self.symmetric = symmetric
        if not 0 < max_angle <= 180:
            raise ValueError(f"max_angle: expected degrees in (0, 180], found {max_angle}")
        self.limit = math.pi if max_angle == 180 else min(math.radians(max_angle) + _MARGIN, math.pi)
        self.register_buffer("template", torch.zeros(_RADII * _HEIGHTS, _ORDERS, 2))
        self.register_buffer(
            "plane", torch.zeros(())
        )  # direction of the template's plane of symmetry, radians

    @property
    def normal(self) -> Tensor:
        """(2,) unit normal of the template's plane of symmetry, on the axes after `up`."""
        return torch.stack([-self.plane.sin(), self.plane.cos()])

    def describe(self, points: Tensor) -> Tensor:
        """Fourier coefficients of clouds.

        Args:
            points: (B, N, 3).

        Returns:
            (B, Q, M) complex, of orders 1..M of rings q, of norm 1 under the weights of the orders.
        """
        check_clouds(points, 1)
        F = torch.complex(*self._binned(points).chunk(2, -1)) if _is_plain(points) else self._sums(points)
        size = (torch.view_as_real(F).square().sum(-1) * _order_weights(F)).sum((1, 2), keepdim=True).sqrt()
        return F / size.clamp(min=1e-12)

    def _sums(self, points: Tensor) -> Tensor:
        """(B, Q, M) Fourier coefficients of clouds (B, N, 3), of any norm."""
        z = points[..., self.up]
        a, b = points[..., (self.up + 1) % 3], points[..., (self.up + 2) % 3]
        r = (a.square() + b.square() + 1e-12).sqrt()
        radii = torch.linspace(0.05, _LARGEST_RADIUS, _RADII, dtype=r.dtype, device=r.device)
        heights = torch.linspace(-1, 1, _HEIGHTS, dtype=r.dtype, device=r.device)
        rings = _bumps(r, radii)[:, :, None] * _bumps(z, heights)[:, None]  # (B, radii, heights, N)
        turns = _powers(torch.complex(a / r, -b / r), _ORDERS)  # exp(-i m theta), (B, N, M)
        sums = rings.flatten(1, 2) @ torch.view_as_real(turns).flatten(-2)  # (B, Q, 2 M)
        return torch.view_as_complex(sums.unflatten(-1, (-1, 2)))

    def _binned(self, points: Tensor) -> Tensor:
        """(B, Q, 2 M) the same, real parts and then imaginary ones, of clouds on the CPU without a gradient.

        Points are gathered in bins of the angle first, which takes a sixth of the time; coefficients differ by less
        than a thousandth of the largest.
        """
        from geoframe._compiled import share_rows
        from geoframe.layers._harmonics import ring_histograms

        bins = torch.empty(len(points), _BINS, _HEIGHTS * _RADII)
        radii, heights = torch.linspace(0.05, _LARGEST_RADIUS, _RADII), torch.linspace(-1, 1, _HEIGHTS)
        clouds, out, *rings = (x.detach().contiguous().numpy() for x in (points, bins, radii, heights))
        share_rows(lambda a, b: ring_histograms(clouds[a:b], self.up, *rings, _WIDTH, out[a:b]), len(clouds))
        sums = (bins.mT @ _turns_of_bins()).unflatten(1, (_HEIGHTS, _RADII))
        return sums.transpose(1, 2).flatten(1, 2)

    def _scores(self, points: Tensor) -> Tensor:
        """(B, 4 M) the series of `_series`, real and imaginary parts beside each other; as `_binned`."""
        from geoframe._compiled import share_rows
        from geoframe.layers._harmonics import score_series

        self._check_learned()
        T, weights = torch.view_as_complex(self.template), _order_weights(self.template[..., 0])
        T = T / (T.abs().square() * weights).sum().sqrt().clamp(min=1e-12)
        turn = 2 * self.plane * torch.arange(1, _ORDERS + 1)
        series = torch.empty(len(points), 4 * _ORDERS)
        template, turns = torch.cat([T.real, T.imag], -1), torch.cat([turn.cos(), turn.sin()])
        sums, *rest, out = (x.numpy() for x in (self._binned(points), template, weights, turns, series))
        share_rows(lambda a, b: score_series(sums[a:b], *rest, out[a:b]), len(out))
        return series

    def _quick(self, points: Tensor, limit: float) -> Tensor:
        """(B,) angles of clouds on the CPU without a gradient, from -limit to limit."""
        from geoframe.layers._harmonics import climb

        weight = _SYMMETRY if self.symmetric else 0.0
        series, n = self._scores(points), math.ceil(math.degrees(2 * limit))
        best = (series @ _both_waves(-limit, limit, n + 1, weight)).argmax(1)
        angle = best.to(series) * (2 * limit / n) - limit
        climb(series.numpy(), weight, 3, math.radians(1), angle.numpy())
        return angle

    def forward(self, points: Tensor, *, any_turn: bool = False) -> Tensor:
        """Directions of clouds.

        Differentiable in the points: the last step is one of Newton's method, whose derivative is that of the
        angle by the implicit function theorem.

        Args:
            points: (B, N, 3).
            any_turn: look for the angle everywhere, whatever `max_angle` is.

        Returns:
            (B, 2) unit vectors: cosine and sine of the angle from the canonical frame to that of the points.

        Raises:
            ValueError: nothing was learned yet.
        """
        limit = math.pi if any_turn else self.limit
        if _is_plain(points):
            angle = self._quick(check_clouds(points, 1), limit)
        else:
            fit, mirror = self._series(self.describe(points))
            angle = self._search(fit.detach(), mirror.detach(), limit)
            for _ in range(2):
                angle = angle - self._newton(fit.detach(), mirror.detach(), angle)
            angle = angle - self._newton(fit, mirror, angle)
        if limit < math.pi:
            angle = angle.clamp(-limit, limit)
        return torch.stack([angle.cos(), angle.sin()], dim=-1)

    @torch.no_grad()
    def fit(self, points: Tensor) -> Tensor:
        """(B,) how well clouds fit the template at the angle of `forward`; 1 is the template itself."""
        direction = self(points)
        series, _ = self._series(self.describe(points))
        return _evaluate(series, torch.atan2(direction[:, 1:], direction[:, :1]))[:, 0]

    @torch.no_grad()
    def fit_upright(self, points: Tensor) -> Tensor:
        """How well clouds that are in the canonical frame fit there.

        Args:
            points: (B, N, 3).

        Returns:
            (B, 3): fit and symmetry, see above, 1 is the highest of either; and by how much their sum, in which
            symmetry counts half, is higher than at any angle of 25 degrees and more.
        """
        if _is_plain(points):
            series = self._scores(check_clouds(points, 1))
        else:
            series = torch.cat([p for x in self._series(self.describe(points)) for p in (x.real, x.imag)], 1)
        fit, _, mirror, _ = (x.sum(1) for x in series.split(_ORDERS, 1))
        weight = _SYMMETRY if self.symmetric else 0.0
        n, last = 361 - 2 * _RIVAL, math.radians(360 - _RIVAL)
        rivals = series @ _both_waves(math.radians(_RIVAL), last, n, weight).to(series)
        return torch.stack([fit, mirror, fit + weight * mirror - rivals.amax(1)], 1)

    @torch.no_grad()
    def learn(self, points: Tensor, *, seed: int = 0, restarts: int = 4, rounds: int = 20) -> float:
        """Learn template and plane from clouds that are rotated at random, without labels.

        Alternates between rotating all clouds to the template and averaging them. With a limit on the angle
        the first template is the average as it is, else one cloud, the best of a few.

        Args:
            points: (n, N, 3).
            seed: of the clouds that are tried as first templates.
            restarts: how many of them.
            rounds: alternations of each.

        Returns:
            Mean fit of the clouds to the template, at most 1.
        """
        F = torch.cat([self.describe(p) for p in points.split(64)])
        generator = torch.Generator().manual_seed(seed)
        if self.limit < math.pi:
            starts = [F.mean(0)]
        else:
            chosen = torch.randperm(len(F), generator=generator)[:restarts]
            starts = [F[i] for i in chosen.tolist()]
        best = -math.inf
        for start in starts:
            T, plane, fit = self._congeal(F, start, rounds)
            if fit > best:
                best = fit
                self.template.copy_(torch.view_as_real(T))
                self.plane.copy_(plane)
        return best

    def _congeal(self, F: Tensor, T: Tensor, rounds: int) -> tuple[Tensor, Tensor, float]:
        """Template, plane and mean fit after `rounds` alternations from template T (Q, M)."""
        plane: Tensor | None = None
        order = torch.arange(1, _ORDERS + 1, device=F.device)
        share = F.abs().square().sum(1) * _order_weights(F)
        for i in range(rounds):
            fit = _fit_series(F, T)
            known = i >= rounds // 4  # the template decides first, then its plane
            mirror = _mirror_series(F, plane) if known and plane is not None else None
            angle = self._search(fit, mirror, self.limit)
            if self.limit < math.pi:
                angle = angle - angle.mean()
            aligned = F * torch.polar(torch.ones_like(angle)[:, None], angle[:, None] * order)[:, None]
            T = aligned.mean(0)
            plane = _plane_of(aligned, share)
        assert plane is not None
        return T, plane, float(_evaluate(_fit_series(F, T), angle[:, None]).mean())

    def _series(self, F: Tensor) -> tuple[Tensor, Tensor]:
        self._check_learned()
        return _fit_series(F, torch.view_as_complex(self.template).to(F.dtype)), _mirror_series(F, self.plane)

    def _check_learned(self) -> None:
        if not bool(self.template.any()):
            raise ValueError("pose: nothing was learned yet; call learn(points) or load a trained model")

    def _search(self, fit: Tensor, mirror: Tensor | None, limit: float) -> Tensor:
        """(B,) angle of the highest score on a grid of about one degree, from -limit to limit."""
        n = math.ceil(math.degrees(2 * limit))
        score = _on_grid(fit, 1, -limit, limit, n + 1)
        if self.symmetric and mirror is not None:
            score = score + _SYMMETRY * _on_grid(mirror, 2, -limit, limit, n + 1)
        return score.argmax(1).to(fit.real) * (2 * limit / n) - limit

    def _newton(self, fit: Tensor, mirror: Tensor, angle: Tensor) -> Tensor:
        """(B,) score' / score'' at angle (B,), kept below one degree; the denominator is a constant."""
        order = torch.arange(1, _ORDERS + 1, device=angle.device, dtype=angle.dtype)
        if self.symmetric:
            series, order = torch.cat([fit, _SYMMETRY * mirror], 1), torch.cat([order, 2 * order])
        else:
            series = fit
        phase = angle[:, None] * order
        real, imag, cos, sin = series.real, series.imag, phase.cos(), phase.sin()
        slope = -(real * sin + imag * cos) @ order
        bend = -(real * cos - imag * sin).detach() @ order.square()
        step = torch.where(bend < 0, slope / bend.clamp(max=-1e-6), torch.zeros_like(slope))
        return step.clamp(-math.radians(1), math.radians(1))


def _is_plain(points: Tensor) -> bool:
    """Whether the compiled loops can take clouds: in single precision, on the CPU, without a gradient."""
    plain = points.dtype == torch.float32 and points.device.type == "cpu"
    return plain and not (torch.is_grad_enabled() and points.requires_grad)


def _bumps(x: Tensor, centres: Tensor) -> Tensor:
    """Gaussian bumps (B, n, N) at evenly spaced centres of x (B, N).

    Never below exp(-30): products of numbers too small for their format would take ten times as long.
    """
    off = (x[:, None] - centres[:, None]) / (_WIDTH * (centres[1] - centres[0]))
    return torch.exp(off.square().clamp(max=60) * -0.5)


@cache
def _turns_of_bins() -> Tensor:
    """(A, 2 M) real and imaginary parts of ``exp(-i m theta)`` at the bins, over what the spline leaves of an order."""
    from geoframe.layers._harmonics import ORDER

    order = torch.arange(1, _ORDERS + 1, dtype=torch.float64)
    angle = torch.arange(_BINS, dtype=torch.float64)[:, None] * order * (2 * math.pi / _BINS)
    left = torch.sinc(order / _BINS) ** ORDER
    return torch.cat([angle.cos() / left, -angle.sin() / left], -1).float()


def _powers(e: Tensor, n: int) -> Tensor:
    """e, e^2, ..., e^n of e (...) as (..., n), twice as many with every product."""
    powers = e[..., None]
    while (have := powers.shape[-1]) < n:
        powers = torch.cat([powers, powers[..., : n - have] * powers[..., -1:]], dim=-1)
    return powers


def _order_weights(F: Tensor) -> Tensor:
    """(M,) weights a_m of the orders 1..M."""
    return _weights(F.shape[-1], F.real.dtype, F.device)


@cache
def _weights(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    order = torch.arange(1, n + 1, device=device, dtype=dtype)
    return torch.exp(-0.5 * (_SMOOTH * order).square())


def _fit_series(F: Tensor, T: Tensor) -> Tensor:
    """(B, M) coefficients of the score of fit; 1 where a cloud is the template."""
    size = (T.abs().square() * _order_weights(T)).sum().sqrt()
    return torch.einsum("bqm,qm->bm", F, T.conj().resolve_conj()) * _order_weights(F) / size.clamp(min=1e-12)


def _mirror_series(F: Tensor, plane: Tensor) -> Tensor:
    """(B, M) coefficients of the score of symmetry, a series in twice the angle; 1 at a perfect plane."""
    order = torch.arange(1, F.shape[-1] + 1, device=F.device)
    turn = torch.polar(torch.ones_like(plane), 2 * plane * order)
    return F.square().sum(1) * _order_weights(F) * turn


def _evaluate(series: Tensor, angles: Tensor) -> Tensor:
    """(B, 1) sums ``Re sum_m c_m exp(i m a)`` of series (B, M) at angles (B, 1)."""
    order = torch.arange(1, series.shape[-1] + 1, device=series.device)
    phase = angles[..., None] * order
    return (series.real[:, None] * phase.cos() - series.imag[:, None] * phase.sin()).sum(-1)


def _on_grid(series: Tensor, k: int, low: float, high: float, n: int) -> Tensor:
    """(B, n) the same sums at k times each of n angles from `low` to `high`."""
    cos, sin = (x.to(series.device, series.real.dtype) for x in _waves(k, low, high, n))
    return series.real @ cos - series.imag @ sin


@cache
def _waves(k: int, low: float, high: float, n: int) -> tuple[Tensor, Tensor]:
    """(M, n) cosines and sines of k, 2 k, ..., M k times n angles from `low` to `high`."""
    order = torch.arange(1, _ORDERS + 1, dtype=torch.float64)[:, None]
    phase = k * order * torch.linspace(low, high, n, dtype=torch.float64)
    return phase.cos(), phase.sin()


@cache
def _both_waves(low: float, high: float, n: int, symmetry: float) -> Tensor:
    """(4 M, n) that takes the series of `HarmonicPose._scores` to scores at n angles from `low` to `high`."""
    (a, b), (c, d) = _waves(1, low, high, n), _waves(2, low, high, n)
    return torch.cat([a, -b, symmetry * c, -symmetry * d]).float()


def _plane_of(aligned: Tensor, share: Tensor) -> Tensor:
    """Direction in [0, pi) of the plane about which aligned clouds are most symmetric.

    Of planes nearly as good as the best (a table has two) it is the one along which the clouds are longest,
    as for a car or an animal.
    """
    G = 720
    grid = torch.arange(G, dtype=share.dtype, device=share.device) * (math.pi / G)
    mean = (aligned.square().sum(1) * _order_weights(aligned)).mean(0, keepdim=True)
    score = _on_grid(mean, 2, 0.0, math.pi * (1 - 1 / G), G)[0]
    peak = (
        (score >= score.roll(1))
        & (score >= score.roll(-1))
        & (score >= score.max() - 0.1 * share.sum(1).mean())
    )
    # Order 2, summed over the rings, tells along which direction the points lie.
    second = aligned[:, :, 1].sum(1).mean()
    along = second.real * (2 * grid).cos() - second.imag * (2 * grid).sin()
    return grid[torch.where(peak, along, torch.full_like(along, -math.inf)).argmax()]
