"""Shell refinement: what it tells that intrinsic coordinates do not, and what it must not depend on."""

import pytest
import torch

from geoframe import eigenbasis, zoo
from geoframe.maps import coverage, cycle_error, dirichlet_energy, landmark_coordinates, shell_refine
from geoframe.maps.shells import LOST, STIFF, _Part, _Side, rim_edges
from geoframe.nearest.dense import nearest
from geoframe.surface import PointCloud
from geoframe.surface.mesh import Mesh
from geoframe.surface.shapes import icosphere
from geoframe.transforms import random_rotations

NAMES = ("nose", "rump", "left_front_paw", "right_front_paw", "left_hind_paw", "right_hind_paw")


@pytest.fixture(scope="module")
def pair():
    """A cat and a giraffe in different poses, six landmarks, and the map that these alone tell."""
    cat, giraffe = zoo.animal("cat", 1200, seed=1, pose=1), zoo.animal("giraffe", 1000, seed=2, pose=2)
    bases = [eigenbasis(a.mesh, 100, cache=False) for a in (cat, giraffe)]
    f1, f2 = (
        landmark_coordinates(a.mesh, torch.tensor([a.landmarks[n] for n in NAMES])) for a in (cat, giraffe)
    )
    start = nearest(f2, f1)[0], nearest(f1, f2)[0]
    return cat, giraffe, bases, (f1, f2), start


def test_normals_tell_what_lengths_do_not(pair):
    cat, giraffe, bases, functions, start = pair
    truth = cat.mesh.verts[zoo.correspondence(cat, giraffe).p2p_21]

    def error(p2p_21):
        return float((cat.mesh.verts[p2p_21] - truth).norm(dim=1).mean() / cat.mesh.area.sqrt())

    given = (cat.mesh, giraffe.mesh, *start, *bases)
    without = shell_refine(*given, functions=functions, normals=(1e-6, 1e-6))[0]
    bent = shell_refine(*given, functions=functions)[0]
    print(error(start[0]), error(without), error(bent))
    assert error(bent) < 0.75 * error(start[0])
    assert error(bent) < 0.9 * error(without)


def test_a_noisy_map_becomes_smooth_and_reversible(bumpy):
    order = torch.randperm(bumpy.n_verts, generator=torch.Generator().manual_seed(0))
    other = Mesh(3 * bumpy.verts[order], torch.argsort(order)[bumpy.faces])
    bases = [eigenbasis(m, 60, cache=False) for m in (bumpy, other)]
    near = torch.cdist(bumpy.verts, bumpy.verts).argsort(1)[:, :25]  # noise of up to three edges
    random = torch.Generator().manual_seed(1)

    def blur(p2p):
        return near[p2p, torch.randint(25, p2p.shape, generator=random)]

    noisy = blur(order), torch.argsort(order)[blur(torch.arange(len(order)))]
    p2p_21, p2p_12 = shell_refine(bumpy, other, *noisy, *bases, sizes=(8, 20, 60))
    assert dirichlet_energy(bumpy, other, p2p_21) < 0.3 * dirichlet_energy(bumpy, other, noisy[0])
    assert float(cycle_error(other, p2p_21, p2p_12).mean()) < 0.3 * float(cycle_error(other, *noisy).mean())
    apart = (bumpy.verts[p2p_21] - bumpy.verts[order]).norm(dim=1).mean()
    assert apart < 0.5 * (bumpy.verts[noisy[0]] - bumpy.verts[order]).norm(dim=1).mean()


def test_samples_give_nearly_the_map_of_all_vertices(pair):
    cat, giraffe, bases, functions, start = pair
    given = (cat.mesh, giraffe.mesh, *start, *bases)
    every = shell_refine(*given, functions=functions, samples=10_000)[0]
    some = shell_refine(*given, functions=functions, samples=500)[0]
    apart = (cat.mesh.verts[every] - cat.mesh.verts[some]).norm(dim=1).mean() / cat.mesh.area.sqrt()
    assert float(apart) < 0.02


def test_pose_size_and_side_do_not_matter(pair):
    cat, giraffe, bases, functions, start = pair
    R = random_rotations(1, generator=torch.Generator().manual_seed(0)).to(cat.mesh.verts)[0]
    moved = Mesh(30 * giraffe.mesh.verts @ R.T + 7, giraffe.mesh.faces.flip(1))  # and inside out
    basis = eigenbasis(moved, 100, cache=False)
    one = shell_refine(cat.mesh, giraffe.mesh, *start, *bases, functions=functions, sizes=(8, 20))
    two = shell_refine(cat.mesh, moved, *start, bases[0], basis, functions=functions, sizes=(8, 20))
    assert (one[0] == two[0]).double().mean() > 0.99


