"""From embeddings of pixels to vertices: exact, whatever the block; the two similarities are one."""

from __future__ import annotations

import pytest
import torch

from geoframe.nearest import (
    decode_embedding,
    embedding_logits,
    least_expected_distance,
    nearest_vertices,
    posterior_confidence,
    unit_rows,
    vertex_posterior,
)


@pytest.fixture
def embeddings():
    draw = torch.Generator().manual_seed(0)
    table = unit_rows(torch.randn(300, 16, generator=draw))
    x = table[torch.randint(300, (500,), generator=draw)] + 0.3 * torch.randn(500, 16, generator=draw)
    return x * torch.rand(500, 1, generator=draw), table


def test_nearest_is_that_of_brute_force(embeddings):
    x, table = embeddings
    brute = (x.double() @ unit_rows(table.double()).T).argmax(1)
    for block in (2000, 2**20):
        assert torch.equal(nearest_vertices(x, table, block=block), brute)
    by_distance = (unit_rows(x.double())[:, None] - unit_rows(table.double())).square().sum(-1).argmin(1)
    assert torch.equal(by_distance, brute)
    assert torch.equal(nearest_vertices(10 * x, table), brute)


def test_decoding_looks_at_the_foreground_only(embeddings):
    x, table = embeddings
    field = x.T.reshape(16, 20, 25).clone()
    mask = torch.rand(20, 25, generator=torch.Generator().manual_seed(1)) > 0.4
    field[:, ~mask] = torch.nan
    found = decode_embedding(field, table, mask)
    assert torch.equal(found[mask], nearest_vertices(x, table).view(20, 25)[mask])
    assert (found[~mask] == -1).all()
    assert (decode_embedding(field, table, torch.zeros_like(mask)) == -1).all()


def test_distance_at_sigma_is_the_inner_product_at_half_of_it(embeddings):
    x, table = unit_rows(embeddings[0].double()), unit_rows(embeddings[1].double())
    for sigma in (0.01, 0.1, 1.0):
        distance = embedding_logits(x, table, temperature=sigma, form="distance")
        dot = embedding_logits(x, table, temperature=sigma / 2, form="dot")
        assert torch.allclose(distance, dot - 2 / sigma, atol=1e-9 / sigma)
        assert torch.allclose(distance.softmax(1), dot.softmax(1), atol=1e-10)
    assert torch.allclose(
        embedding_logits(x, table, temperature=0.1, form="distance"), -torch.cdist(x, table).square() / 0.1
    )


def test_confidence_of_a_sure_and_of_an_unsure_pixel():
    table = torch.eye(8)
    sure = posterior_confidence(table, table, temperature=0.01)
    assert torch.allclose(sure, torch.ones(8))
    nothing = posterior_confidence(torch.zeros(1, 8), table, temperature=0.01)
    assert torch.allclose(nothing, torch.tensor([8**-0.5]))  # the mean of an orthonormal frame


def test_confidence_with_a_kernel_is_the_expected_score(embeddings):
    x, table = embeddings
    kernel = torch.rand(300, 300, generator=torch.Generator().manual_seed(2))
    vertex = nearest_vertices(x, table)
    p = vertex_posterior(x, table, temperature=0.1)
    true = (p * kernel[vertex]).sum(1)
    for block in (1, 5000, 2**20):
        found = posterior_confidence(x, table, temperature=0.1, vertex=vertex, kernel=kernel, block=block)
        assert torch.allclose(found, true, atol=1e-6)
    area = torch.rand(300, generator=torch.Generator().manual_seed(3)) + 0.1
    weighed = vertex_posterior(x, table, temperature=0.1, area=area)
    assert torch.allclose(weighed, p * area / (p * area).sum(1, keepdim=True), atol=1e-6)


def test_least_expected_distance_is_that_of_brute_force(embeddings):
    x, table = embeddings
    place = torch.rand(300, 2, generator=torch.Generator().manual_seed(4))
    distances = torch.cdist(place, place)
    risk = vertex_posterior(x, table, temperature=0.2) @ distances
    for block in (1, 2**20):
        answer, expected = least_expected_distance(x, table, distances, temperature=0.2, block=block)
        assert torch.equal(answer, risk.argmin(1))
        assert torch.allclose(expected, risk.amin(1))
    sharp, _ = least_expected_distance(x, table, distances, temperature=1e-4)
    assert (sharp == nearest_vertices(x, table)).double().mean() > 0.98


def test_bad_input_is_told(embeddings):
    x, table = embeddings
    with pytest.raises(ValueError, match="table: expected 16 columns as x"):
        nearest_vertices(x, table[:, :8])
    with pytest.raises(ValueError, match="table: expected at least one vertex"):
        nearest_vertices(x, table[:0])
    with pytest.raises(ValueError, match="query: expected finite"):
        nearest_vertices(x * torch.nan, table)
    with pytest.raises(TypeError, match="x: expected a floating dtype"):
        nearest_vertices(x.long(), table)
    with pytest.raises(TypeError, match=r"mask: expected a torch\.bool"):
        decode_embedding(torch.zeros(16, 4, 4), table, torch.ones(4, 4))
    with pytest.raises(ValueError, match="mask: expected shape"):
        decode_embedding(torch.zeros(16, 4, 4), table, torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="temperature: expected a positive"):
        embedding_logits(x, table, temperature=0)
    with pytest.raises(ValueError, match="form: expected one of"):
        embedding_logits(x, table, temperature=1, form="cosine")
    with pytest.raises(ValueError, match="area: expected shape"):
        vertex_posterior(x, table, temperature=1, area=torch.ones(3))
    with pytest.raises(ValueError, match="vertex: expected the answers"):
        posterior_confidence(x, table, temperature=1, kernel=torch.ones(3, 300))
    with pytest.raises(ValueError, match="distances: expected shape"):
        least_expected_distance(x, table, torch.ones(3, 3), temperature=1)


def test_a_pixel_of_length_zero_takes_the_first_vertex(embeddings):
    x, table = embeddings
    x = x.clone()
    x[::7] = 0
    found = nearest_vertices(x, table)
    assert (found[::7] == 0).all() and torch.equal(found[1::7], nearest_vertices(x[1::7], table))
