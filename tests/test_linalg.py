"""Sparse factors and eigenvalue counts against dense linear algebra."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp

from geoframe.linalg import SpdFactor, count_below


def grid_laplacian(n: int) -> sp.csr_matrix:
    """Combinatorial Laplacian of an n by n grid: positive semi-definite, constants in its kernel."""
    line = sp.diags_array(
        [np.r_[1.0, np.full(n - 2, 2.0), 1.0], -np.ones(n - 1), -np.ones(n - 1)], offsets=[0, 1, -1]
    )
    eye = sp.identity(n)
    return (sp.kron(line, eye) + sp.kron(eye, line)).tocsr()


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    W = grid_laplacian(12)
    mass = rng.uniform(0.5, 2.0, W.shape[0])
    return W, mass, la.eigh(W.toarray(), np.diag(mass), eigvals_only=True)


@pytest.mark.parametrize("shape", [(144,), (144, 1), (144, 7), (144, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_solve_undoes_the_product(problem, shape, order):
    W, mass, _ = problem
    A = W + sp.diags_array(mass)
    x = np.asarray(np.random.default_rng(1).standard_normal(shape), order=order)
    b = A @ x
    before = b.copy()
    found = SpdFactor(A).solve(b)
    assert found.shape == shape
    np.testing.assert_allclose(found, x, atol=1e-12)
    np.testing.assert_array_equal(b, before)


def test_solve_accepts_other_dtypes_and_slices(problem):
    W, mass, _ = problem
    factor = SpdFactor(sp.coo_matrix(W + sp.diags_array(mass)))
    b = np.random.default_rng(2).standard_normal((144, 6))
    np.testing.assert_allclose(factor.solve(b[:, ::2]), factor.solve(b)[:, ::2], atol=1e-14)
    assert factor.solve(np.ones(144, dtype=np.float32)).dtype == np.float64


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.diag([1.0, -1.0]), "positive definite"),
        (np.diag([1.0, 0.0]), "positive definite.*kernel"),
        (np.array([[2.0, 1.0], [0.0, 2.0]]), "symmetric matrix, found .* up to 1"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "finite"),
        (np.ones((2, 3)), "square matrix.*found shape \\(2, 3\\)"),
        (np.zeros((0, 0)), "at least one row"),
    ],
)
def test_what_is_no_spd_matrix_is_named(A, message):
    with pytest.raises(ValueError, match=f"A: .*{message}"):
        SpdFactor(sp.csr_matrix(A))


def test_wrong_right_hand_sides():
    factor = SpdFactor(sp.identity(4))
    for b in (np.ones(3), np.ones((3, 4)), np.ones((4, 2, 2))):
        with pytest.raises(ValueError, match=r"b: expected shape \(4,\) or \(4, m\)"):
            factor.solve(b)


def test_count_below_agrees_with_all_eigenvalues(problem):
    W, mass, vals = problem
    for i in (0, 1, 5, 40, 100, 142):
        sigma = (vals[i] + vals[i + 1]) / 2
        clearance = (vals[i + 1] - vals[i]) / 2
        if clearance > 1e-9:
            assert count_below(W, mass, sigma, clearance=clearance) == i + 1
    assert count_below(W, mass, vals[-1] + 1, clearance=1.0) == len(vals)
    assert count_below(W, mass, -0.1, clearance=0.1) == 0


def test_count_below_keeps_its_word_on_badly_scaled_masses():
    W = grid_laplacian(15)
    mass = 10.0 ** np.random.default_rng(3).uniform(-9, 0, W.shape[0])
    vals = la.eigh(W.toarray() / np.sqrt(mass)[:, None] / np.sqrt(mass), eigvals_only=True)
    i = int(np.argmax(np.diff(vals[:40]) / vals[1:40]))
    sigma = (vals[i] + vals[i + 1]) / 2
    assert count_below(W, mass, sigma, clearance=(vals[i + 1] - vals[i]) / 2) == i + 1


def test_count_below_refuses_what_it_cannot_resolve(problem):
    W, mass, vals = problem
    assert count_below(W, mass, vals[20], clearance=1e-18) is None


def test_a_factor_that_is_held_to_the_end_is_given_back():
    """Else the library behind it complains of a leak when the process ends, after a match that went well."""
    held = "holder = type('Holder', (), {})(); holder.me = holder; holder.factor = SpdFactor(2 * sp.eye(4).tocsr())"
    code = f"import gc, scipy.sparse as sp\nfrom geoframe.linalg import SpdFactor\n{held}\ngc.freeze()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == ""
