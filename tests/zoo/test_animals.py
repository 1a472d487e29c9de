"""Animals: the ground truth is exact, meshes are sound at every size, poses keep their limits, seeds decide."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from geoframe.surface import health
from geoframe.surface.closest import TriangleTree
from geoframe.zoo import animal, correspondence, joint_angles, joints, landmark_names, species
from geoframe.zoo.animals import Animal
from geoframe.zoo.skeleton import bones

N = 800


def quality(a: Animal) -> torch.Tensor:
    """(F,) 1 for equilateral triangles, 0 for those without area."""
    corners = a.mesh.verts[a.mesh.faces]
    edges = (corners - corners.roll(1, dims=1)).square().sum((1, 2))
    return 4 * np.sqrt(3) * a.mesh.face_areas / edges


@pytest.mark.parametrize("name", species())
def test_sound_symmetric_and_named(name: str) -> None:
    a = animal(name, N)
    h = health(a.mesh)
    assert h.is_closed and h.is_manifold and h.n_components == 1 and h.genus == 0
    assert h.facing == "outward" and not h.problems
    assert abs(a.mesh.n_verts - N) < 0.03 * N
    assert torch.equal(a.symmetry[a.symmetry], torch.arange(a.mesh.n_verts))
    flip = a.mesh.verts.new_tensor([1, 1, -1])
    torch.testing.assert_close(a.mesh.verts[a.symmetry] * flip, a.mesh.verts)
    assert float(quality(a).quantile(0.01)) > 0.3 and float(quality(a).mean()) > 0.85
    assert list(a.landmarks) == landmark_names() and len(set(a.landmarks.values())) == 32
    for k, v in a.landmarks.items():
        if k.startswith("left_"):
            assert int(a.symmetry[v]) == a.landmarks["right_" + k.removeprefix("left_")]
            assert float(a.mesh.verts[v, 2]) < 0
    assert abs(float(a.dense.verts[:, 1].min())) < 1e-12


@pytest.mark.parametrize("n", [500, 3000, pytest.param(9000, marks=pytest.mark.slow)])
def test_any_size(n: int) -> None:
    """Sizes start from different levels of the template; landmarks are the same points at all of them."""
    a, small = animal("horse", n), animal("horse", N)
    h = health(a.mesh)
    assert h.is_closed and h.is_manifold and h.genus == 0 and not h.problems
    assert abs(a.mesh.n_verts - n) < 0.03 * n
    assert a.landmarks.keys() == small.landmarks.keys()
    for k in a.landmarks:
        torch.testing.assert_close(a.mesh.verts[a.landmarks[k]], small.mesh.verts[small.landmarks[k]])


@pytest.mark.parametrize("pair", list(pairwise(species())))
def test_there_and_back_again(pair: tuple[str, str]) -> None:
    """From A to B and found again on B's surface by its place alone, a point comes back to where it was on A."""
    a, b = animal(pair[0], N, pose=1), animal(pair[1], N)
    on_a = correspondence(a, b).on_dense
    here = a.dense.verts[a.dense.faces[on_a.face]]
    torch.testing.assert_close(on_a.points, (on_a.barycentric[..., None] * here).sum(1))
    face, weights = TriangleTree(b.dense.verts.numpy(), b.dense.faces.numpy()).closest(
        b.mesh.verts.numpy(), 60
    )
    back = (torch.as_tensor(weights)[..., None] * a.dense.verts[a.dense.faces[torch.as_tensor(face)]]).sum(1)
    assert float((back - on_a.points).norm(dim=1).max()) < 1e-6


def test_nearest_vertex_is_near_and_landmarks_agree() -> None:
    a, b = animal("dog", N), animal("giraffe", N, pose=3)
    c = correspondence(a, b)
    gap = (a.mesh.verts[c.p2p_21] - c.on_dense.points).norm(dim=1)
    edge = (a.mesh.verts[a.mesh.faces] - a.mesh.verts[a.mesh.faces.roll(1, dims=1)]).norm(dim=-1)
    assert float(gap.max()) < float(edge.max()) and float(gap.mean()) < float(edge.mean())
    for k, v in b.landmarks.items():
        assert int(c.p2p_21[v]) == a.landmarks[k]


def test_meshes_of_two_animals_share_no_connectivity() -> None:
    """Carried to another species by the truth, the edges of one are not those of the other."""
    a, b = animal("dog", N), animal("horse", N)
    p2p = correspondence(a, b).p2p_21.numpy()
    own = {
        tuple(sorted(e)) for f in a.mesh.faces.tolist() for e in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))
    }
    carried = p2p[b.mesh.faces.numpy()]
    hits = [
        tuple(sorted(e)) in own for f in carried.tolist() for e in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))
    ]
    assert np.mean(hits) < 0.8  # an equal triangulation has 1


def test_seeds_decide() -> None:
    a, again, other = (
        animal("dog", N, seed=3, pose=5),
        animal("dog", N, seed=3, pose=5),
        animal("dog", N, seed=4),
    )
    assert torch.equal(a.mesh.verts, again.mesh.verts) and torch.equal(a.mesh.faces, again.mesh.faces)
    assert a.mesh.faces.shape != other.mesh.faces.shape or not torch.equal(a.mesh.faces, other.mesh.faces)
    own = animal("dog", N)
    assert float((a.dense_rest - own.dense_rest).norm(dim=1).max()) > 0.02  # another individual
    assert float((a.dense.verts - a.dense_rest).norm(dim=1).max()) > 0.05  # another pose
    assert torch.equal(a.mesh.faces, animal("dog", N, seed=3).mesh.faces)  # a pose keeps the triangles


@pytest.mark.parametrize("name", species())
def test_poses_keep_their_limits_and_their_flesh(name: str) -> None:
    from geoframe.zoo._species import SPECIES

    a = animal(name, N)
    for seed in range(2):
        for bone, angles in joint_angles(name, seed).items():
            side, _, paired = bone.partition("_")
            sign = (-1, -1, 1) if side == "left" else (1, 1, 1)
            limits = SPECIES[name].limits.get(paired if side in ("left", "right") else bone, ((0, 0),) * 3)
            for angle, s, (low, high) in zip(angles, sign, limits, strict=True):
                assert low <= s * angle <= high
        posed = animal(name, N, pose=seed)
        assert float(posed.mesh.volume) == pytest.approx(float(a.mesh.volume), rel=0.06)
        assert not health(posed.mesh).problems


def test_bones() -> None:
    """Weights are shares; a joint lies on the plane or has its mirror image on the other side."""
    b = bones()
    np.testing.assert_allclose(b.weights.sum(1), 1)
    assert b.weights.min() >= 0 and b.parents[0] == -1 and all(p < j for j, p in enumerate(b.parents))
    place = joints("horse")
    assert list(place) == list(b.names)
    for k, v in place.items():
        if k.startswith("left_"):
            torch.testing.assert_close(v * v.new_tensor([1, 1, -1]), place["right_" + k[5:]])
    assert float(place["left_shank"][1]) < float(place["left_thigh"][1]) < float(place["spine"][1])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of .*'dog'.*found 'dragon'"):
        animal("dragon")
    with pytest.raises(ValueError, match="n_verts: expected an integer from 500 to 50000, found 100"):
        animal("dog", 100)
    for word in ("seed", "pose"):
        with pytest.raises(ValueError, match=f"{word}: expected an integer at least 0"):
            animal("dog", N, **{word: -1})
