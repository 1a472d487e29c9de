"""Deep matching with dense flow: time and memory of a pair of images, beside OpenCV's DIS.

python -m experiments.bench.deep_matching [--json FILE] [--case CASE ...]

Images are scenes of noise that move, so that no data is needed. The wanted figures are at most 6 s and 3 GB for 1024 x
436, and 0.15 s for 128 x 128, on two free cores. The note gives the median endpoint errors of both, and the memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.bench._harness import Row, compare, installed, main, peak_memory, peer_label
from geoframe.data.moving_scenes import Layer, moving_scene, random_motion
from geoframe.flow import dis_flow
from geoframe.flow.descriptors import smooth
from geoframe.models.deep_matching import match_images

PEER = peer_label("opencv-python-headless")


def case(width: int, height: int) -> Callable[[], list[Row]]:
    """A function that runs one size."""

    def run() -> list[Row]:
        size = (height, width)
        layers = [
            Layer(texture(size, 0), None, motion(size, 1)),
            Layer(texture(size, 2), disc(size), motion(size, 3)),
        ]
        scene = moving_scene(layers, size)
        _, megabytes = peak_memory(lambda: match_images(scene.image0, scene.image1))

        def check(ours: Tensor, theirs: Tensor | None) -> str:
            errors = [float((f - scene.flow).norm(dim=0).median()) for f in (ours, theirs) if f is not None]
            return "error " + " and ".join(f"{e:.3f}" for e in errors) + f" px, {megabytes:.0f} MiB"

        peer = (lambda: dis_flow(scene.image0, scene.image1)) if installed("cv2") else None
        name = f"{width}x{height}"
        return [
            compare(
                name,
                lambda: match_images(scene.image0, scene.image1).flow,
                peer,
                peer_name=PEER,
                check=check,
                repeats=3,
            )
        ]

    return run


def texture(size: tuple[int, int], seed: int) -> Tensor:
    """Smooth noise (3, H, W) in [0, 1]."""
    noise = smooth(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)), 1.5)[0]
    return (noise - noise.min()) / (noise.max() - noise.min())


def motion(size: tuple[int, int], seed: int):
    """A motion of a few percent of the size."""
    return random_motion(size, shift=0.02 * size[1], turn=2, zoom=0.02, bend=0.005 * size[1], seed=seed)


def disc(size: tuple[int, int]) -> Tensor:
    """A mask in the middle."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    return (x.square() + y.square() < 0.2).float()


CASES = {"128x128": case(128, 128), "1024x436": case(1024, 436)}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
