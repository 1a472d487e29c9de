"""`geoframe compile`: all compiled loops once, so that no later command waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable


def compile_loops(*, jobs: int | None = None) -> None:
    """Compile all loops now, so that no later command waits for it: once after an installation.

    Loops are compiled when they are first used, and kept on disk. Each is used here on a small example, which also
    shows that the installation works.

    Args:
        jobs: processes; by default one a core.
    """
    import os
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    from geoframe._check import check_int

    jobs = check_int(os.cpu_count() or 1 if jobs is None else jobs, "jobs", low=1)
    start = time.perf_counter()
    with ProcessPoolExecutor(min(jobs, len(EXAMPLES)), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(use): name for name, use in EXAMPLES.items()}
        for done in as_completed(running):
            done.result()
            print(f"{running[done]}: ready after {time.perf_counter() - start:.0f} s", flush=True)


def _poses() -> None:
    """Rigid and deformable, of given and of free scale."""
    import torch

    from geoframe.solve import solve_pose

    verts = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    points = verts[None, :, :2].repeat(2, 1, 1)
    solve_pose(points, None, verts, 0.1 * verts.flip(1)[None])
    solve_pose(points, None, verts, scale="free", mode="joint")


def _pictures() -> None:
    """Hard and soft, with the gradients of both, a lit surface, and outlines."""
    import torch

    from geoframe.fitting.outlines import MaskOutlines, outline_moves
    from geoframe.render import rasterize, shade, soft_silhouette
    from geoframe.surface import Mesh
    from geoframe.viz import draw_surface

    screen = torch.tensor([[4, 4, 1], [28, 6, 1], [8, 28, 1], [20, 20, 2.0]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    fragments = rasterize(screen, faces, (32, 32))
    shade(fragments, screen).sum().backward()
    soft_silhouette(screen, faces, (32, 32)).sum().backward()
    draw_surface(Mesh(screen.detach(), faces), size=(16, 16))
    mask = fragments.mask[None]
    outline_moves(screen.detach()[None, :, :2], mask, MaskOutlines.of(mask), reach=6.0)


def _image_sets() -> None:
    """An animal, a person, a thing, and two pictures with the motion between them."""
    from geoframe.data.rendered import render_set

    for category in ("dog", "human", "car"):
        pictures = render_set(category, 6, size=32)
        pictures.pairs(range(6))


def _surfaces() -> None:
    """A map, named landmarks, normals of several poses, closest points, neighbours of many dimensions."""
    import torch

    from geoframe._templates import template, template_landmarks
    from geoframe.landmarking import predict_landmarks
    from geoframe.maps import match
    from geoframe.nearest import nearest_coherent
    from geoframe.surface import Mesh, pair_landmarks
    from geoframe.surface.closest import TriangleTree, closest_weights

    dog, horse = template("dog"), template("horse")
    verts = dog.verts.numpy()
    tree = TriangleTree(verts, dog.faces.numpy())
    closest_weights(verts[:2], tree.corners[tree.closest(verts[:2])[0]])
    match(dog, horse, pair_landmarks(template_landmarks("dog"), template_landmarks("horse")), k=60)
    predict_landmarks(dog)
    _ = Mesh(dog.verts[None].float(), dog.faces).vertex_normals
    made = torch.Generator().manual_seed(0)
    nearest_coherent(*(torch.randn(4000, 8, generator=made) for _ in range(2)))


def _clouds() -> None:
    """Keypoints of two chairs."""
    import torch

    from geoframe.models.category_keypoints import load
    from geoframe.placing import CATEGORY_MODELS

    made = torch.Generator().manual_seed(0)
    load(CATEGORY_MODELS / "chair").predict(torch.rand(2, 1024, 3, generator=made))


def _flow() -> None:
    """Matches and flow of two images, of scores in 16 bits and in 32."""
    import torch

    from geoframe.models.deep_matching import match_images

    image = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    for half in (True, False):
        match_images(image, image.roll(2, 2), half=half)


EXAMPLES: dict[str, Callable[[], None]] = {
    "poses": _poses,
    "surfaces": _surfaces,
    "image sets": _image_sets,
    "pictures": _pictures,
    "clouds": _clouds,
    "flow": _flow,
}
