"""A template turned 40 degrees and deformed, found again from 8 silhouettes.

    python -m experiments.fit_template.run --out DIR [--quick] [--seed S] [--mesh NAME ...]

Meshes come from GEOFRAME_DATA/objects; without it our own cat and cow stand in. Writes results.json (flat names ->
numbers) and, for each mesh, NAME.png: the template over the masks before and after.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

import geoframe
from geoframe import Mesh
from geoframe._files import atomic_path
from geoframe.camera import pinhole_view
from geoframe.fitting.masks import TemplateFit, fit_template
from geoframe.render import rasterize
from geoframe.transforms import procrustes, rotation_angle, rotvec_to_rotation
from geoframe.viz.surfaces import save_picture

REAL = (
    *("spot_low_resolution", "fish_low_resolution", "cat-low-resolution", "human_man", "plane_holes"),
    *("human_woman", "penguin"),
)
OURS = ("cat", "cow")


def main() -> None:
    """Deform, render, fit, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one mesh, small pictures, few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mesh", action="append", help="only this mesh (may be repeated)")
    args = parser.parse_args()
    folder = os.environ.get("GEOFRAME_DATA")
    names = args.mesh or (REAL if folder else OURS)[: 1 if args.quick else None]
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, float] = {}
    for name in names:
        mesh = geoframe.load(Path(folder, "objects", f"{name}.obj")) if folder else geoframe.template(name)
        assert isinstance(mesh, Mesh)
        size, steps = ((128, 128), 25) if args.quick else ((256, 256), 60)
        start = time.perf_counter()
        fit, target, R = run(mesh, size, steps, args.seed, name)
        results |= {
            f"{name}.degrees": math.degrees(rotation_angle(fit.pose.R, R)),
            f"{name}.iou": float(fit.iou.mean()),
            f"{name}.worst_iou": float(fit.iou.min()),
            f"{name}.vertex_error": float((fit.mesh.verts - target).norm(dim=1).mean()),
            f"{name}.seconds": time.perf_counter() - start,
        }
        picture = (fit.picture().permute(1, 2, 0) * 255).byte().numpy()
        save_picture(picture, args.out / f"{name}.png")
        with atomic_path(args.out / "results.json") as temporary:  # after every mesh, as a run may be killed
            temporary.write_text(json.dumps(results, indent=1) + "\n")
        print("  ".join(f"{k} {v:.4g}" for k, v in results.items() if k.startswith(name)))


def run(
    mesh: Mesh, size: tuple[int, int], steps: int, seed: int, name: str
) -> tuple[TemplateFit, Tensor, Tensor]:
    """The fit, the true positions and the true rotation of one mesh, of radius 1 about the origin."""
    verts = mesh.verts.double() - (mesh.verts.amax(0) + mesh.verts.amin(0)).double() / 2
    mesh = Mesh(verts / verts.norm(dim=1).max(), mesh.faces)
    target, R = deformed(mesh.verts, 40.0, seed)
    turn, lift = torch.arange(8) * math.pi / 4, torch.tensor([0.1, 0.6] * 4)
    eye = 2.9 * torch.stack([turn.sin() * lift.cos(), lift.sin(), turn.cos() * lift.cos()], 1).double()
    views = pinhole_view(eye, size, fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    with Progress() as bars:
        bar = bars.add_task(name, total=None)
        fit = fit_template(
            mesh, masks, views, steps=steps, progress=lambda i, n, _: bars.update(bar, completed=i, total=n)
        )
    return fit, target, R


def deformed(verts: Tensor, degrees: float, seed: int) -> tuple[Tensor, Tensor]:
    """Stretched, bent, turned, grown by a tenth and moved; the deformation by itself turns nothing."""
    g = torch.Generator().manual_seed(seed)
    stretch = 1 + 0.12 * (2 * torch.rand(3, generator=g).double() - 1)
    x, y = verts[:, 0], verts[:, 1]
    bend = torch.stack([torch.sin(2.2 * y + 0.3), 0 * x, torch.cos(1.7 * x) - 0.8], 1)
    bent = verts * stretch + 0.12 * bend
    net = procrustes(verts, bent)
    bent = (bent - net.t) @ net.R
    axis = torch.nn.functional.normalize(torch.randn(3, generator=g).double(), dim=0)
    R = rotvec_to_rotation(math.radians(degrees) * axis)
    return 1.1 * bent @ R.T + 0.1 * torch.randn(3, generator=g).double(), R


if __name__ == "__main__":
    main()
