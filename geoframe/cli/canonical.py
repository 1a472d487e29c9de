"""`geoframe canonical`: a canonical surface from a mesh in any state."""

from __future__ import annotations

from pathlib import Path

from geoframe.cli._common import about, counted, load_mesh, progress_bar


def canonical(
    mesh: Path,
    /,
    *,
    out: Path,
    landmarks: Path | None = None,
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
        vertices: vertices wanted; a mesh within a tenth of it keeps its triangles.
        component: which component to keep, 0 the largest by area.
        fill_holes: close holes of at most this many edges; larger ones stay open, and are told.
    """
    from geoframe._files import staged_folder
    from geoframe.canonical import make_canonical
    from geoframe.surface import health, read_named_landmarks
    from geoframe.viz.canonical_page import draw_canonical, write_canonical_report
    from geoframe.viz.surfaces import save_picture

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
        progress("drawing", 0.9)
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
