"""What is doubted, and what is not."""

from __future__ import annotations

import pytest
import torch

from geoframe import zoo
from geoframe.maps import match
from geoframe.maps.verdict import DISTORTED, FLIPPED, LOOSE, TIED, doubts

FINE = {"distortion": 0.05, "flipped_triangles": 0.02, "cycle_error": 0.004}


def test_each_measure_beyond_its_limit_is_one_reason():
    assert doubts(FINE) == () and doubts(FINE, 0.5) == ()
    for name, limit in (("distortion", DISTORTED), ("flipped_triangles", FLIPPED), ("cycle_error", LOOSE)):
        assert len(doubts({**FINE, name: limit})) == 1
        assert len(doubts({**FINE, name: float("nan")})) == 1  # what could not be measured is doubted
    assert "give a few landmarks" in doubts(FINE, TIED)[0]
    assert len(doubts(dict.fromkeys(FINE, 1.0), 1.0)) == 4


def _renamed(name: str) -> str:
    """Head for tail, front for hind."""
    ends = {"nose": "rump", "rump": "nose"}
    return ends.get(name, name.replace("front", "-").replace("hind", "front").replace("-", "hind"))


@pytest.mark.parametrize("wrong", [False, True])
def test_landmarks_the_wrong_way_round_are_found_out(wrong):
    a, b = zoo.animal("cat", 700, seed=1, pose=1), zoo.animal("dog", 700, seed=2, pose=5)
    names = ("nose", "rump", "left_front_paw", "right_front_paw", "left_hind_paw", "right_hind_paw")
    pairs = [(a.landmarks[n], b.landmarks[_renamed(n) if wrong else n]) for n in names]
    found = match(a.mesh, b.mesh, torch.tensor(pairs))
    assert found.verdict == ("doubtful" if wrong else "good")
    assert bool(found.warnings) == wrong
