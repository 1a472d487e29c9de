"""The experiments on frames and landmarks from their commands; what they draw and how they split people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from experiments.faces import split_by_people
from experiments.inter_intra.run import check_start
from experiments.robot_arm.arm import film
from geoframe.data.face_files import LandmarkSet

DATA = Path(os.environ.get("GEOFRAME_DATA", "nowhere"))


def test_no_person_is_in_two_parts():
    n = 60
    identity = torch.arange(n) // 4
    identity[::10] = -1
    faces = LandmarkSet([torch.zeros(3, 4, 4)] * n, tuple(map(str, range(n))), torch.rand(n, 2, 2), identity)
    for development in (False, True):
        parts = split_by_people(faces, development=development)
        people = [set(p.identity.tolist()) - {-1} for p in (parts.train, parts.test, parts.unlabelled)]
        assert people[0] and people[1] and not people[0] & people[1] and not people[2] & people[1]
    whole = split_by_people(faces)
    held = set(whole.test.identity.tolist())
    assert not set(split_by_people(faces, development=True).unlabelled.identity.tolist()) & held


def test_the_arms_flow_is_exact():
    """The first frame, moved by the flow, is the second but for pixels at edges."""
    made = film(6, size=96, seed=1)
    size = made.first.shape[-1]
    line = torch.arange(size) + 0.5
    own = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    place = own + made.flow.movedim(1, -1)
    known = torch.isfinite(place).all(-1)
    grid = (place / (size / 2) - 1).nan_to_num(9.0)
    moved = F.grid_sample(made.first.float(), grid, align_corners=False)
    off = (moved - made.second.float()).abs().amax(1)[known]
    assert float(off.median()) < 3 and float((off < 20).float().mean()) > 0.85
    assert float(made.flow.movedim(1, -1)[known].norm(dim=-1).mean()) > 1
    x, y = (made.centres[..., i].long() for i in (0, 1))
    at = made.second.float().flatten(2).gather(2, (y * size + x)[:, None].expand(-1, 3, -1))
    assert bool((at.amax(1) - at.amin(1) > 40).all())  # a centre lies on colour, the background is grey


def test_a_folder_holds_trainings_from_one_start(tmp_path):
    one, other = (SimpleNamespace(model=torch.nn.Linear(2, 3)) for _ in range(2))
    check_start(tmp_path, one, 0)
    check_start(tmp_path, other, 1)
    check_start(tmp_path, one, 0)
    with pytest.raises(
        ValueError, match="--out: expected a folder whose trainings of seed 0 began with this"
    ):
        check_start(tmp_path, other, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "key"),
    [
        ("object_frame", "faces", "geoframe/0/cascade/iod_percent_5/all"),
        ("sparse_landmarks", "faces", "geoframe/0/linear/iod_percent_5/all"),
        ("inter_intra", "faces", "geoframe/0/painting_error"),
        ("robot_arm", "", "arm/0/centre_error_percent"),
        ("willow_matching", "willow", "mean/frame"),
    ],
)
def test_quick(name, data, key, tmp_path):
    if data and not (DATA / data).is_dir():
        pytest.skip(f"needs GEOFRAME_DATA/{data}")
    command = [sys.executable, "-m", f"experiments.{name}.run", "--out", str(tmp_path), "--quick"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    assert key in json.loads((tmp_path / "results.json").read_text())
