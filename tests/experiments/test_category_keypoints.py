"""The tables of the category-keypoint experiment: means, spreads, what is left out."""

from __future__ import annotations

import json

import pytest

from experiments.category_keypoints.tables import markdown, summary, write_tables

FOUND = {
    ("chair", "geoframe", 0): {"coverage_percent": 90.0, "registration_median_deg": 0.2, "epochs": 200.0},
    ("chair", "geoframe", 1): {"coverage_percent": 92.0, "registration_median_deg": 0.4, "epochs": 200.0},
    ("chair", "baseline", 0): {"coverage_percent": 70.0, "epochs": 100.0},
    ("procedural-chair", "geoframe", 0): {"correspondence_distance": 0.05, "epochs": 200.0},
}


def test_means_and_spreads_are_over_the_seeds():
    rows = summary(FOUND)
    chair = rows["chair", "geoframe"]
    assert chair["coverage_percent"] == 91 and chair["coverage_percent_spread"] == pytest.approx(2**0.5)
    assert chair["seeds"] == 2 and chair["epochs"] == 200 and "epochs_spread" not in chair
    assert rows["chair", "baseline"] == {"coverage_percent": 70, "epochs": 100, "seeds": 1}


def test_tables_leave_out_what_has_no_number(tmp_path):
    write_tables(tmp_path, FOUND)
    text = (tmp_path / "table.md").read_text()
    assert text == markdown(summary(FOUND))
    first, registration, parts = text.split("## ")[1:]
    assert (
        "| chair | geoframe | 200 | 2 | 91 ± 1.4 |" in first
        and "| chair | baseline | 100 | 1 | 70 |" in first
    )
    assert "| chair | published |  |  | 88.83 |" in first
    assert "| chair | geoframe | 200 | 2 | 0.3 ± 0.14 |" in registration and "baseline" not in registration
    assert "procedural-chair" not in first and "| procedural-chair | geoframe | 200 | 1 | 0.05 |" in parts
    flat = json.loads((tmp_path / "results.json").read_text())
    assert flat["chair/geoframe/registration_median_deg"] == pytest.approx(0.3)
    assert flat["chair/geoframe/seeds"] == 2
