"""All signs at once give what `zoomout` gives of each."""

import pytest
import torch

from geoframe.maps import zoomout
from geoframe.maps.signs import refined_signs
from geoframe.spectral import Eigenbasis, eigenbasis
from geoframe.surface import farthest_points
from geoframe.surface.mesh import Mesh


def test_agrees_with_zoomout_one_by_one(bumpy):
    other = Mesh(3 * bumpy.verts * bumpy.verts.new_tensor([1.0, 1.1, 0.9]), bumpy.faces)
    seen = []
    for mesh in (bumpy, other):
        basis, at = eigenbasis(mesh, 20), farthest_points(mesh, 120)
        seen.append(Eigenbasis(basis.vals, basis.vecs[at], basis.mass.sum().expand(120) / 120))
    one, two = seen
    scale = (two.mass.sum() / one.mass.sum()).sqrt()
    signs, C_12, C_21 = refined_signs(one, two, 3, [8, 12, 20])
    assert signs.shape == (8, 3) and len(torch.unique(signs, dim=0)) == 8
    every = torch.arange(120)
    for i in (0, 5):
        first = torch.diag(torch.cat([signs.new_ones(1), signs[i]]).double()) * scale
        expected = zoomout(first, one, two, sizes=[4, 8, 12, 20], samples=(every, every), bidirectional=True)
        torch.testing.assert_close(C_12[i], expected.C_12, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(C_21[i], expected.C_21, atol=1e-5, rtol=1e-4)
    blocks = refined_signs(one, two, 3, [8, 12, 20], block=1)
    torch.testing.assert_close(blocks[1], C_12, atol=1e-5, rtol=1e-4)
    assert float(C_12[1:].sub(C_12[0]).abs().amax((1, 2)).max()) == pytest.approx(2 * float(scale), rel=0.5)
