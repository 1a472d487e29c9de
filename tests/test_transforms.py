"""Rotations, reflections, similarities: closed forms, roma and SVD as oracles, the singular places."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.transforms import (
    Similarity,
    nearest_rotation,
    procrustes,
    quaternion_to_rotation,
    random_rotations,
    reflection,
    rotation_angle,
    rotation_to_rotvec,
    rotvec_to_rotation,
    skew,
)

F64 = torch.float64
EYE = torch.eye(3, dtype=F64)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def is_rotation(R: torch.Tensor, tolerance: float = 1e-12) -> bool:
    return bool((R @ R.mT - EYE).abs().max() < tolerance) and bool(
        (torch.linalg.det(R) - 1).abs().max() < tolerance
    )


def test_skew_is_the_cross_product():
    w, x = randn(2, 5, 3), randn(2, 5, 3, seed=1)
    assert torch.allclose((skew(w) @ x[..., None])[..., 0], torch.linalg.cross(w, x))


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-6, 0.09, 0.11, 1.0, 3.0, math.pi, 7.0])
def test_exponential_is_the_matrix_exponential(size):
    w = size * torch.nn.functional.normalize(randn(6, 3), dim=-1)
    R = rotvec_to_rotation(w)
    assert is_rotation(R)
    assert (R - torch.linalg.matrix_exp(skew(w))).abs().max() < 1e-12
    assert (rotvec_to_rotation(w.float()) - R).abs().max() < 2e-6 * max(1, size)


def test_exponential_is_smooth_at_zero():
    for w in (torch.zeros(2, 3, dtype=F64), randn(4, 3), 0.05 * randn(4, 3)):
        assert torch.autograd.gradcheck(rotvec_to_rotation, w.requires_grad_())
        assert torch.autograd.gradgradcheck(rotvec_to_rotation, w)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_logarithm_undoes_the_exponential(batch):
    w = randn(*batch, 3)
    w = w / w.norm(dim=-1, keepdim=True) * 3.1
    assert torch.allclose(rotation_to_rotvec(rotvec_to_rotation(w)), w, atol=1e-10)
    half_turn = rotvec_to_rotation(torch.tensor([math.pi, 0, 0], dtype=F64))
    assert rotation_to_rotvec(half_turn).norm().item() == pytest.approx(math.pi)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, math.pi - 1e-7, math.pi])
def test_angle_is_accurate_everywhere(angle):
    w = angle * torch.nn.functional.normalize(randn(4, 3), dim=-1)
    Q = random_rotations(4, generator=torch.Generator().manual_seed(1), dtype=F64)
    assert (rotation_angle(rotvec_to_rotation(w)) - angle).abs().max() < 1e-8
    assert (rotation_angle(rotvec_to_rotation(w) @ Q, Q) - angle).abs().max() < 1e-8


def test_random_rotations_are_uniform_and_seeded():
    make = lambda seed: random_rotations(  # noqa: E731
        20000, generator=torch.Generator().manual_seed(seed), dtype=F64
    )
    R = make(0)
    assert is_rotation(R) and torch.equal(R, make(0)) and not torch.equal(R, make(1))
    assert R.mean(0).abs().max() < 0.02
    # uniform rotations have angles of density (1 - cos a) / pi: mean pi / 2 + 2 / pi
    assert rotation_angle(R).mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
    assert random_rotations(2, dtype=torch.float32).dtype == torch.float32


def test_quaternion_order_is_xyzw():
    roma = pytest.importorskip("roma")
    q = torch.nn.functional.normalize(randn(7, 4), dim=-1)
    assert torch.allclose(quaternion_to_rotation(q), roma.unitquat_to_rotmat(q))


def test_reflection_keeps_the_plane():
    n = randn(4, 3)
    A = reflection(5 * n)
    assert torch.allclose((A @ n[..., None])[..., 0], -n) and torch.allclose(A @ A, EYE.expand(4, 3, 3))
    x = torch.linalg.cross(n, randn(4, 3, seed=2))
    assert torch.allclose((A @ x[..., None])[..., 0], x) and torch.allclose(
        torch.linalg.det(A), -torch.ones(4, dtype=F64)
    )


def svd_rotation(M: torch.Tensor) -> torch.Tensor:
    U, _, Vh = torch.linalg.svd(M)
    U = torch.cat([U[..., :2], U[..., 2:] * torch.linalg.det(U @ Vh)[..., None, None]], -1)
    return U @ Vh


@pytest.mark.parametrize("batch", [(), (50,), (2, 3)])
def test_nearest_rotation_is_that_of_the_svd(batch):
    M = randn(*batch, 3, 3)
    assert (nearest_rotation(M) - svd_rotation(M)).abs().max() < 1e-10
    assert (nearest_rotation(M.float()) - svd_rotation(M)).abs().max() < 1e-4


@pytest.mark.parametrize(
    "kind", ["flat", "line", "zero", "mirrored", "tiny", "huge", "minus one", "nearly line"]
)
def test_nearest_rotation_at_singular_matrices(kind):
    M = randn(40, 3, 3)
    M = {
        "flat": M * torch.tensor([1, 1, 0]),
        "line": M[:, :, :1] * M[:, :1],
        "zero": M * 0,
        "mirrored": svd_rotation(M) @ torch.diag(torch.tensor([1.0, 1, -1], dtype=F64)),
        "tiny": 1e-160 * M,
        "huge": 1e150 * M,
        "minus one": -EYE.expand(40, 3, 3),
        "nearly line": M[:, :, :1] * M[:, :1] + 1e-7 * M,
    }[kind].clone()
    M.requires_grad_()
    R = nearest_rotation(M)
    assert is_rotation(R.detach(), 1e-11)
    scale = M.detach().abs().amax((-1, -2), keepdim=True).clamp_min(1e-300)
    reached = (R * M.detach() / scale).sum((-1, -2))
    assert (reached >= (svd_rotation(M.detach() / scale) * M.detach() / scale).sum((-1, -2)) - 1e-9).all()
    (g,) = torch.autograd.grad(R.sum(), M)
    assert torch.isfinite(g).all() or kind == "tiny"


def test_nearest_rotation_gradient():
    M = randn(6, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, M)
    roma = pytest.importorskip("roma")
    weight = randn(6, 3, 3, seed=3)
    ours = torch.autograd.grad((nearest_rotation(M) * weight).sum(), M)[0]
    theirs = torch.autograd.grad((roma.special_procrustes(M) * weight).sum(), M)[0]
    assert torch.allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("scale", [False, True])
def test_procrustes_finds_the_motion(scale):
    x = randn(3, 20, 3)
    truth = Similarity(
        random_rotations(3, generator=torch.Generator().manual_seed(2), dtype=F64),
        randn(3, 3, seed=4),
        torch.tensor([1.0, 2.0, 0.3], dtype=F64) if scale else torch.ones(3, dtype=F64),
    )
    found = procrustes(x, truth(x), scale=scale)
    for a, b in zip(found, truth, strict=True):
        assert (a - b).abs().max() < 1e-12
    y = truth(x) + 0.1 * randn(3, 20, 3, seed=5)
    w = torch.rand(3, 20, generator=torch.Generator().manual_seed(6), dtype=F64)
    best = procrustes(x, y, weights=w, scale=scale)
    cost = lambda s: (w * (s(x) - y).square().sum(-1)).sum()  # noqa: E731
    for seed in range(5):
        turn = rotvec_to_rotation(1e-3 * randn(3, 3, seed=seed))
        assert cost(best._replace(R=turn @ best.R)) > cost(best)
        assert cost(best._replace(t=best.t + 1e-3 * randn(3, 3, seed=seed))) > cost(best)
    if scale:
        assert cost(best._replace(scale=best.scale * 1.001)) > cost(best)
    dropped = torch.cat([torch.ones(15, dtype=F64), torch.zeros(5, dtype=F64)])
    some = procrustes(x, y, weights=dropped.expand(3, 20), scale=scale)
    assert torch.allclose(some.R, procrustes(x[:, :15], y[:, :15], scale=scale).R)


def test_similarities_compose_and_invert():
    Rs = random_rotations(2, generator=torch.Generator().manual_seed(0), dtype=F64)
    a = Similarity(Rs[0], randn(3), torch.tensor(2.0, dtype=F64))
    b = Similarity(Rs[1], randn(3, seed=1), torch.tensor(0.5, dtype=F64))
    x = randn(4, 3, seed=2)
    assert torch.allclose(a.after(b)(x), a(b(x))) and torch.allclose(a.inverse()(a(x)), x)


def test_what_is_no_rotation_is_refused():
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=F64))
    for bad, match in (
        (mirror, "found a reflection"),
        (1.1 * EYE, "differs from the identity by 0.21"),
        (EYE * torch.nan, "differs from the identity by inf"),
        (torch.stack([EYE, mirror]), "found a reflection"),
    ):
        with pytest.raises(ValueError, match=match):
            rotation_to_rotvec(bad)
        with pytest.raises(ValueError, match=match):
            rotation_angle(bad)
        with pytest.raises(ValueError, match="R2: expected rotations"):
            rotation_angle(EYE, bad)
    rounded = random_rotations(5, generator=torch.Generator().manual_seed(0)).mul(1e4).round().div(1e4)
    assert torch.isfinite(rotation_to_rotvec(rounded)).all()
    assert rotation_angle(EYE.tolist()) == 0


def test_bad_input():
    x = randn(4, 3)
    with pytest.raises(ValueError, match="target: expected 4 points"):
        procrustes(x, x[:3])
    with pytest.raises(ValueError, match="weights: expected"):
        procrustes(x, x, weights=torch.zeros(4, dtype=F64))
    with pytest.raises(ValueError, match="M: expected shape"):
        nearest_rotation(randn(3, 2))
    with pytest.raises(TypeError, match="w: expected a floating"):
        rotvec_to_rotation(torch.tensor([1, 2, 3]))
