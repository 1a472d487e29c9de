"""ZoomOut against a plain numpy loop and pyFM; samples, both directions, landmarks, units, bad input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.maps import p2p_to_fmap, zoomout
from geoframe.spectral import Eigenbasis, eigenbasis
from geoframe.surface import Mesh, farthest_points
from geoframe.surface.shapes import ellipsoid


def _bumpy(axes: tuple[float, float, float], bump: float) -> Mesh:
    """An ellipsoid with its symmetry broken."""
    mesh = ellipsoid(axes, level=3)
    x, y, z = mesh.verts.unbind(1)
    return mesh.with_verts(mesh.verts * (1 + bump * torch.sin(2 * x + y + 0.5 * z) + 0.1 * y * z)[:, None])


@pytest.fixture(scope="module")
def pair():
    """Two surfaces of another shape, their bases, and `order`: the true p2p_21."""
    mesh1 = _bumpy((1.0, 0.7, 0.5), 0.2)
    mesh2 = _bumpy((1.0, 0.75, 0.55), 0.15)
    order = torch.randperm(mesh2.n_verts, generator=torch.Generator().manual_seed(0))
    inverse = torch.argsort(order)
    mesh2 = Mesh(mesh2.verts[order], inverse[mesh2.faces])
    return mesh1, mesh2, eigenbasis(mesh1, 60), eigenbasis(mesh2, 60), order


@pytest.fixture(scope="module")
def initial(pair):
    _, _, basis1, basis2, order = pair
    C_12 = p2p_to_fmap(order, basis1.truncate(8), basis2.truncate(8))
    noise = torch.randn(C_12.shape, generator=torch.Generator().manual_seed(1), dtype=C_12.dtype)
    return C_12 + 0.1 * noise


def _unit(basis: Eigenbasis) -> tuple[np.ndarray, np.ndarray]:
    A = float(basis.mass.sum())
    return basis.vecs.numpy() * A**0.5, basis.mass.numpy() / A


def _read(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[None] - y[:, None]) ** 2).sum(-1).argmin(1)


def _naive(C, basis1, basis2, sizes, both=False):
    """Plain numpy: distances of stacked embeddings, one pair of vertices at a time."""
    (U1, _), (U2, m2) = _unit(basis1), _unit(basis2)
    m1 = _unit(basis1)[1]
    s = (float(basis1.mass.sum()) / float(basis2.mass.sum())) ** 0.5
    C, D = C.numpy() * s, C.numpy().T * s
    for k in [*sizes, None]:
        k2, k1 = C.shape
        x, y = U1[:, :k1] @ C.T, U2[:, :k2]
        if both:
            x, y = np.hstack([U1[:, :k1] @ D, U1[:, :k1]]), np.hstack([U2[:, :k2], U2[:, :k2] @ C])
        p, q = _read(x, y), _read(y, x)
        if k is None:
            return C / s, p, D * s, q
        C = U2[:, :k].T @ (m2[:, None] * U1[p, :k])
        D = U1[:, :k].T @ (m1[:, None] * U2[q, :k])
    raise AssertionError


SIZES = [8, 12, 16, 21, 30, 45, 60]


@pytest.mark.parametrize("both", [False, True])
def test_agrees_with_the_plain_loop(pair, initial, both):
    _, _, basis1, basis2, _ = pair
    C_12, p2p_21, C_21, p2p_12 = _naive(initial, basis1, basis2, SIZES[1:], both)
    found = zoomout(initial, basis1, basis2, sizes=SIZES, bidirectional=both)
    assert found.p2p_21.tolist() == p2p_21.tolist()
    np.testing.assert_allclose(found.C_12.numpy(), C_12, atol=1e-10)
    if both:
        assert found.p2p_12.tolist() == p2p_12.tolist()
        np.testing.assert_allclose(found.C_21.numpy(), C_21, atol=1e-10)
    else:
        assert found.C_21 is None and found.p2p_12 is None


def test_both_ways_does_not_prefer_a_side(pair, initial):
    """Exchanging the surfaces exchanges the maps, where the start is its own inverse."""
    _, _, basis1, basis2, _ = pair
    Q = torch.linalg.qr(initial)[0]
    s = basis2.mass.sum() / basis1.mass.sum()  # at unit areas Q and its transpose
    one = zoomout(Q * s.sqrt(), basis1, basis2, k_final=40, step=8, bidirectional=True)
    two = zoomout(Q.T / s.sqrt(), basis2, basis1, k_final=40, step=8, bidirectional=True)
    assert torch.equal(one.p2p_21, two.p2p_12) and torch.equal(one.p2p_12, two.p2p_21)
    torch.testing.assert_close(one.C_12, two.C_21)


def test_steps_are_sizes(pair, initial):
    _, _, basis1, basis2, _ = pair
    by_step = zoomout(initial, basis1, basis2, k_final=30, step=6)
    by_size = zoomout(initial, basis1, basis2, sizes=[14, 20, 26, 30])
    assert torch.equal(by_step.p2p_21, by_size.p2p_21)
    assert by_step.C_12.shape == (30, 30)
    assert zoomout(initial, basis1, basis2, step=26).C_12.shape == (60, 60)  # by default all functions


def test_a_map_of_one_size_is_only_read(pair, initial):
    _, _, basis1, basis2, _ = pair
    result = zoomout(initial, basis1, basis2, k_final=8)
    torch.testing.assert_close(result.C_12, initial)
    assert result.p2p_21.tolist() == _naive(initial, basis1, basis2, [])[1].tolist()


def test_a_vertex_map_starts_at_the_first_size(pair):
    _, _, basis1, basis2, order = pair
    start = p2p_to_fmap(order, basis1.truncate(12), basis2.truncate(12))
    a = zoomout(order, basis1, basis2, sizes=[12, 24, 36])
    b = zoomout(start, basis1, basis2, sizes=[24, 36])
    assert torch.equal(a.p2p_21, b.p2p_21)
    c = zoomout(order, basis1, basis2, k_final=36, step=8)
    assert torch.equal(c.p2p_21, zoomout(order, basis1, basis2, sizes=[20, 28, 36]).p2p_21)


def test_it_refines(pair, initial):
    """Judged by where vertices of the second ellipsoid lie on the first: closer than what came in."""
    mesh1, _, basis1, basis2, order = pair

    def error(p2p_21):
        return float((mesh1.verts[p2p_21] - mesh1.verts[order]).norm(dim=1).mean())

    before = error(zoomout(initial, basis1, basis2, k_final=8).p2p_21)
    assert error(zoomout(initial, basis1, basis2, k_final=60, step=4).p2p_21) < 0.5 * before
    assert (
        error(zoomout(initial, basis1, basis2, k_final=60, step=4, bidirectional=True).p2p_21) < 0.5 * before
    )


def test_samples_are_least_squares(pair, initial):
    mesh1, mesh2, basis1, basis2, _ = pair
    s1, s2 = farthest_points(mesh1, 200), farthest_points(mesh2, 190)
    (U1, _), (U2, _) = _unit(basis1), _unit(basis2)
    s = (float(basis1.mass.sum()) / float(basis2.mass.sum())) ** 0.5
    C = initial.numpy() * s
    for k in (16, 32, 60):
        p = _read(U1[s1.numpy(), : len(C)] @ C.T, U2[s2.numpy(), : len(C)])
        C = np.linalg.lstsq(U2[s2.numpy(), :k], U1[s1.numpy()][p, :k], rcond=None)[0]
    found = zoomout(initial, basis1, basis2, sizes=[16, 32, 60], samples=(s1, s2))
    np.testing.assert_allclose(found.C_12.numpy() * s, C, atol=1e-9)
    assert found.p2p_21.tolist() == _read(U1 @ C.T, U2).tolist()
    again = zoomout(initial, basis1, basis2, sizes=[16, 32, 60], samples=(s1, s2))
    assert torch.equal(found.p2p_21, again.p2p_21)


def test_all_vertices_as_samples_of_equal_area():
    """With equal masses the weights of samples are the masses: both forms agree."""
    g = torch.Generator().manual_seed(4)
    bases = [
        Eigenbasis(
            torch.arange(10, dtype=torch.float64),
            torch.linalg.qr(torch.randn(n, 10, generator=g, dtype=torch.float64))[0] * n**0.5,
            torch.full((n,), 1 / n, dtype=torch.float64),
        )
        for n in (40, 50)
    ]
    C = torch.randn(4, 4, generator=g, dtype=torch.float64)
    a = zoomout(C, *bases, k_final=10)
    b = zoomout(C, *bases, k_final=10, samples=(torch.arange(40), torch.arange(50)))
    torch.testing.assert_close(a.C_12, b.C_12)
    assert torch.equal(a.p2p_21, b.p2p_21)


@pytest.mark.parametrize("sampled", [False, True])
def test_landmarks_are_weighted_rows(pair, initial, sampled):
    """One step is the weighted least squares problem of surface and landmarks together."""
    mesh1, mesh2, basis1, basis2, _ = pair
    landmarks = torch.tensor([[5, 600], [17, 3], [300, 41]])
    (U1, _), (U2, m2) = _unit(basis1), _unit(basis2)
    samples = (farthest_points(mesh1, 150), farthest_points(mesh2, 140)) if sampled else None
    i1, i2 = (s.numpy() for s in samples) if samples else (slice(None), slice(None))
    s = (float(basis1.mass.sum()) / float(basis2.mass.sum())) ** 0.5
    p = _read(U1[i1, :8] @ initial.numpy().T * s, U2[i2, :8])
    w = np.full(140, 1 / 140) if sampled else m2
    rows = np.vstack([U2[i2, :20] * w[:, None] ** 0.5, U2[landmarks[:, 1], :20] * (0.3 / 3) ** 0.5])
    right = np.vstack([U1[i1][p, :20] * w[:, None] ** 0.5, U1[landmarks[:, 0], :20] * (0.3 / 3) ** 0.5])
    expected = np.linalg.lstsq(rows, right, rcond=None)[0]
    options = {"samples": samples, "landmarks": landmarks, "landmark_weight": 0.3}
    found = zoomout(initial, basis1, basis2, sizes=[20], **options)
    np.testing.assert_allclose(found.C_12.numpy() * s, expected, atol=1e-9)


def test_landmarks_hold(pair, initial):
    """A heavy weight makes each landmark go home."""
    _, _, basis1, basis2, order = pair
    there = torch.tensor([10, 200, 500])
    landmarks = torch.stack([order[there], there], 1)
    result = zoomout(initial, basis1, basis2, k_final=60, step=4, landmarks=landmarks, landmark_weight=1e3)
    assert torch.equal(result.p2p_21[there], landmarks[:, 0])
    free = zoomout(initial, basis1, basis2, k_final=60, step=4)
    weightless = zoomout(initial, basis1, basis2, k_final=60, step=4, landmarks=landmarks, landmark_weight=0)
    assert torch.equal(free.p2p_21, weightless.p2p_21)


@pytest.mark.parametrize("both", [False, True])
def test_units_do_not_matter(pair, initial, both):
    _, _, basis1, basis2, _ = pair
    s = 64.0
    scaled = Eigenbasis(basis1.vals / s**2, basis1.vecs / s, basis1.mass * s**2)
    a = zoomout(initial, basis1, basis2, k_final=40, step=8, bidirectional=both)
    b = zoomout(initial / s, scaled, basis2, k_final=40, step=8, bidirectional=both)
    assert torch.equal(a.p2p_21, b.p2p_21)
    torch.testing.assert_close(a.C_12, b.C_12 * s)
    if both:
        torch.testing.assert_close(a.C_21, b.C_21 / s)


def test_dtype_and_block(pair, initial):
    _, _, basis1, basis2, _ = pair
    whole = zoomout(initial, basis1, basis2, k_final=24, step=8)
    pieces = zoomout(initial, basis1, basis2, k_final=24, step=8, block=1000)
    assert torch.equal(whole.p2p_21, pieces.p2p_21)
    single = zoomout(initial.float(), basis1.to(torch.float32), basis2.to(torch.float32), k_final=24, step=8)
    assert single.C_12.dtype == torch.float32
    assert float((single.p2p_21 == whole.p2p_21).double().mean()) > 0.99


def test_agrees_with_pyfm(pair, initial):
    refine = pytest.importorskip("pyFM.refine.zoomout")
    mesh1, mesh2, basis1, basis2, _ = pair
    unit = [Eigenbasis(b.vals, b.vecs * b.mass.sum().sqrt(), b.mass / b.mass.sum()) for b in (basis1, basis2)]
    U1, U2 = (b.vecs.numpy() for b in unit)
    samples = (farthest_points(mesh1, 200), farthest_points(mesh2, 200))
    options = {"nit": 13, "step": 4, "return_p2p": True}
    C, p = refine.zoomout_refine(initial.numpy(), U1, U2, A2=unit[1].mass.numpy(), **options)
    ours = zoomout(initial, *unit, k_final=60, step=4)
    assert ours.p2p_21.tolist() == p.tolist()
    np.testing.assert_allclose(ours.C_12.numpy(), C, atol=1e-10)
    subsample = tuple(s.numpy() for s in samples)
    C, p = refine.zoomout_refine(initial.numpy(), U1, U2, subsample=subsample, **options)
    ours = zoomout(initial, *unit, k_final=60, step=4, samples=samples)
    assert ours.p2p_21.tolist() == p.tolist()
    np.testing.assert_allclose(ours.C_12.numpy(), C, atol=1e-9)


def test_cat_and_lion():
    """Real species: refinement brings the landmarks nearer than the map that knew them only."""
    data = os.environ.get("GEOFRAME_DATA")
    if not data:
        pytest.skip("GEOFRAME_DATA is not set: no real data")
    from geoframe import load

    folder = Path(data) / "animals" / "cat_lion"
    cat, lion = load(folder / "cat-00.off"), load(folder / "lion-00.off")
    basis1, basis2 = eigenbasis(cat, 60), eigenbasis(lion, 60)
    judge = torch.as_tensor(np.loadtxt(folder / "markers_55.txt", dtype=np.int64))
    start = p2p_to_fmap(
        torch.as_tensor(np.loadtxt(folder / "lion2cat", dtype=np.int64)),
        *(b.truncate(20) for b in (basis1, basis2)),
    )

    def error(p2p_21):
        distance = (cat.verts[p2p_21[judge[:, 1]]] - cat.verts[judge[:, 0]]).norm(dim=1)
        return float(distance.mean() / cat.area.sqrt())

    before = error(zoomout(start, basis1, basis2, k_final=20).p2p_21)
    samples = (farthest_points(cat, 400), farthest_points(lion, 400))
    after = zoomout(start, basis1, basis2, k_final=60, step=4, samples=samples, bidirectional=True)
    assert error(after.p2p_21) < before
    assert error(after.p2p_21) < 0.05


def test_bad_input(pair, initial):
    _, mesh2, basis1, basis2, order = pair
    run = lambda init=initial, **options: zoomout(init, basis1, basis2, **options)  # noqa: E731
    few = (torch.arange(20), farthest_points(mesh2, 100))
    for options, error, match in (
        ({"k_final": 61}, ValueError, "k_final: expected an integer from 8 to 60, found 61"),
        ({"k_final": 7}, ValueError, "k_final: expected an integer from 8 to 60, found 7"),
        ({"k_final": 20, "step": 0}, ValueError, "step: expected an integer at least 1"),
        ({"sizes": [10, 10]}, ValueError, "sizes: expected ascending"),
        ({"sizes": []}, ValueError, "sizes: expected ascending"),
        ({"sizes": [10], "k_final": 10}, ValueError, "sizes: expected either sizes or k_final"),
        ({"sizes": [10, 99]}, ValueError, "sizes: expected an integer from 8 to 60, found 99"),
        ({"k_final": 20, "block": 0}, ValueError, "block"),
        ({"k_final": 60, "samples": few}, ValueError, "samples of surface 1: 20 vertices do not tell 60"),
        ({"samples": (order - 1, order)}, ValueError, "samples of surface 1: expected indices"),
        ({"landmarks": torch.tensor([[0, 642]])}, ValueError, r"landmarks\[:, 1\]: expected indices"),
        ({"landmarks": torch.tensor([0, 1])}, ValueError, r"landmarks: expected shape \(L, 2\)"),
        ({"landmarks": torch.zeros(0, 2).long()}, ValueError, "landmarks: expected at least one"),
        ({"landmarks": torch.tensor([[0, 0]]), "landmark_weight": -1}, ValueError, "landmark_weight"),
        ({"init": initial * torch.nan}, ValueError, "init: expected finite"),
        ({"init": order[:-1]}, ValueError, r"init: expected shape \(642,\)"),
        ({"init": torch.zeros(2, 61)}, ValueError, "init: expected at most 60 columns"),
        ({"init": "identity"}, TypeError, "init: expected a tensor, a NumPy array or a list"),
    ):
        with pytest.raises(error, match=match):
            run(**options)
