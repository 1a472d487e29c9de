"""NumPy arrays and lists wherever a tensor is: every public function of maps, transforms and spectra gives the same."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geoframe import maps, spectral, transforms
from geoframe.surface import Mesh
from geoframe.surface.shapes import ellipsoid, icosphere

F64 = torch.float64
MESH1 = ellipsoid((1.5, 1.0, 0.7), 2)
MESH2 = Mesh(MESH1.verts[:42] * torch.tensor([1.0, 1.2, 0.9], dtype=F64), icosphere(1).faces)
BASIS1, BASIS2 = spectral.eigenbasis(MESH1, 8, cache=False), spectral.eigenbasis(MESH2, 7, cache=False)
P2P_21 = torch.cdist(MESH2.verts, MESH1.verts).argmin(1)
P2P_12 = torch.cdist(MESH1.verts, MESH2.verts).argmin(1)
C_12 = maps.p2p_to_fmap(P2P_21, BASIS1, BASIS2)
PAIRS = torch.stack([P2P_21[::5], torch.arange(0, 42, 5)], 1)
F1 = MESH1.verts.square()
FACE, WEIGHTS = torch.arange(42), torch.full((42, 3), 1 / 3, dtype=F64)
TURN = transforms.random_rotations(3, generator=torch.Generator().manual_seed(0), dtype=F64)
POINTS = torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(1), dtype=F64)

CALLS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "BarycentricMap": (
        lambda *x: maps.BarycentricMap(*x, n_verts=162).apply(F1), (FACE, WEIGHTS, MESH1.faces[:42]), {}
    ),
    "BarycentricMap.apply": (maps.BarycentricMap(FACE, WEIGHTS, MESH1.faces[:42], 162).apply, (F1,), {}),
    "GeodesicDistortion": (maps.GeodesicDistortion(MESH1, MESH2, n=9), (P2P_21, P2P_12), {}),
    "coverage": (maps.coverage, (MESH1, P2P_21), {}),
    "cycle_error": (maps.cycle_error, (MESH2, P2P_21, P2P_12), {"vertices": torch.arange(9)}),
    "dirichlet_energy": (maps.dirichlet_energy, (MESH1, MESH2, P2P_21), {}),
    "error_auc": (maps.error_auc, (F1[:, 0],), {}),
    "error_curve": (maps.error_curve, (F1[:, 0], torch.linspace(0, 1, 5, dtype=F64)), {}),
    "flipped_triangles": (maps.flipped_triangles, (MESH1, MESH2, P2P_21), {}),
    "fmap_from_descriptors": (maps.fmap_from_descriptors, (F1, F1[P2P_21], BASIS1, BASIS2, 5), {}),
    "fmap_from_landmarks": (maps.fmap_from_landmarks, (PAIRS, BASIS1, BASIS2, 5), {}),
    "fmap_to_p2p": (maps.fmap_to_p2p, (C_12, BASIS1, BASIS2), {}),
    "geodesic_error": (maps.geodesic_error, (MESH1, P2P_21, PAIRS), {"method": "dijkstra"}),
    "landmark_coordinates": (maps.landmark_coordinates, (MESH1, PAIRS[:, 0]), {}),
    "match": (lambda *x: maps.match(*x, k=7).p2p_21, (MESH1, MESH2, PAIRS), {}),
    "match_both_ways": (lambda *x: maps.match_both_ways(*x, k=7)[1].p2p_21, (MESH1, MESH2, PAIRS), {}),
    "orthogonality": (maps.orthogonality, (C_12,), {}),
    "p2p_to_fmap": (maps.p2p_to_fmap, (P2P_21, BASIS1, BASIS2), {}),
    "precise_map": (lambda *x: maps.precise_map(*x).barycentric, (C_12, BASIS1, MESH1, BASIS2), {}),
    "shell_refine": (
        maps.shell_refine,
        (MESH1, MESH2, P2P_21, P2P_12, BASIS1, BASIS2),
        {"functions": (F1, F1[P2P_21]), "sizes": (4, 6)},
    ),
    "transfer_functions": (maps.transfer_functions, (F1, P2P_21), {}),
    "transfer_labels": (maps.transfer_labels, (P2P_12, P2P_21), {}),
    "transfer_landmarks": (maps.transfer_landmarks, (PAIRS[:, 0], P2P_21, MESH1, MESH2), {}),
    "transfer_spectral": (maps.transfer_spectral, (F1, C_12, BASIS1, BASIS2), {}),
    "transfer_uv": (
        lambda p2p: maps.transfer_uv(Mesh(MESH1.verts, MESH1.faces, uv=MESH1.verts[:, :2]), MESH2, p2p).uv,
        (P2P_21,), {},
    ),
    "zoomout": (
        lambda *x, **y: maps.zoomout(*x, **y).p2p_21,
        (C_12[:5, :5], BASIS1, BASIS2),
        {
            "samples": (torch.arange(162), torch.arange(42)), "landmarks": PAIRS,
            "bidirectional": True, "init_21": C_12[:5, :5].T,
        },
    ),
    "Eigenbasis": (lambda *x: spectral.Eigenbasis(*x).vecs, (BASIS1.vals, BASIS1.vecs, BASIS1.mass), {}),
    "hks": (spectral.hks, (BASIS1, torch.tensor([0.1, 0.3], dtype=F64)), {"landmarks": PAIRS[:, 0]}),
    "wks": (spectral.wks, (BASIS1, torch.tensor([0.1, 0.3], dtype=F64)), {"landmarks": PAIRS[:, 0]}),
    "Similarity": (transforms.Similarity(TURN[0], TURN[0, 0], TURN[0, 0, 0]), (POINTS,), {}),
    "check_rotation": (transforms.check_rotation, (TURN,), {"name": "R"}),
    "nearest_rotation": (transforms.nearest_rotation, (POINTS[:, :3],), {}),
    "procrustes": (transforms.procrustes, (POINTS, POINTS.flip(0)), {"weights": POINTS[..., 0].abs()}),
    "quaternion_to_rotation": (transforms.quaternion_to_rotation, (POINTS[:, :4, 0] / 2,), {}),
    "reflection": (transforms.reflection, (POINTS,), {}),
    "rotation_about_axis": (transforms.rotation_about_axis, (POINTS[..., 0], 1), {}),
    "rotation_angle": (transforms.rotation_angle, (TURN, TURN.flip(0)), {}),
    "rotation_from_direction": (transforms.rotation_from_direction, (POINTS[..., :2], 2), {}),
    "rotation_to_rotvec": (transforms.rotation_to_rotvec, (TURN,), {}),
    "rotvec_to_rotation": (transforms.rotvec_to_rotation, (POINTS,), {}),
    "sixd_to_rotation": (transforms.sixd_to_rotation, (POINTS[:, :6, 0],), {}),
    "skew": (transforms.skew, (POINTS,), {}),
}  # fmt: skip
WITHOUT_TENSORS = {"Match", "ZoomoutResult", "eigenbasis", "random_rotations"}


def _as(kind: Any, x: Any) -> Any:
    if isinstance(x, Tensor):
        return kind(x)
    return tuple(_as(kind, y) for y in x) if isinstance(x, tuple) else x


def _same(a: Any, b: Any) -> None:
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
    for x, y in pairs:
        torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_and_lists_give_what_tensors_give(name: str) -> None:
    call, args, options = CALLS[name]
    expected = call(*args, **options)
    for kind in (Tensor.numpy, Tensor.tolist):
        _same(call(*_as(kind, args), **{k: _as(kind, v) for k, v in options.items()}), expected)


def test_every_public_function_is_here() -> None:
    public = {
        n
        for module in (maps, spectral, transforms)
        for n, x in vars(module).items()
        if not n.startswith("_") and callable(x) and inspect.getmodule(x).__name__.startswith(module.__name__)  # type: ignore[union-attr]
    }
    assert public == CALLS.keys() - {"BarycentricMap.apply"} | WITHOUT_TENSORS


def test_batches_of_arrays_keep_their_dtype() -> None:
    R = TURN.numpy().astype(np.float32)
    assert transforms.rotation_angle(R).dtype == torch.float32
    assert maps.transfer_functions(F1.float().numpy(), P2P_21.numpy()).dtype == torch.float32
