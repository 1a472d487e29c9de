"""`geoframe canonical`: a canonical surface from a mesh in any state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoframe.cli._common import about, counted, load_mesh, progress_bar

if TYPE_CHECKING:
    from geoframe.canonical.surface import Surface


def _with_landmarks(surface: Surface) -> Surface:
    """The surface with the landmarks that were found on it, and a note of how sure they are."""
    from geoframe.landmarking import predict_landmarks

    found = predict_landmarks(surface)
    if found.known < 0.5:
        told = f"no landmarks named: a human or an animal with a chance of {found.known:.2f} only"
        return surface.described(notes=(*surface.notes, told))
    sure = found.surest()
    chance = dict(zip(found.names, found.confidence.tolist(), strict=True))
    doubtful = [f"{name} ({chance[name]:.2f})" for name in found.names if name not in sure]
    told = (
        f"landmarks named: {len(sure)} of {len(found.names)}, kind known with a chance of {found.known:.2f}"
    )
    if sure:
        told += f", confidence {min(chance[n] for n in sure):.2f} to {max(chance[n] for n in sure):.2f}"
    if doubtful:
        told += f"; left out as doubtful: {', '.join(doubtful)}"
    return surface.described(landmarks=sure, notes=(*surface.notes, told))


def canonical(
    mesh: Path,
    /,
    *,
    out: Path,
    landmarks: Path | None = None,
    name_landmarks: bool = False,
    vertices: int = 5000,
    component: int = 0,
    fill_holes: int = 64,
) -> None:
    """Make a canonical surface of a mesh in any state: a folder that the other commands take as a mesh.

    Mends the mesh, keeps one component, remeshes it to the size, computes eigenbasis, geodesics and symmetry, and
    carries the landmarks over. Writes surface.obj, surface.json, surface.npz, canonical.png and report.html.

    Args:
        mesh: OBJ, OFF, PLY, STL, GLB or glTF file, or a folder made by this command.
        out: folder for the five files; made if need be, written only when all is done.
        landmarks: JSON file {"name": vertex of MESH, ...}, vertices counted from 0.
        name_landmarks: find and name the landmarks of a human or an animal, where no file gives them; those of
            confidence 0.5 and more are kept, and what was found is told.
        vertices: vertices wanted; a mesh within a tenth of it keeps its triangles.
        component: which component to keep, 0 the largest by area.
        fill_holes: close holes of at most this many edges; larger ones stay open, and are told.
    """
    from geoframe._files import staged_folder
    from geoframe.canonical import make_canonical
    from geoframe.surface import health, read_named_landmarks
    from geoframe.viz.canonical_page import draw_canonical, write_canonical_report
    from geoframe.viz.surfaces import save_picture

    if name_landmarks and landmarks is not None:
        raise ValueError("--name-landmarks: expected no --landmarks beside it; leave one of them out")
    loaded = load_mesh(mesh)
    named = None if landmarks is None else read_named_landmarks(landmarks)
    with staged_folder(out) as folder, progress_bar("canonical surface") as progress:
        with about(mesh):
            surface = make_canonical(
                loaded,
                named,
                n_verts=vertices,
                component=component,
                fill_holes=fill_holes,
                progress=lambda step, done: progress(step, 0.9 * done),
            )
        if name_landmarks:
            progress("landmarks", 0.9)
            surface = _with_landmarks(surface)
        progress("drawing", 0.92)
        told = {"made_from": mesh.name, "vertices_wanted": vertices, "fill_holes": fill_holes}
        surface.write(folder, about={**told, "component": component})
        picture = draw_canonical(loaded, surface)
        save_picture(picture, folder / "canonical.png")
        write_canonical_report(folder / "report.html", loaded, surface, picture, name=mesh.stem)
    for note in surface.notes:
        print(f"- {note}")
    found = health(surface)
    print(
        f"{found.n_verts:,} vertices, {found.n_faces:,} faces, "
        f"{'closed' if found.is_closed else counted(len(found.boundary_loops), 'boundary loop')}, genus {found.genus}, "
        f"{surface.k} eigenfunctions, {counted(len(surface.landmarks), 'landmark')}"
    )
    print(
        f"wrote {', '.join(sorted(('surface.obj', 'surface.json', 'surface.npz', 'canonical.png')))} "
        f"and report.html to {out}"
    )
