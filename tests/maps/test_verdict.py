"""What is doubted, and what is not."""

from __future__ import annotations

import pytest
import torch

from geoframe import zoo
from geoframe.maps import match
from geoframe.maps.verdict import (
    DISTORTED,
    FLIPPED,
    LOOSE,
    MISNAMED,
    SURE,
    astray,
    confidence,
    doubts,
    features,
)

FINE = {
    "distortion": 0.05,
    "distortion_spread": 0.07,
    "flipped_triangles": 0.02,
    "cycle_error": 0.004,
    "shape_correlation": 0.8,
    "handedness_correlation": 0.6,
}


def test_each_measure_beyond_its_limit_is_one_reason():
    assert doubts(FINE, 1.0) == ()
    for name, limit in (("flipped_triangles", FLIPPED), ("cycle_error", LOOSE)):
        assert len(doubts({**FINE, name: limit}, 1.0)) == 1
        assert len(doubts({**FINE, name: float("nan")}, 1.0)) == 1  # what could not be measured is doubted
    low = ("distortion", DISTORTED), ("handedness_correlation", 0.0), ("named_landmark_error", MISNAMED)
    for name, value in low:  # told only where the map is doubted
        assert doubts({**FINE, name: value}, 1.0) == () and len(doubts({**FINE, name: value}, 0.1)) == 2
    assert "chance of 0.10" in doubts(FINE, 0.1)[0]


def test_confidence_falls_with_every_measure_that_gets_worse():
    for fine in (FINE, {**FINE, "named_landmark_error": 0.03}):
        best = confidence(fine)
        assert SURE < best < 1
        worse = {"handedness_correlation": 0.0, "distortion_spread": 0.3, "flipped_triangles": 0.9}
        for name, value in {**worse, **({"named_landmark_error": 0.3} if fine is not FINE else {})}.items():
            assert confidence({**fine, name: value}) < best
        assert confidence({**fine, **worse}) < SURE
    assert confidence({**FINE, "distortion_spread": float("nan")}) == 0
    assert len(features({**FINE, "named_landmark_error": 0.1})) == len(features(FINE)) + 1


def test_the_landmarks_that_are_off_are_named():
    off = {**FINE, "named_landmark_error": 0.2}
    told = doubts(off, 0.1, {"nose": 0.03, "left_ear": 0.5, "rump": 0.3})[-1]
    assert told.endswith("farthest off: left_ear 0.50, rump 0.30")
    assert astray([0.01, 0.02, 0.4, 0.03]) == [2] and astray([0.3, 0.4, 0.5]) == [] and astray([]) == []


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
