"""`geoframe match`: a map between two surfaces, measured and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geoframe.cli._common import (
    about,
    given,
    progress_bar,
    read_pairs,
    save_json,
    shared_landmarks,
    slow_imports,
    warn,
)


def match(
    source: Path,
    target: Path,
    /,
    *,
    out: Path,
    landmarks: Path | None = None,
    ground_truth: Path | None = None,
    k: int | None = None,
) -> None:
    """Map one surface to another: map.npz, metrics.json, match.png and report.html.

    p2p_21 in map.npz gives, for every vertex of TARGET, a vertex of SOURCE; C_12 sends functions on SOURCE to
    functions on TARGET. Measures are relative to the square root of a surface's area.

    Args:
        source: mesh file of surface 1, or a folder of `geoframe canonical`; or a file of points (PLY, PCD, XYZ, ...),
            which get triangles between neighbours.
        target: mesh or points of surface 2, likewise.
        out: folder for the four files; made if need be, written only when all is done.
        landmarks: text file with a pair "source_vertex target_vertex" a line, vertices counted from 0; or JSON, a
            list [[source_vertex, target_vertex], ...] or {"pairs": that list}; or a folder with <mesh>.json files
            {"name": vertex, ...}, paired by name. Without it the names that two canonical folders share are taken.
        ground_truth: pairs in the same format to judge the map by; adds the geodesic error on SOURCE, from the
            vertex found to the true one, to metrics.json.
        k: number of eigenfunctions of the final map.
    """
    with slow_imports():
        from geoframe import maps
        from geoframe._check import check_index
        from geoframe._files import staged_folder
        from geoframe.maps.clouds import load_matched
        from geoframe.surface import check_landmarks
        from geoframe.viz.match_page import write_report
        from geoframe.viz.surfaces import draw_match, save_picture

    mesh1, mesh2 = load_matched(source), load_matched(target)
    sizes = (mesh1.n_verts, mesh2.n_verts)
    truth = None
    pairs = shared_landmarks(source, target) if landmarks is None else read_pairs(landmarks, source, target)
    if pairs is not None:
        with about(landmarks or source):
            check_landmarks(pairs, *sizes)
    if ground_truth is not None:
        truth = read_pairs(ground_truth, source, target)
        with about(ground_truth):
            check_index(truth[:, 0], sizes[0], "source vertices", what="vertices")
            check_index(truth[:, 1], sizes[1], "target vertices", what="vertices")
        _exact_or_dijkstra(mesh1)  # what is missing to measure is told before the work
    names = (source.stem, target.stem) if source.stem != target.stem else (str(source), str(target))
    titles = (f"{names[0]} · {sizes[0]:,} vertices", f"{names[1]} · {sizes[1]:,} vertices")
    with staged_folder(out) as folder, progress_bar("matching") as progress:
        found = maps.match(mesh1, mesh2, pairs, progress=progress, **given(k=k))
        progress("measuring", 1.0)
        numbers, curves = _measure(mesh1, mesh2, found, truth)
        progress("drawing", 1.0)
        _save_map(found, folder / "map.npz")
        described: dict[str, Any] = {
            "source": names[0],
            "target": names[1],
            "n_vertices": sizes,
            "settings": found.settings,
        }
        described |= {"candidates": found.candidates, "n_landmarks": 0 if pairs is None else len(pairs)}
        described |= {"verdict": found.verdict, "warnings": list(found.warnings)}
        save_json({**described, **numbers, **curves}, folder / "metrics.json")
        picture = draw_match(mesh1, mesh2, found.p2p_21, landmarks=found.landmarks, titles=titles)
        save_picture(picture, folder / "match.png")
        write_report(folder / "report.html", mesh1, mesh2, found, names=names, measures={**numbers, **curves})
    for warning in found.warnings:
        warn(warning)
    for name, value in numbers.items():
        print(f"{name:28s} {value:.4f}")
    print(f"{'verdict':28s} {found.verdict}")
    print(f"wrote map.npz, metrics.json, match.png and report.html to {out}")


def _measure(mesh1: Any, mesh2: Any, found: Any, truth: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers and curves that say how good the map is: the energies of `match`, and the error against `truth`."""
    numbers = {name: float(value) for name, value in found.energies.items()}
    numbers["confidence"] = float(found.confidence)
    if truth is None:
        return numbers, {}
    import torch

    from geoframe.surface.geodesics import geodesic_pairs

    method = _exact_or_dijkstra(mesh1)
    predicted = found.p2p_21[truth[:, 1]]
    errors = geodesic_pairs(mesh1, predicted, truth[:, 0], method=method) / mesh1.area.sqrt()
    thresholds = torch.linspace(0, max(0.1, float(errors.max())), 101, dtype=errors.dtype)
    share = (errors[None] <= thresholds[:, None]).double().mean(1)
    numbers |= {"geodesic_error_mean": float(errors.mean()), "geodesic_error_max": float(errors.max())}
    curve = {"threshold": thresholds.tolist(), "share": share.tolist(), "distances": method}
    return numbers, {"geodesic_error_curve": curve}


def _exact_or_dijkstra(mesh: Any) -> str:
    """Exact distances where they are defined, on manifold meshes; heat is no choice, it is off at short range."""
    from geoframe._optional import require
    from geoframe.surface import health

    if not health(mesh).is_manifold:
        return "dijkstra"
    require("pygeodesic.geodesic", extra="geometry")
    return "exact"


def _save_map(found: Any, path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        arrays = {name: getattr(found, name).cpu().numpy() for name in ("p2p_21", "p2p_12", "C_12", "C_21")}
        np.savez_compressed(file, **arrays)
