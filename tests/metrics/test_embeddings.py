"""Measures of surface embeddings: their definitions, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.canonical import GeodesicRows
from geoframe.metrics import (
    average_precision,
    geodesic_errors,
    gps,
    gpsm,
    mask_iou,
    mean_scores,
    mesh_error,
    mirrored_share,
    part_kappas,
    pck,
    pixel_scores,
)
from geoframe.surface.shapes import icosphere


@pytest.fixture(scope="module")
def rows():
    return GeodesicRows(icosphere(3))


def test_gps_at_kappa_is_the_root_of_one_over_e():
    for kappa in (0.255, 0.1):
        assert math.isclose(gps(torch.tensor([kappa], dtype=torch.float64), kappa=kappa), math.exp(-0.5))
    errors = torch.tensor([0.0, 0.255, torch.inf], dtype=torch.float64)
    assert math.isclose(gps(errors), (1 + math.exp(-0.5)) / 3)
    assert math.isclose(gps(errors, misses="ignore"), (1 + math.exp(-0.5)) / 2)
    assert gps(errors[:0]).isnan() and gps(errors[2:], misses="ignore").isnan() and gps(errors[2:]) == 0
    each = gps(errors[:2], kappa=torch.tensor([1.0, 0.255]))
    assert math.isclose(each, (1 + math.exp(-0.5)) / 2, rel_tol=1e-6)
    assert math.isclose(gpsm(torch.tensor(0.64), torch.tensor(0.25)), 0.4, rel_tol=1e-6)


def test_kappas_of_human_parts():
    groups = [
        (1, 2),
        (3, 4),
        (5, 6),
        (7, 8, 9, 10),
        (11, 12, 13, 14),
        (15, 16, 17, 18),
        (19, 20, 21, 22),
        (23, 24),
    ]
    values = (0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150)
    for parts, value in zip(groups, values, strict=True):
        assert torch.allclose(part_kappas(torch.tensor(parts)), torch.full((len(parts),), value))
    with pytest.raises(ValueError, match="part: expected"):
        part_kappas(torch.tensor([0]))


def test_errors_are_geodesic_in_units_of_the_surface(rows):
    sphere = rows.surface
    predicted, true = torch.tensor([10, 0, -1]), torch.tensor([0, 0, 5])
    errors = geodesic_errors(predicted, true, rows)
    angle = torch.acos((sphere.verts[10] @ sphere.verts[0]).clamp(-1, 1))
    assert abs(float(errors[0]) - float(angle) / math.sqrt(4 * math.pi)) < 0.02
    assert errors[1] == 0 and errors[2] == torch.inf


def test_mask_iou_with_and_without_the_band():
    true = torch.zeros(20, 20, dtype=torch.bool)
    true[5:15, 5:15] = True
    wide = torch.zeros_like(true)
    wide[4:16, 4:16] = True
    assert math.isclose(mask_iou(wide, true), 100 / 144, rel_tol=1e-6)
    assert mask_iou(wide, true, band=1) == 1  # half a pixel off everywhere
    far = torch.zeros_like(true)
    far[3:17, 3:17] = True
    inside, ring = 8 * 8, 14 * 14 - 12 * 12
    assert math.isclose(mask_iou(far, true, band=1), inside / (inside + ring), rel_tol=1e-6)
    none = torch.zeros_like(true)
    assert mask_iou(none, none) == 1 and mask_iou(none, true) == 0
    batch = torch.stack([true, wide])
    assert torch.allclose(mask_iou(batch, true.expand(2, -1, -1)), torch.tensor([1, 100 / 144]))


def test_average_precision_by_hand():
    similarity = torch.tensor([0.9, 0.4, 0.6])
    score = torch.tensor([0.9, 0.8, 0.1])
    found = average_precision(similarity, score, thresholds=(0.5,))
    # right, wrong, right: precision 1 up to recall 1/3, then 2/3 up to 2/3, then nothing
    assert math.isclose(found["ap50"], (34 + 33 * 2 / 3) / 101, rel_tol=1e-6)
    assert math.isclose(found["ar"], 2 / 3, rel_tol=1e-6)
    perfect = average_precision(torch.ones(4), torch.rand(4))
    assert perfect == {"ap": 1, "ar": 1, "ap50": 1, "ap75": 1}
    missed = average_precision(torch.ones(4), torch.ones(4), 8)
    assert math.isclose(missed["ar"], 0.5) and math.isclose(missed["ap"], 51 / 101)
    assert average_precision(torch.zeros(0), torch.zeros(0), 3)["ap"] == 0
    some = torch.tensor([0.72])  # right at .50, .55, .60, .65, .70 of ten thresholds
    half = average_precision(some, torch.ones(1))
    assert math.isclose(half["ap"], 0.5) and half["ap75"] == 0
    with pytest.raises(ValueError, match="n_instances: expected at least 4"):
        average_precision(torch.ones(4), torch.ones(4), 3)


def test_mirrored_share():
    errors = torch.tensor([0.1, 0.5, 0.3, torch.inf])
    to_mirror = torch.tensor([0.4, 0.2, 0.3, 0.1])
    assert math.isclose(mirrored_share(errors, to_mirror), 1 / 3, rel_tol=1e-6)


def test_pck_by_hand():
    true = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [torch.nan, 0.0]], [[0.0, 0.0], [5.0, 5.0], [1.0, 1.0]]])
    predicted = true + torch.tensor([0.9, 0.0])
    predicted[1, 1] = torch.nan
    assert torch.allclose(pck(predicted, true, 10.0), torch.tensor([1.0, 2 / 3]))
    assert torch.allclose(pck(predicted, true, torch.tensor([10.0, 5.0])), torch.tensor([1.0, 0.0]))
    assert pck(predicted[:, :0], true[:, :0], 1.0).isnan().all()


def test_scores_of_the_truth_and_of_a_half(rows):
    sphere = rows.surface
    vertex = torch.randint(sphere.n_verts, (12, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[2:10, 2:10] = True
    vertex = vertex.masked_fill(~mask, -1)
    mirror = (sphere.verts * torch.tensor([1.0, 1.0, -1.0])) @ sphere.verts.T
    mirror = mirror.argmax(1)
    perfect = pixel_scores(vertex, mask, vertex, mask, rows, mirror=mirror)
    assert perfect["gps"] == perfect["gps_misses_zero"] == perfect["gpsm"] == perfect["mask_iou"] == 1
    assert perfect["geodesic_error_mean"] == perfect["geodesic_error_median"] == perfect["mirrored"] == 0
    half = mask.clone()
    half[6:] = False
    scores = pixel_scores(vertex, half, vertex, mask, rows)
    assert scores["gps"] == 1 and math.isclose(scores["gps_misses_zero"], 0.5)
    assert scores["mask_iou"] == 0.5 and math.isclose(scores["gpsm"], 0.5) and "mirrored" not in scores
    flipped = torch.where(mask, mirror[vertex.clamp_min(0)], -1)
    off_plane = (sphere.verts[vertex[mask], 2].abs() > 1e-9).double().mean()
    found = pixel_scores(flipped, mask, vertex, mask, rows, mirror=mirror)
    assert math.isclose(found["mirrored"], float(off_plane), rel_tol=1e-5)
    both = mean_scores([perfect, scores])
    assert math.isclose(both["gps_misses_zero"], 0.75) and both["mirrored"] == 0 and both["points"] == 128
    assert math.isclose(both["ap50"], 1.0) and both["ap"] < 1


def test_mesh_error_of_the_same_and_of_a_shifted_embedding(rows):
    sphere = rows.surface
    table = sphere.verts.float()
    pairs = torch.arange(0, sphere.n_verts, 7)[:, None].expand(-1, 2)
    assert mesh_error(table, table, pairs, rows) == {"geodesic_error_mean": 0.0, "gps": 1.0}
    opposite = mesh_error(table, -table, pairs, rows)
    assert math.isclose(opposite["geodesic_error_mean"], math.sqrt(math.pi) / 2, rel_tol=0.05)


def test_bad_input_is_told(rows):
    good = torch.zeros(3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="kappa: expected positive"):
        gps(torch.zeros(2), kappa=0)
    with pytest.raises(ValueError, match="misses: expected one of"):
        gps(torch.zeros(2), misses="drop")
    with pytest.raises(TypeError, match=r"mask: expected a torch\.bool"):
        mask_iou(torch.zeros(3, 3), good)
    with pytest.raises(ValueError, match="mask: expected shape"):
        mask_iou(good, good[:2])
    with pytest.raises(ValueError, match="predicted: expected shape"):
        pck(torch.zeros(2, 2), torch.zeros(3, 2), 1.0)
    with pytest.raises(ValueError, match="at least one annotated pixel"):
        pixel_scores(torch.zeros(3, 3).long(), good, torch.full((3, 3), -1), good, rows)
    with pytest.raises(ValueError, match="scores: expected those of at least one image"):
        mean_scores([])
    with pytest.raises(ValueError, match="pairs: expected indices"):
        mesh_error(torch.zeros(4, 2), torch.zeros(4, 2), torch.tensor([[9, 0]]), rows)
