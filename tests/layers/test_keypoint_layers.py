"""Layers of category keypoints: oracles, invariances, gradients, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.layers import (
    BatchNorm,
    GlobalBranch,
    KeypointBasis,
    NodeBranch,
    PoseCoefficientBranch,
    farthest_nodes,
    shared_mlp,
)
from geoframe.layers.nodes import _pool
from geoframe.surface.clouds import box, check_clouds, gather_rows, nearest_distances, nearest_sq
from geoframe.transforms import rotation_about_axis, rotation_from_direction, sixd_to_rotation


@pytest.fixture
def clouds():
    return torch.rand(3, 60, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_nearest_sq_is_the_naive_loop(clouds):
    query = clouds[:, :7] + 0.01
    d_sq, index = nearest_sq(query, clouds)
    for b in range(3):
        for q in range(7):
            gaps = [float((query[b, q] - p).square().sum()) for p in clouds[b]]
            assert d_sq[b, q] == pytest.approx(min(gaps), rel=1e-5)
            assert int(index[b, q]) == gaps.index(min(gaps))
    torch.testing.assert_close(nearest_distances(query, clouds), d_sq.sqrt())
    torch.testing.assert_close(nearest_distances(query.double(), clouds.double()), d_sq.sqrt().double())


def test_gather_rows_and_box(clouds):
    index = torch.tensor([[[0, 5]], [[3, 3]], [[59, 1]]])
    picked = gather_rows(clouds, index)
    assert picked.shape == (3, 1, 2, 3)
    assert torch.equal(picked[2, 0, 0], clouds[2, 59])
    low, high = box(clouds)
    assert torch.equal(low[1], clouds[1].min(0).values) and torch.equal(high[1], clouds[1].max(0).values)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_turns_are_rotations_about_the_vertical_and_add(up):
    a, b = torch.tensor([0.3, -2.0], dtype=torch.float64), torch.tensor([1.1, 0.4], dtype=torch.float64)
    R = rotation_about_axis(a, up)
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(R @ rotation_about_axis(b, up), rotation_about_axis(a + b, up))
    axis = torch.eye(3, dtype=torch.float64)[up]
    torch.testing.assert_close(R @ axis, axis.expand(2, 3))
    quarter = rotation_from_direction(torch.tensor([0.0, 7.0], dtype=torch.float64), up)
    first, second = torch.eye(3, dtype=torch.float64).roll(-up - 1, 0)[:2]
    torch.testing.assert_close(quarter @ first, second)


def test_six_numbers_give_rotations_and_gradients():
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    R = sixd_to_rotation(x)
    torch.testing.assert_close(R.mT @ R, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    assert bool((torch.linalg.det(R) > 0).all())
    assert torch.autograd.gradcheck(sixd_to_rotation, (x,))


@pytest.mark.parametrize("mode", ["plain", "symmetric", "deformation"])
def test_basis_is_its_equation(mode):
    torch.manual_seed(0)
    basis = KeypointBasis(6, 4, mode=mode, plane="any").double()
    c = torch.randn(2, basis.n_coefficients, dtype=torch.float64)
    P = basis(c)
    n = basis.normal
    A = torch.eye(3, dtype=torch.float64) - 2 * torch.outer(n, n)
    for b in range(2):
        rows = 6 if mode == "plain" else 3
        first = sum(c[b, k] * basis.basis[k] for k in range(4))
        torch.testing.assert_close(P[b, :rows], first)
        if mode != "plain":
            own = c[b, 4:] if mode == "deformation" else c[b]
            mirrored = sum(own[k] * (basis.basis[k] @ A.T) for k in range(4))
            torch.testing.assert_close(P[b, 3:], mirrored)


def test_equal_coefficients_make_a_deformation_symmetric():
    torch.manual_seed(0)
    basis = KeypointBasis(6, 4, mode="deformation")
    c = torch.randn(2, 4)
    P = basis(torch.cat([c, c], dim=1))
    torch.testing.assert_close(basis.reflect(P[:, :3]), P[:, 3:])
    torch.testing.assert_close(basis.reflect(basis.reflect(P)), P)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_vertical_plane_contains_the_vertical(up):
    basis = KeypointBasis(4, 2, up=up)
    assert float(basis.normal.detach()[up]) == 0
    assert float(basis.normal.detach().norm()) == pytest.approx(1)


def test_basis_gradients_reach_plane_and_mean():
    torch.manual_seed(0)
    basis = KeypointBasis(4, 2, plane="any", mean=True).double()
    names = ["basis", "mean", "plane_parameter"]
    values = [getattr(basis, n).detach().requires_grad_() for n in names]
    c = torch.randn(2, 2, dtype=torch.float64)

    def run(*given):
        return torch.func.functional_call(basis, dict(zip(names, given, strict=True)), (c,))

    assert torch.autograd.gradcheck(run, values)


def test_odd_number_with_symmetry_is_refused():
    with pytest.raises(ValueError, match="even number with symmetry, found 7"):
        KeypointBasis(7, 3)
    assert KeypointBasis(7, 3, mode="plain")(torch.zeros(1, 3)).shape == (1, 7, 3)
    with pytest.raises(ValueError, match="mode: expected one of"):
        KeypointBasis(6, 3, mode="round")


def test_farthest_nodes_do_not_depend_on_the_order(clouds):
    shuffled = clouds[:, torch.randperm(60, generator=torch.Generator().manual_seed(3))]
    for n in (1, 5):
        a, b = (gather_rows(x, farthest_nodes(x, n)) for x in (clouds, shuffled))
        torch.testing.assert_close(a, b)
    index = farthest_nodes(clouds, 60)
    assert all(len(set(row.tolist())) == 60 for row in index)


def _with_statistics(module):
    """The module with batch norms as after some training, so that folding them matters."""
    for norm in module.modules():
        if isinstance(norm, BatchNorm):
            for x, low in (
                (norm.running_mean, -1),
                (norm.running_var, 0.5),
                (norm.bias, -1),
                (norm.weight, 0.5),
            ):
                torch.nn.init.uniform_(x, low, low + 1)
    return module


def _nodes_by_loops(branch, cloud):
    """The node branch of one cloud, cluster by cluster, with norms that are not folded."""

    def layers(mlp, x):
        return torch.nn.Sequential.forward(mlp, x)

    seeds = cloud[farthest_nodes(cloud[None], branch.n_nodes)[0]]
    owner = torch.cdist(cloud, seeds).argmin(1)
    centres, local = [], []
    for m in range(branch.n_nodes):
        mine = cloud[owner == m]
        centre = mine.mean(0)
        h = layers(branch.point_mlp, mine - centre)
        top = h.max(0).values.expand_as(h)
        h = torch.relu(branch.spread_norm(branch.spread(h) + branch.spread_pooled(top)))
        local.append(branch.cluster_mlp(h).max(0).values)
        centres.append(centre)
    centres, local = torch.stack(centres), torch.stack(local)
    wide = []
    for m in range(branch.n_nodes):
        near = (centres - centres[m]).norm(dim=1).argsort()[: branch.neighbours]
        h = layers(branch.before, torch.cat([centres[near] - centres[m], local[near]], dim=1))
        h = layers(branch.after, torch.cat([h.max(0).values.expand_as(h), h], dim=1))
        wide.append(h.max(0).values)
    return centres + branch.offset(layers(branch.head, torch.cat([local, torch.stack(wide)], dim=1)))


def test_node_branch_is_its_loops_and_batch_independent(clouds):
    torch.manual_seed(0)
    branch = _with_statistics(NodeBranch(6, width=8)).eval()
    torch.nn.init.normal_(branch.offset.weight)
    nodes = branch(clouds)
    some = (branch.point_mlp[0].weight, branch.spread_pooled.weight, branch.spread_norm.weight)
    for b in range(3):
        found, loops = (
            torch.autograd.grad(x.square().sum(), some)
            for x in (branch(clouds)[b], _nodes_by_loops(branch, clouds[b]))
        )
        torch.testing.assert_close(found, loops, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(nodes[b], _nodes_by_loops(branch, clouds[b]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(nodes[b : b + 1], branch(clouds[b : b + 1]), rtol=1e-4, atol=1e-5)


def test_norms_are_folded_into_the_layers_before_them(clouds):
    torch.manual_seed(0)
    for last in (True, False):
        mlp = _with_statistics(shared_mlp((3, 8, 6), activate_last=last)).eval()
        torch.testing.assert_close(mlp(clouds), torch.nn.Sequential.forward(mlp, clouds))
        assert bool((mlp(clouds) < 0).any()) != last
    norm, layer = _with_statistics(BatchNorm(6)).eval(), torch.nn.Linear(3, 6)
    apart = norm.folded(layer, clouds, shift=False) + norm.folded(layer, 0 * clouds)
    torch.testing.assert_close(apart, norm(layer(clouds)))


def test_pooling_gives_zeros_without_rows_and_one_row_the_gradient():
    x = torch.tensor([[1.0, -5.0], [3.0, -5.0], [2.0, -7.0]], requires_grad=True)
    pooled = _pool(x, torch.tensor([2, 2, 0]), 4)
    assert pooled.tolist() == [[2, -7], [0, 0], [3, -5], [0, 0]]
    pooled.sum().backward()
    assert x.grad.sum(0).tolist() == [2, 2] and x.grad[2].tolist() == [1, 1]
    with torch.no_grad():
        torch.testing.assert_close(_pool(x, torch.tensor([2, 2, 0]), 4), pooled)


def test_a_cloud_is_pooled_alike_with_and_without_a_gradient(clouds):
    torch.manual_seed(0)
    branch = _with_statistics(GlobalBranch(7, n_extra=2, hidden=(8, 16), head=(8,))).eval()
    extra = torch.rand(3, 2)
    slow = branch(clouds, extra).detach()
    with torch.no_grad():
        torch.testing.assert_close(branch(clouds, extra), slow)


def test_branches_ignore_the_order_of_points(clouds):
    torch.manual_seed(0)
    shuffled = clouds[:, torch.randperm(60)]
    nodes, pose = NodeBranch(5, width=8).eval(), PoseCoefficientBranch(4).eval()
    wide = GlobalBranch(7, hidden=(8, 16), head=(8,)).eval()
    torch.testing.assert_close(nodes(clouds), nodes(shuffled))
    torch.testing.assert_close(wide(clouds), wide(shuffled))
    for a, b in zip(pose(clouds), pose(shuffled), strict=True):
        torch.testing.assert_close(a, b)


def test_nodes_start_at_the_means_of_their_clusters(clouds):
    torch.manual_seed(0)
    branch = NodeBranch(4).eval()
    seeds = gather_rows(clouds, farthest_nodes(clouds, 4))
    owner = torch.cdist(clouds, seeds).argmin(-1)
    means = torch.stack([clouds[0][owner[0] == m].mean(0) for m in range(4)])
    torch.testing.assert_close(branch(clouds)[0], means, atol=0.02, rtol=0)


@pytest.mark.parametrize("rotation", ["vertical", "any"])
def test_gradient_flows_through_the_rotation(clouds, rotation):
    torch.manual_seed(0)
    branch = PoseCoefficientBranch(4, rotation=rotation)
    _, R = branch(clouds)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    (R * torch.randn(3, 3)).sum().backward()
    last = [p for p in branch.parameters()][-2]
    assert bool((last.grad[4:].abs().sum(1) > 0).all())


def test_batch_norm_is_torch_s(clouds):
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm1d(3)
    torch.testing.assert_close(ours(clouds), theirs(clouds.reshape(-1, 3)).view_as(clouds))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_bad_clouds_are_refused(clouds):
    with pytest.raises(ValueError, match="at least 61 points a cloud, found 60"):
        check_clouds(clouds, 61)
    with pytest.raises(ValueError, match="cloud 1 is a single point repeated"):
        check_clouds(torch.cat([clouds[:1], torch.ones(1, 60, 3)]), 2)
    with pytest.raises(ValueError, match="at least 5 points that differ, found fewer in cloud 1"):
        NodeBranch(5)(torch.cat([clouds[:1], clouds[1:2, :4].repeat(1, 15, 1)]))
    with pytest.raises(ValueError, match="finite"):
        NodeBranch(4)(torch.full((1, 9, 3), math.nan))
    with pytest.raises(TypeError, match="points: expected a floating dtype"):
        check_clouds(torch.ones(1, 5, 3, dtype=torch.int64), 1)


@torch.no_grad()
def test_a_pose_branch_does_not_hide_that_a_number_is_missing():
    branch = GlobalBranch(4, hidden=(8, 16)).eval()
    points = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))
    whole = branch(points)
    points[0, 3, 1] = math.nan
    found = branch(points)
    assert found[0].isnan().all() and torch.equal(found[1], whole[1])


def test_pooled_features_are_what_the_second_mlp_gets():
    branch = GlobalBranch(3, n_extra=2, hidden=(8, 16)).eval()
    points, extra = torch.randn(2, 50, 3), torch.randn(2, 2)
    with torch.no_grad():
        compiled = branch.pooled(points)
        torch.testing.assert_close(branch.head(torch.cat([compiled, extra], 1)), branch(points, extra))
    plain = branch.pooled(points.requires_grad_())  # with a gradient by tensor operations
    assert plain.shape == (2, 32) and plain.requires_grad
    torch.testing.assert_close(plain.detach(), compiled, atol=1e-5, rtol=1e-4)
