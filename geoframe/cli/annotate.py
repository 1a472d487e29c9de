"""`geoframe embed annotate`: a page on which points of images are marked on a surface by hand."""

from __future__ import annotations

from pathlib import Path

from geoframe.cli._common import PartFailed, counted, load_mesh, warn


def annotate(
    surface: Path, images: Path, /, *, out: Path, points: Path | None = None, name: str = ""
) -> None:
    """Write a page for marking points of images on a surface; it opens offline and saves a JSON file.

    Click on the image and on the same place of the surface, or choose a landmark by name. Save the JSON beside the
    page: image names in it are relative to the page's folder.

    Args:
        surface: mesh file, or a folder of geoframe canonical, whose landmarks can then be chosen by name.
        images: an image, or a folder of images.
        out: the HTML file.
        points: JSON file that the page saved before, to go on from.
        name: how the surface is called in the JSON; by default the name of SURFACE.
    """
    from geoframe.canonical import Surface
    from geoframe.data.image_files import list_images, read_image, read_points
    from geoframe.viz.annotate_page import write_annotation_page

    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out: expected a name that ends in .html, found {out.name}")
    found = Surface.of(load_mesh(surface))
    files, bad = [], []
    for file in list_images(images) if images.is_dir() else [images]:
        try:
            read_image(file)
            files.append(file)
        except ValueError as err:
            bad.append(str(err))
    if not files:
        raise ValueError(bad[0])
    for line in bad:
        warn(line)
    start = None if points is None else read_points(points, found)
    write_annotation_page(out, found, files, name=name or surface.stem, start=start)
    print(f"wrote {out}: {counted(len(files), 'image')}; save the JSON beside it")
    if bad:
        raise PartFailed(f"{counted(len(bad), 'image')} left out, see above")
