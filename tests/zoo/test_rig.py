"""Identities and poses on a canonical triangulation: skinning, named poses, and what the disk cache gives back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import template
from geoframe.zoo import species
from geoframe.zoo.poses import draw_pose, pose_names
from geoframe.zoo.rig import pose_template, rig
from geoframe.zoo.skeleton import bones, pose_rotations, skin


@pytest.fixture(scope="module")
def horse():
    return rig("horse")


def test_the_species_own_form_is_the_template(horse):
    verts = pose_template("horse", [0], [None])[0]
    gap = verts - template("horse").verts
    assert float(gap.abs().max()) < 0.002  # how its lowest vertex differs from the lowest of a finer mesh
    assert float((gap - gap.mean(0)).abs().max()) < 1e-6


def test_bending_is_linear_blend_skinning(horse):
    rest, joints = horse.at_rest(horse.cage)
    weights = np.zeros((horse.n_verts, len(bones().names)))
    for v in range(horse.n_verts):
        at = slice(horse.starts[v], horse.starts[v + 1])
        weights[v, horse.bones[at]] = horse.shares[at]
    np.testing.assert_allclose(weights.sum(1), 1)
    for seed in range(3):
        angles = draw_pose("horse", seed=seed)
        own = pose_rotations(angles)
        want = skin(rest, weights, joints, bones().parents, own)
        np.testing.assert_allclose(horse.bent(rest, joints, angles), want, atol=1e-10)


def test_normals_are_those_of_the_faces_around(horse):
    rest, _ = horse.at_rest(horse.cage)
    normals = horse.normals(rest)
    for v in (0, 17, 999):
        a, b, c = (rest[horse.faces[(horse.faces == v).any(1)][:, k]] for k in range(3))
        total = np.cross(b - a, c - a).sum(0)
        np.testing.assert_allclose(normals[v], total / np.linalg.norm(total), atol=1e-9)


def test_a_rig_from_the_disk_is_the_rig(horse):
    rig.cache_clear()
    again = rig("horse")
    assert again is not horse and again.landmarks == horse.landmarks
    for name in ("faces", "symmetry", "relief", "starts", "bones", "shares", "cage"):
        np.testing.assert_array_equal(getattr(again, name), getattr(horse, name))
    assert abs(again.smooth - horse.smooth).max() == 0


def test_poses_look_as_they_are_called(horse):
    def places(kind, names, n=6):
        angles = [draw_pose("horse", kind, seed=i) for i in range(n)]
        verts = pose_template("horse", [0] * n, angles)
        return [verts[:, horse.landmarks[name], 1] - verts[:, :, 1].amin(1) for name in names]

    nose, withers, rump = places("grazing", ("nose", "withers", "rump"))
    assert bool((nose < 0.45 * withers).all()) and bool(((withers - rump).abs() < 0.4).all())
    withers, rump = places("sitting", ("withers", "rump"))
    assert bool((withers > rump + 0.25).all())
    withers, rump, paw = places("rearing", ("withers", "rump", "left_front_paw"))
    assert bool((withers > rump).all()) and float(paw.median()) > 0.5
    belly, standing = places("lying", ("belly",))[0], places("standing", ("belly",))[0]
    assert float(belly.max()) < 0.75 * float(standing.min())


def test_every_named_pose_is_drawn_within_its_ranges():
    for name in species():
        for kind in pose_names(name):
            drawn = [draw_pose(name, kind, seed=i) for i in range(4)]
            assert drawn[0] == draw_pose(name, kind, seed=0) and drawn[0] != drawn[1]
            assert all(abs(a) <= 160 for angles in drawn for turn in angles.values() for a in turn)
            assert set(drawn[0]) <= set(bones().names)


def test_bad_input():
    with pytest.raises(ValueError, match="poses: expected one for each of 2"):
        pose_template("horse", [0, 1], [None])
    with pytest.raises(ValueError, match="name: expected one of"):
        rig("unicorn")
    with pytest.raises(ValueError, match="kind: expected one of"):
        draw_pose("horse", "moonwalk")
    with pytest.raises(ValueError, match="identities"):
        pose_template("horse", [-1], [None])
    assert torch.equal(pose_template("horse", [3], [5]), pose_template("horse", [3], [5]))
