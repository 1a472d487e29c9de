"""Animals of limbs: sound surfaces, landmarks where they belong, the same again for the same seed."""

from __future__ import annotations

import pytest
import torch

from geoframe.surface import health
from geoframe.surface.creatures import creature


@pytest.fixture(scope="module", params=["dog", "giraffe"])
def animal(request: pytest.FixtureRequest):
    return request.param, *creature(request.param, 700, seed=5)


def test_surface_is_sound(animal) -> None:
    h = health(animal[1])
    assert h.n_verts == 700
    assert h.is_closed and h.is_manifold and h.n_components == 1 and h.genus == 0
    assert h.facing == "outward" and not h.problems


def test_landmarks_are_where_their_names_say(animal) -> None:
    _, mesh, names = animal
    assert len(names) == len(set(names.values())) == 23
    at = {name: mesh.verts[v] for name, v in names.items()}
    for name, place in at.items():
        side = -1 if name.startswith("left_") else 1 if name.startswith("right_") else 0
        assert float(place[2]) * side > 0 if side else abs(float(place[2])) < 0.08
        assert not side or name.replace("left_", "right_") in at
    low, high = mesh.verts.amin(0), mesh.verts.amax(0)
    assert float(high[0] - at["nose"][0]) < 0.12  # in front
    assert float(at["tail_tip"][0]) < float(at["rump"][0]) < float(at["withers"][0]) < float(at["nose"][0])
    assert float(at["belly"][1]) < float(at["back"][1]) < float(at["left_ear"][1])
    for paw in ("left_front_paw", "right_front_paw", "left_hind_paw", "right_hind_paw"):
        assert float(at[paw][1] - low[1]) < 0.1  # on the ground
    assert float(at["left_hind_paw"][0]) < float(at["left_front_paw"][0])


def test_the_same_again_for_the_same_seed(animal) -> None:
    name, mesh, names = animal
    again, names_again = creature(name, 700, seed=5)
    assert torch.equal(again.verts, mesh.verts) and torch.equal(again.faces, mesh.faces)
    assert names_again == names


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="name: expected one of 'dog', 'giraffe', found 'dragon'"):
        creature("dragon")
