"""The rasterizer and the soft silhouette beside pytorch3d: 256x256 pixels, spheres of 1,280 to 20,480 faces.

python -m experiments.bench.raster [--json FILE] [--case CASE ...]

pytorch3d has no build for the CPU on PyPI. Where it is not installed, the peer's seconds are those recorded with
0.7.9 built for the CPU (2 threads, sigma 1e-4, 50 faces a pixel), and the row says so.

hard-5120x1         face ids, barycentric coordinates and depth, no gradient
soft-bwd-5120x1     soft silhouette, forward and backward
soft-bwd-5120x8     the same for a batch of 8
soft-bwd-20480x1    the same for 20,480 faces
torch-...           the backend in plain torch
pixels-...          ours only: 512 x 512 and 1024 x 1024
shade-5120x1        colours with gradients at outlines (ours) and of pixel centres alone (peer), forward and backward
set-64              a picture of 64 x 64 of a textured, lit animal of 5,000 vertices over a photograph, with fragments:
                    seconds a picture, in batches of 64; the note has pictures a second and core
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from experiments.bench._harness import Row, compare, installed, main, measure, peer_label
from geoframe import template
from geoframe.camera import Camera, pinhole_view, to_pytorch3d
from geoframe.render import paint, rasterize, shade, soft_silhouette
from geoframe.surface import Mesh
from geoframe.surface.shapes import icosphere

SIGMA, FACES_A_PIXEL = 1e-4, 50
RECORDED = {  # seconds of pytorch3d 0.7.9 on the CPU, 2 threads
    "hard-5120x1": 1.16,
    "soft-bwd-1280x1": 9.7,
    "soft-bwd-5120x1": 26.0,
    "soft-bwd-5120x8": 211.0,
    "soft-bwd-20480x1": 69.0,
}


def scene(level: int, batch: int, size: int = 256) -> tuple[Tensor, Tensor, Camera]:
    """A sphere that fills seven tenths of the picture, slightly bumpy so that nothing lines up."""
    mesh = icosphere(level).to(torch.float32)
    g = torch.Generator().manual_seed(0)
    verts = mesh.verts * (1 + 0.02 * torch.randn(batch, mesh.n_verts, 1, generator=g))
    view = pinhole_view(torch.tensor([1.0, 0.6, 2.5]), (size, size), fov=61.0)
    return verts, mesh.faces, view


def soft_both(verts: Tensor, faces: Tensor, view: Camera, backend: str | None = None) -> Tensor:
    """Gradient of the sum of the soft silhouette."""
    verts = verts.detach().requires_grad_()
    alpha = soft_silhouette(verts, faces, view, sigma=SIGMA, backend=backend)
    return torch.autograd.grad(alpha.sum(), verts)[0]


def case(
    name: str, level: int, batch: int = 1, *, soft: bool, backend: str | None = None, size: int = 256
) -> Callable[[], list[Row]]:
    """A function that runs one comparison."""

    def run() -> list[Row]:
        verts, faces, view = scene(level, batch, size)

        def ours() -> Any:
            if soft:
                return soft_both(verts, faces, view, backend)
            with torch.no_grad():
                return rasterize(verts, faces, view, backend=backend)

        peer, label = None, "pytorch3d"
        if installed("pytorch3d._C") if installed("pytorch3d") else False:
            peer, label = peer_of(verts, faces, view, soft), peer_label("pytorch3d")
        if peer is not None:
            return [compare(name, ours, peer, peer_name=label, repeats=3)]
        timing = measure(ours, warmup=2, repeats=9)
        recorded = RECORDED.get(name.removeprefix("torch-"))
        ratio = None if recorded is None else recorded / timing.median
        note = f"spread {timing.spread:.2g} s" + ("" if recorded is None else "; peer not run here: recorded")
        peer_name = "" if recorded is None else "pytorch3d 0.7.9 CPU"
        return [Row(name, timing.median, recorded, ratio, peer_name, note)]

    return run


def peer_of(verts: Tensor, faces: Tensor, view: Camera, soft: bool) -> Callable[[], Any]:
    """The same work done by pytorch3d."""
    import math

    from pytorch3d.renderer import PerspectiveCameras, rasterize_meshes
    from pytorch3d.structures import Meshes

    R, T, focal, principal = to_pytorch3d(view)  # type: ignore[arg-type]
    cameras = PerspectiveCameras(
        R=R[None], T=T[None], focal_length=focal[None], principal_point=principal[None]
    )
    blur = math.log(1 / 1e-4 - 1) * SIGMA if soft else 0.0

    def run() -> Any:
        points = verts.detach().requires_grad_(soft)
        seen = cameras.get_world_to_view_transform().transform_points(points)
        ndc = cameras.transform_points_ndc(points)
        meshes = Meshes(torch.cat([ndc[..., :2], seen[..., 2:]], -1), faces.expand(len(points), *faces.shape))
        options = {"blur_radius": blur, "faces_per_pixel": FACES_A_PIXEL if soft else 1}
        owner, _, _, distance = rasterize_meshes(meshes, image_size=view.size, **options)
        if not soft:
            return owner
        cover = torch.sigmoid(-distance / SIGMA) * (owner >= 0)
        return torch.autograd.grad((1 - (1 - cover).prod(-1)).sum(), points)[0]

    return run


def shade_case() -> list[Row]:
    """What gradients at outlines cost: our own `shade` with and without them."""
    verts, faces, view = scene(4, 1)
    colors = torch.rand(verts.shape[-2], 3, generator=torch.Generator().manual_seed(0))

    def both(antialias: bool) -> Tensor:
        points = verts.detach().requires_grad_()
        picture = shade(rasterize(points, faces, view), colors, antialias=antialias)
        return torch.autograd.grad(picture.square().sum(), points)[0]

    return [
        compare(
            *("shade-5120x1", lambda: both(True), lambda: both(False)),
            peer_name="pixel centres only",
            warmup=2,
            repeats=9,
        )
    ]


def set_case() -> list[Row]:
    """Pictures for a training set, in processor seconds of one thread."""
    mesh = template("horse").to(torch.float32)
    low, high = mesh.verts.amin(0), mesh.verts.amax(0)
    verts = (mesh.verts - (low + high) / 2) / (high - low).max()
    g = torch.Generator().manual_seed(0)
    batch = 64
    mesh = Mesh(verts, mesh.faces, uv=verts[:, :2] + 0.5)
    poses = verts + 0.002 * torch.randn(batch, *verts.shape, generator=g)
    eyes = torch.nn.functional.normalize(torch.randn(batch, 3, generator=g), dim=1) * 2.2
    views = pinhole_view(eyes, (64, 64))
    texture = torch.rand(3, 256, 256, generator=g)
    photos = torch.rand(batch, 3, 64, 64, generator=g)

    @torch.no_grad()
    def pictures() -> Tensor:
        fragments = rasterize(poses, mesh.faces, views)
        return paint(fragments, mesh.with_verts(poses), views, texture=texture, background=photos)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pictures()
    seconds = []
    for _ in range(9):
        start = time.process_time()
        pictures()
        seconds.append((time.process_time() - start) / batch)
    torch.set_num_threads(threads)
    median = statistics.median(seconds)
    note = f"{1 / median:.0f} pictures a second and core (best {1 / min(seconds):.0f})"
    return [Row("set-64", median, None, None, "", note)]


CASES = {
    "hard-5120x1": case("hard-5120x1", 4, soft=False),
    "soft-bwd-1280x1": case("soft-bwd-1280x1", 3, soft=True),
    "soft-bwd-5120x1": case("soft-bwd-5120x1", 4, soft=True),
    "soft-bwd-5120x8": case("soft-bwd-5120x8", 4, 8, soft=True),
    "soft-bwd-20480x1": case("soft-bwd-20480x1", 5, soft=True),
    "torch-hard-5120x1": case("torch-hard-5120x1", 4, soft=False, backend="torch"),
    "torch-soft-bwd-5120x1": case("torch-soft-bwd-5120x1", 4, soft=True, backend="torch"),
    "pixels-512": case("pixels-512", 4, soft=True, size=512),
    "pixels-1024": case("pixels-1024", 4, soft=True, size=1024),
    "shade-5120x1": shade_case,
    "set-64": set_case,
}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
