"""Heat and wave kernel signatures: naive sums, heat equation, invariances, the peer's figures."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.spectral import Eigenbasis, eigenbasis, hks, wks
from geoframe.surface import Mesh
from geoframe.surface.shapes import ellipsoid, icosphere

MESH = ellipsoid(level=2)
BASIS = eigenbasis(MESH, 30, cache=False)
LANDMARKS = [3, 100, 41]


def naive(basis: Eigenbasis, weight, grid, landmark=None, scaled=True):
    """(V, T) by loops; weight(lambda, t) is a float."""
    out = torch.zeros(basis.n_verts, len(grid), dtype=torch.float64)
    for c, t in enumerate(grid.tolist()):
        total = 0.0
        for i in range(basis.k):
            w = weight(float(basis.vals[i]), t)
            u = basis.vecs[:, i]
            out[:, c] += w * u * (u if landmark is None else u[landmark])
            total += w
        if scaled:
            out[:, c] /= total
    return out


@pytest.mark.parametrize("scaled", [True, False])
def test_hks_is_the_sum_it_says(scaled):
    times = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)

    def heat(x, t):
        return math.exp(-x * t)

    torch.testing.assert_close(hks(BASIS, times, scaled=scaled), naive(BASIS, heat, times, scaled=scaled))
    seen = hks(BASIS, times, landmarks=LANDMARKS, scaled=scaled).reshape(-1, 3, 3)
    for i, landmark in enumerate(LANDMARKS):
        torch.testing.assert_close(seen[:, i], naive(BASIS, heat, times, landmark, scaled))


@pytest.mark.parametrize("scaled", [True, False])
def test_wks_is_the_sum_it_says(scaled):
    energies = torch.tensor([1.5, 2.5, 3.0], dtype=torch.float64)

    def band(x, e):
        return 0.0 if x == 0 else math.exp(-((e - math.log(x)) ** 2) / (2 * 0.4**2))

    found = wks(BASIS, energies, sigma=0.4, scaled=scaled)
    torch.testing.assert_close(found, naive(BASIS, band, energies, scaled=scaled))
    seen = wks(BASIS, energies, sigma=0.4, landmarks=torch.tensor(LANDMARKS), scaled=scaled)
    for i, landmark in enumerate(LANDMARKS):
        expected = naive(BASIS, band, energies, landmark, scaled)
        torch.testing.assert_close(seen[:, 3 * i : 3 * i + 3], expected)


def test_default_grids():
    low, high = float(BASIS.vals[1]), float(BASIS.vals[-1])
    times = torch.logspace(
        math.log10(4 * math.log(10) / high), math.log10(4 * math.log(10) / low), 7
    ).double()
    torch.testing.assert_close(hks(BASIS, 7), hks(BASIS, times), rtol=1e-5, atol=1e-8)
    a, b = math.log(low), math.log(high)
    sigma = 7 * (b - a) / 100
    energies = torch.linspace(a + 2 * sigma, b - 2 * sigma, 100, dtype=torch.float64)
    torch.testing.assert_close(wks(BASIS), wks(BASIS, energies, sigma=sigma))
    few = wks(BASIS, 10)  # 4 sigma would be more than the whole range
    assert float(few.std(1).min()) > 0
    energies = torch.linspace(a + (b - a) / 4, b - (b - a) / 4, 10, dtype=torch.float64)
    torch.testing.assert_close(few, wks(BASIS, energies, sigma=7 * (b - a) / 10))
    assert wks(BASIS, torch.tensor([1.0, 2.0])).shape == (162, 2)


def test_heat_is_conserved_and_decays_to_the_mean():
    times = torch.tensor([1e-3, 1e-1, 50.0], dtype=torch.float64)
    kernel = hks(BASIS, times, landmarks=[7], scaled=False)
    torch.testing.assert_close(BASIS.mass @ kernel, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(kernel[:, 2], torch.full_like(kernel[:, 2], 1 / float(BASIS.mass.sum())))
    trace = BASIS.mass @ hks(BASIS, times, scaled=False)
    torch.testing.assert_close(trace, torch.exp(-times[:, None] * BASIS.vals).sum(1))
    torch.testing.assert_close(BASIS.mass @ hks(BASIS, times), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(BASIS.mass @ wks(BASIS, 20), torch.ones(20, dtype=torch.float64))


def test_equal_everywhere_on_a_sphere_with_whole_eigenspaces():
    basis = eigenbasis(icosphere(3), 16, cache=False)
    for signature in (hks(basis, 10), wks(basis, 10)):
        spread = (signature.std(0) / signature.mean(0)).max()
        assert float(spread) < 0.02


@pytest.mark.parametrize("signature", [hks, wks])
@pytest.mark.parametrize("landmarks", [None, LANDMARKS])
def test_signs_and_rotations_of_eigenvectors_do_not_matter(signature, landmarks):
    basis = eigenbasis(icosphere(2), 16, cache=False)
    vecs = basis.vecs * torch.where(torch.arange(16) % 2 == 0, 1.0, -1.0).double()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    vecs[:, 1:4] = vecs[:, 1:4] @ turn  # the eigenspace of l = 1
    other = Eigenbasis(basis.vals, vecs, basis.mass)
    torch.testing.assert_close(
        signature(basis, 8, landmarks=landmarks), signature(other, 8, landmarks=landmarks)
    )


@pytest.mark.parametrize("signature", [hks, wks])
def test_scale_law(signature):
    double = eigenbasis(MESH.with_verts(2 * MESH.verts), 30, cache=False)
    torch.testing.assert_close(signature(double, 12), signature(BASIS, 12) / 4, rtol=1e-6, atol=1e-9)


def test_several_zeros():
    moved = MESH.verts + torch.tensor([5.0, 0, 0], dtype=torch.float64)
    two = Mesh(torch.cat([MESH.verts, moved]), torch.cat([MESH.faces, MESH.faces + MESH.n_verts]))
    basis = eigenbasis(two, 60, cache=False)
    assert int((basis.vals == 0).sum()) == 2
    alone = Eigenbasis(BASIS.vals, BASIS.vecs, BASIS.mass)
    for signature in (hks, wks):
        both = signature(basis, 9, scaled=False).reshape(2, -1, 9)
        torch.testing.assert_close(both[0], both[1], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(both[0], signature(alone, 9, scaled=False), rtol=1e-6, atol=1e-8)
        across = signature(basis, 9, landmarks=[0])[MESH.n_verts :]
        assert bool((across == 0).all())  # nothing reaches the other component


@pytest.mark.parametrize("signature", [hks, wks])
def test_dtype_follows_and_stays_finite_far_from_the_spectrum(signature):
    single = BASIS.to(torch.float32)
    found = signature(single, 16, landmarks=LANDMARKS)
    assert found.dtype == torch.float32 and found.shape == (162, 48)
    torch.testing.assert_close(
        found.double(), signature(BASIS, 16, landmarks=LANDMARKS), rtol=1e-3, atol=1e-4
    )
    far = torch.tensor([30.0], dtype=torch.float32)
    assert bool(torch.isfinite(signature(single, far, **({"sigma": 0.1} if signature is wks else {}))).all())


def test_agrees_with_pyfm():
    peer_hks = pytest.importorskip("pyFM.signatures.HKS_functions")
    peer_wks = pytest.importorskip("pyFM.signatures.WKS_functions")
    vals, vecs = BASIS.vals.numpy(), BASIS.vecs.numpy()
    torch.testing.assert_close(hks(BASIS, 60).numpy(), peer_hks.auto_HKS(vals, vecs, 60))
    torch.testing.assert_close(wks(BASIS, 60).numpy(), peer_wks.auto_WKS(vals, vecs, 60))
    expected = peer_wks.auto_WKS(vals, vecs, 60, landmarks=LANDMARKS)
    torch.testing.assert_close(wks(BASIS, 60, landmarks=LANDMARKS).numpy(), expected)
    expected = peer_hks.auto_HKS(vals, vecs, 60, landmarks=LANDMARKS)
    torch.testing.assert_close(hks(BASIS, 60, landmarks=LANDMARKS).numpy(), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hks(BASIS, 0), ValueError, "times: expected an integer at least 1"),
        (lambda: wks(BASIS, 2.5), TypeError, "energies: expected an integer"),
        (
            lambda: hks(BASIS, torch.tensor([1.0, -1.0])),
            ValueError,
            "times: expected positive numbers, found -1",
        ),
        (lambda: hks(BASIS, torch.ones(2, 2)), ValueError, r"times: expected shape \(T\)"),
        (lambda: hks(BASIS, torch.ones(0)), ValueError, "times: expected at least one"),
        (lambda: wks(BASIS, torch.tensor([1, 2])), TypeError, "energies: expected a floating dtype"),
        (lambda: wks(BASIS, 10, sigma=0.0), ValueError, "sigma: expected a positive width"),
        (lambda: wks(BASIS, torch.ones(1)), ValueError, "sigma: expected a positive width"),
        (lambda: hks(BASIS, 5, landmarks=[162]), ValueError, r"landmarks: expected indices in \[0, 161\]"),
        (lambda: wks(BASIS, 5, landmarks=[-1]), ValueError, "landmarks: .* found -1"),
        (
            lambda: hks(BASIS.truncate(1), 5),
            ValueError,
            "basis: all .* eigenvalues are zero, .*merge_vertices=True",
        ),
        (
            lambda: wks(BASIS.truncate(1), 5),
            ValueError,
            "basis: all .* eigenvalues are zero, .*merge_vertices=True",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
