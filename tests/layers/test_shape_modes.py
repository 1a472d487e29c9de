"""Mean shape and modes: symmetry, standard coefficients, complaints."""

from __future__ import annotations

import pytest
import torch

from geoframe.layers.shape_modes import ShapeModes

REFLECTION = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def _shape(n_modes=4, n_symmetric=2):
    """Six points in three mirror pairs, and functions of all of them."""
    draw = torch.Generator().manual_seed(1)
    half = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    verts = torch.cat([half, half @ REFLECTION])
    mirror = torch.zeros(6, 6, dtype=torch.float64)
    mirror[torch.arange(6), (torch.arange(6) + 3) % 6] = 1
    functions = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    shape = ShapeModes(
        verts, functions, n_modes, mirror=mirror, reflection=REFLECTION, n_symmetric=n_symmetric, spread=1.0
    )
    torch.nn.init.normal_(shape.mean, generator=draw)
    return shape.double()


def test_the_mean_and_the_first_modes_are_their_own_mirror_images():
    shape = _shape()
    torch.testing.assert_close(shape.reflected(shape.template()), shape.template())
    basis = shape.basis()
    torch.testing.assert_close(shape.reflected(basis)[:2], basis[:2])
    assert not torch.allclose(shape.reflected(basis)[2:], basis[2:])


def test_standard_coefficients_give_the_same_shapes():
    shape = _shape()
    alpha = 2 + 3 * torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = shape(alpha)
    new = shape.standardise(alpha)
    torch.testing.assert_close(shape(new), before)
    torch.testing.assert_close(new.square().mean(0), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(new[:, :2].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_known_shapes_give_mean_and_modes():
    """Shapes of three symmetric and two other modes are said exactly; coefficients vary by 1."""
    true = _shape(5, 3)
    true.functions = torch.eye(6, dtype=torch.float64)  # every vertex free
    true.modes.data = torch.randn(5, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    true.mean.data = true.modes.data[0]
    odd = true.modes.data[3:]
    odd -= (odd + true.reflected(odd)) / 2
    alpha = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    alpha[:, 3:] -= alpha[:, 3:].mean(0)
    shapes = true(alpha)
    found = _shape(5, 3)
    found.functions = true.functions
    found.modes.data = torch.zeros_like(true.modes)
    found.mean.data = torch.zeros_like(true.mean)
    found.take_from(shapes)
    torch.testing.assert_close(found.template(), true(torch.cat([alpha[:, :3].mean(0), torch.zeros(2)])))
    off, basis = (shapes - found.template()).flatten(1), found.basis().flatten(1)
    said = torch.linalg.lstsq(basis.T, off.T).solution.T
    torch.testing.assert_close(said @ basis, off)
    torch.testing.assert_close(said.square().mean(0), torch.ones(5).double())
    with pytest.raises(ValueError, match="number of shapes"):
        found.take_from(shapes[:5])


def test_what_does_not_fit_is_told():
    x = torch.zeros(6, 3)
    with pytest.raises(ValueError, match="functions: expected"):
        ShapeModes(x, torch.zeros(5, 2), 1)
    with pytest.raises(ValueError, match="mirror, reflection: expected both or neither"):
        ShapeModes(x, torch.zeros(6, 2), 1, mirror=torch.eye(6))
    with pytest.raises(ValueError, match="n_symmetric"):
        ShapeModes(x, torch.zeros(6, 2), 1, n_symmetric=2)
