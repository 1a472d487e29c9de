"""Vertex embeddings: unit rows, the same on any mesh of the surface, carried along maps in the direction they claim."""

from __future__ import annotations

import pytest
import torch

from geoframe import Surface, p2p_to_fmap
from geoframe.layers import SharedEmbedding, VertexEmbedding
from geoframe.surface.shapes import ellipsoid


@pytest.fixture(scope="module")
def coarse():
    return Surface.of(ellipsoid((1.0, 0.7, 0.5), 3))


@pytest.fixture(scope="module")
def fine():
    return Surface.of(ellipsoid((1.0, 0.7, 0.5), 4))


def test_rows_are_unit_and_training_reaches_the_weights(coarse):
    for functions in (32, None):
        embedding = VertexEmbedding(coarse, 8, functions=functions)
        E = embedding()
        assert E.shape == (coarse.n_verts, 8)
        assert torch.allclose(E.norm(dim=1), torch.ones(coarse.n_verts), atol=1e-5)
        (E[:, 0].sum() + E[3, 1]).backward()
        assert embedding.weight.grad.abs().sum() > 0
        some = torch.tensor([5, 2, 5])
        assert torch.allclose(embedding(some), E[some], atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(embedding(), E)


def test_the_start_is_random_seeded_and_of_variance_one(coarse):
    a, b, c = (VertexEmbedding(coarse, 16, functions=64, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.weight, b.weight) and not torch.equal(a.weight, c.weight)
    rows = (a.basis @ a.weight).detach()
    mass = coarse.basis(64).mass.float()
    variance = (mass[:, None] * rows.square()).sum(0) / mass.sum()
    assert abs(float(variance.mean()) - 1) < 0.15
    big = VertexEmbedding(coarse.with_verts(100 * coarse.verts), 16, functions=64)
    assert torch.allclose(big(), a(), atol=1e-3)  # the unit does not matter


def test_the_state_holds_the_weights_alone(coarse):
    a = VertexEmbedding(coarse, 4, functions=16, seed=3)
    assert set(a.state_dict()) == {"weight"}
    b = VertexEmbedding(coarse, 4, functions=16)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(), b())


def test_the_same_embedding_on_a_finer_and_a_coarser_mesh(coarse, fine):
    for functions in (25, None):
        embedding = VertexEmbedding(coarse, 8, functions=functions)
        up = embedding.on(fine)
        assert up.functions == functions and up.n_verts == fine.n_verts
        same = torch.cdist(fine.verts, coarse.verts).argmin(0)  # vertices that both meshes have
        assert torch.allclose(up()[same], embedding(), atol=0.12)
        assert ((up()[same] * embedding()).sum(1)).mean() > 0.995
        back = up.on(coarse)
        assert ((back() * embedding()).sum(1)).mean() > 0.99


def test_transfer_follows_the_direction_of_the_maps(coarse, fine):
    """From the fine surface (1) to the coarse one (2): V1 != V2, and with a matrix K1 != K2."""
    p2p_21 = torch.cdist(coarse.verts, fine.verts).argmin(1)
    spectral = VertexEmbedding(fine, 8, functions=40)
    table = VertexEmbedding(fine, 8, functions=None)
    assert torch.allclose(table.transferred(p2p_21, coarse)(), table()[p2p_21], atol=1e-6)
    assert torch.allclose(
        spectral.transferred(p2p_21, coarse, form="vertices")(), spectral()[p2p_21], atol=1e-6
    )
    carried = spectral.transferred(p2p_21, coarse)
    assert (
        (carried() * spectral()[p2p_21]).sum(1)
    ).mean() > 0.97  # the meshes differ in their last functions
    C_12 = p2p_to_fmap(p2p_21, fine.basis(40), coarse.basis(30))
    by_matrix = spectral.transferred(C_12, coarse)
    assert by_matrix.functions == 30 and by_matrix.weight.shape == (30, 8)
    projected = coarse.basis(30).lift(
        coarse.basis(30).project((fine.basis(40).vecs @ spectral.weight.double())[p2p_21])
    )
    true = torch.nn.functional.normalize(projected, dim=1)
    assert torch.allclose(by_matrix().double(), true, atol=1e-4)


def test_a_transferred_embedding_trains_by_itself(coarse, fine):
    source = VertexEmbedding(coarse, 4, functions=16)
    other = source.on(fine)
    before = source.weight.detach().clone()
    other().sum().backward()
    assert source.weight.grad is None and other.weight.grad is not None
    with torch.no_grad():
        other.weight.zero_()
    assert torch.equal(source.weight, before)


def test_frozen_is_the_same_and_does_not_train(coarse):
    embedding = VertexEmbedding(coarse, 4, functions=16)
    frozen = embedding.frozen()
    assert torch.allclose(frozen(), embedding(), atol=1e-6)
    assert not frozen.weight.requires_grad and frozen.functions is None


def test_several_surfaces_share_a_space(coarse, fine):
    shared = SharedEmbedding(
        {"a": VertexEmbedding(coarse, 4, functions=16), "b": VertexEmbedding(fine, 4, functions=9)}
    )
    tables = shared()
    assert shared.names == ("a", "b") and shared.dim == 4 and len(shared) == 2 and "a" in shared
    assert tables["a"].shape == (coarse.n_verts, 4) and tables["b"].shape == (fine.n_verts, 4)
    assert torch.equal(shared["b"](), tables["b"])
    assert len(list(shared.parameters())) == 2
    with pytest.raises(ValueError, match="name: expected one of a, b, found 'c'"):
        shared["c"]
    with pytest.raises(ValueError, match="expected dim 4"):
        shared.add("c", VertexEmbedding(coarse, 5, functions=4))
    with pytest.raises(ValueError, match="a word without dots"):
        shared.add("c.d", VertexEmbedding(coarse, 4, functions=4))
    with pytest.raises(ValueError, match="at least one surface"):
        SharedEmbedding({})


def test_bad_input_is_told(coarse, fine):
    embedding = VertexEmbedding(coarse, 4, functions=16)
    table = VertexEmbedding(coarse, 4, functions=None)
    wrong = torch.zeros(7, dtype=torch.int64)
    with pytest.raises(ValueError, match="functions: expected an integer from 1 to"):
        VertexEmbedding(coarse, functions=coarse.n_verts + 1)
    with pytest.raises(ValueError, match="dim: expected an integer"):
        VertexEmbedding(coarse, 0, functions=4)
    with pytest.raises(ValueError, match="match: expected a vertex of this surface for each"):
        embedding.transferred(wrong, fine)
    with pytest.raises(ValueError, match="match: expected vertices of this surface"):
        embedding.transferred(torch.full((fine.n_verts,), coarse.n_verts), fine)
    with pytest.raises(ValueError, match="found C_12"):
        table.transferred(torch.eye(4), fine)
    with pytest.raises(ValueError, match="this is a free table"):
        table.transferred(torch.eye(4), fine, form="spectral")
    with pytest.raises(ValueError, match="in the same place"):
        embedding.on(fine.with_verts(fine.verts + 9))
