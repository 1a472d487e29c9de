"""`geoframe render`: image sets of the zoo with exact truth."""

from __future__ import annotations

from pathlib import Path

from geoframe.cli._common import counted, progress_bar


def render(
    *,
    category: list[str],
    out: Path,
    n: int = 2000,
    size: int = 128,
    seed: int = 0,
    surface: str | None = None,
    vertices: int | None = None,
    pose: str | None = None,
    photos: Path | None = None,
    augmentation: float = 1.0,
    keep_vertices: bool = False,
) -> None:
    """Render pictures of the zoo, with what is true of every pixel, into a folder.

    Writes images/*.png, annotations.json (COCO-style, with points on surfaces), truth/*.npz (face and barycentric
    weights at every pixel, landmarks, cameras), surfaces/NAME, set.json, and sheet.png, a view of the first 48. The
    same options give the same pictures. A command that was interrupted goes on where it stopped when it is given
    again.

    Args:
        category: one or several animals or rigid categories; each picture shows one of them.
        out: folder, made if need be.
        n: number of pictures.
        size: pixels, 16 to 1024; pictures are square.
        seed: other seeds give other pictures.
        surface: an animal; all animals are told on its surface, so that one surface serves them all.
        vertices: vertices of the surfaces, about; default those that geoframe comes with, about 5,000.
        pose: name of a pose that all have, such as grazing; default all of them, as often as they are usual.
        photos: a folder of photographs for backgrounds.
        augmentation: strength of blur, noise, colours and JPEG; 0 for clean pictures.
        keep_vertices: also write the vertices of each picture in space.
    """
    from geoframe.data.rendered import render_set
    from geoframe.data.rendered_files import to_disk
    from geoframe.viz.surfaces import save_picture, sheet

    pictures = render_set(
        category,
        n,
        size=size,
        seed=seed,
        surface=surface,
        n_verts=vertices,
        pose=pose,
        photos=photos,
        augmentation=augmentation,
    )
    with progress_bar("rendering") as progress:
        made = to_disk(pictures, out, verts=keep_vertices, progress=progress)
    first = (made[range(min(n, 48))].image * 255).byte().movedim(1, -1).numpy()
    save_picture(sheet(list(first), columns=8), out / "sheet.png")
    kinds = ", ".join(
        f"{s.n_verts:,} vertices of {name}" for name, s in zip(category, made.surfaces(), strict=True)
    )
    print(f"{counted(n, 'picture')} of {size} x {size} pixels; {kinds}")
    print(f"wrote images, truth, surfaces, annotations.json and set.json to {out}")
