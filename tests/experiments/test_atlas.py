"""The atlas experiment from its command, on three species."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_quick(tmp_path):
    command = [sys.executable, "-m", "experiments.atlas.run", "--out", str(tmp_path), "--quick"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["mean/quadrupeds"] < 0.05 and results["round_trip_of_three"] < 0.05
    assert (tmp_path / "pattern.png").stat().st_size > 10_000