def test_both_ways_are_one(pair):
    cat, giraffe, bases, (f1, f2), (p2p_21, p2p_12) = pair
    there = shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, *bases, functions=(f1, f2), sizes=(8, 20))
    back = shell_refine(
        giraffe.mesh, cat.mesh, p2p_12, p2p_21, *reversed(bases), functions=(f2, f1), sizes=(8, 20)
    )
    assert torch.equal(there[0], back[1]) and torch.equal(there[1], back[0])


def test_a_true_map_stays(pair):
    cat, _, (basis, _), _, _ = pair
    order = torch.randperm(cat.mesh.n_verts, generator=torch.Generator().manual_seed(0))
    other = Mesh(2 * cat.mesh.verts[order], torch.argsort(order)[cat.mesh.faces])
    again = eigenbasis(other, 100, cache=False)
    found = shell_refine(cat.mesh, other, order, torch.argsort(order), basis, again)
    assert torch.equal(found[0], order) and torch.equal(found[1], torch.argsort(order))


def test_a_part_that_the_other_has_not(pair):
    cat, giraffe, (one, _), _, (p2p_21, p2p_12) = pair
    ball = icosphere(1).to(giraffe.mesh.verts.dtype)
    n = giraffe.mesh.n_verts
    more = Mesh(
        torch.cat([giraffe.mesh.verts, ball.verts + 3]), torch.cat([giraffe.mesh.faces, ball.faces + n])
    )
    start = torch.cat([p2p_21, torch.zeros(ball.n_verts, dtype=torch.int64)])
    basis = eigenbasis(more, 100, cache=False)
    found = shell_refine(cat.mesh, more, start, p2p_12, one, basis, sizes=(8, 20))
    assert found[0].shape == (more.n_verts,) and found[1].shape == (cat.mesh.n_verts,)
    assert coverage(cat.mesh, found[0][:n]) > 0.3


def test_bad_input(pair):
    cat, giraffe, (one, two), (f1, f2), (p2p_21, p2p_12) = pair
    with pytest.raises(ValueError, match=r"p2p_12: expected shape \(\d+,\)"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12[:-1], one, two)
    with pytest.raises(ValueError, match="p2p_21: expected indices"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21 + cat.mesh.n_verts, p2p_12, one, two)
    with pytest.raises(ValueError, match="sizes: expected an integer at least 1"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, one, two, sizes=(0,))
    with pytest.raises(TypeError, match="sizes: expected one k a step"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, one, two, sizes=5)
    with pytest.raises(TypeError, match="mesh1: expected a Mesh, found PointCloud"):
        shell_refine(PointCloud(cat.mesh.verts), giraffe.mesh, p2p_21, p2p_12, one, two)
    for wrong in (f1, (f1,)):
        with pytest.raises(TypeError, match="functions: expected two tensors"):
            shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, one, two, functions=wrong)
    with pytest.raises(ValueError, match="basis1: expected"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, two, two)
    with pytest.raises(ValueError, match="functions of surface 2: expected"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, one, two, functions=(f1, f2[:-1]))
    with pytest.raises(ValueError, match="functions: expected as many"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, one, two, functions=(f1, f2[:, :3]))
    with pytest.raises(ValueError, match="functions of surface 1: expected finite"):
        shell_refine(cat.mesh, giraffe.mesh, p2p_21, p2p_12, one, two, functions=(f1 * torch.nan, f2))


def test_what_a_cut_surface_lacks_does_not_count(bumpy, cut):
    """The vertices that come back elsewhere have no share, nor those beyond the rim that come back from it; the Gram
    matrix is that of the others."""
    (part, kept), basis = cut, eigenbasis(bumpy, 20, cache=False)
    none = [torch.zeros(m.n_verts, 0, dtype=torch.float64) for m in (bumpy, part)]
    whole = _Part.of(_Side.of(bumpy, basis, none[0], 10, "1"))
    rest = _Part.of(_Side.of(part, eigenbasis(part, 20, cache=False), none[1], 10, "2"))
    there = nearest(bumpy.verts, bumpy.verts[kept])[0]
    gap = (bumpy.verts[kept[there]] - bumpy.verts).norm(dim=1) / bumpy.area.sqrt()
    beyond = torch.isin(there, rim_edges(part)) & (gap > bumpy.n_verts**-0.5)
    lost = (gap > LOST) | beyond
    assert 0.05 < float((gap > LOST).double().mean()) < float(lost.double().mean()) < 0.4
    met = whole.met(rest, there, kept)
    assert torch.equal(met.share == 0, lost) and torch.equal(met.share[~lost], whole.share[~lost])
    stiff = STIFF * torch.diag(whole.vals)
    torch.testing.assert_close(
        met.gram, whole.U.T @ (met.share[:, None] * whole.U) + stiff, atol=1e-8, rtol=0
    )
    assert rest.met(whole, kept, there) is rest  # the whole is closed: nothing can be missing there
