"""The measures of a trained model, on small clouds with known rotations and a known plane of symmetry."""

from __future__ import annotations

import pytest

from geoframe.data import CloudSet, load_clouds
from geoframe.models.category_keypoints import evaluate, train


def test_a_model_learned_something(chairs, folder, predictor):
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    assert len(rows) == 6
    loss = rows[0].index("loss")
    assert float(rows[-1][loss]) < 0.95 * float(rows[1][loss])
    numbers = evaluate(predictor, chairs(16, 1))
    assert numbers["symmetry_error_deg"] < 1.5
    assert numbers["registration_median_deg"] < 3
    assert numbers["coverage_percent"] > 60
    assert 2 <= numbers["n_keypoints"] <= 8
    assert evaluate(predictor, chairs(16, 1)) == numbers  # a function of the seed


def test_the_true_plane_is_the_one_that_the_clouds_have(chairs, small, tmp_path):
    """With y up the plane may be across x or z; `evaluate` looks, and the mode without symmetry has none."""
    clouds = chairs(16, 0)
    across_x = CloudSet(clouds.points[..., [0, 2, 1]], clouds.names, 1)
    recipe = small(1, size=8)
    made = train(across_x, out=tmp_path / "symmetric", recipe=recipe, accelerator="cpu")
    assert evaluate(made, across_x)["symmetry_error_deg"] < 2
    assert evaluate(made, across_x, true_axes=(2,))["symmetry_error_deg"] > 80
    plain = train(
        across_x, out=tmp_path / "plain", recipe=recipe.with_settings(mode="plain"), accelerator="cpu"
    )
    assert not [name for name in evaluate(plain, across_x) if name.startswith("symmetry")]


def test_bad_clouds_and_axes_are_told(chairs, predictor):
    y_up = CloudSet(chairs(4, 0).points.roll(-1, -1), tuple("abcd"), 1)
    with pytest.raises(ValueError, match="expected the model's vertical axis, z, found y"):
        evaluate(predictor, y_up)
    for axes in ((), (7,)):
        with pytest.raises(ValueError, match="true_axes: expected numbers of axes"):
            evaluate(predictor, chairs(4, 0), true_axes=axes)


def test_procedural_data_has_parts():
    clouds = load_clouds("procedural", "chair", split="val", n_points=128, limit=2)
    assert len(clouds) == 2 and clouds.up == 1
    assert clouds.labels is not None and clouds.canonical is not None
