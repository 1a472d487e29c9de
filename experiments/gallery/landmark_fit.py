"""A cat brought to landmarks of another pose of it: ``python -m experiments.gallery.landmark_fit``.

Needs GEOFRAME_DATA (two poses of one real cat). Writes out/gallery/landmark_fit.png: the template's rigid pose, the
bent template, and the cat that the landmarks were taken from; lines lead from the template to the points.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import torch

from experiments.bench._harness import data_folder
from geoframe.camera import WeakPerspective
from geoframe.fitting import fit_points
from geoframe.render import render
from geoframe.surface import Mesh, farthest_points, load
from geoframe.transforms import rotvec_to_rotation

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIZE = (420, 480)


def main() -> int:
    folder = data_folder()
    if folder is None:
        print("set GEOFRAME_DATA to the folder of real data", file=sys.stderr)
        return 2
    start, other = load(folder / "animals/cat_lion/cat-00.off"), load(folder / "animals/poses/cat-03.off")
    assert isinstance(start, Mesh) and isinstance(other, Mesh)
    start, other = start.to(torch.float64), other.to(torch.float64)
    upright = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=torch.float64)  # y up in the files
    R = rotvec_to_rotation(torch.tensor([0.25, 0, 0], dtype=torch.float64)) @ upright
    R = R @ rotvec_to_rotation(torch.tensor([0, 1.1, 0], dtype=torch.float64))
    flat = other.verts @ R[:2].T
    scale = 0.85 * min(
        SIZE[1] / float(flat[:, 0].max() - flat[:, 0].min()),
        SIZE[0] / float(flat[:, 1].max() - flat[:, 1].min()),
    )
    t = torch.tensor([SIZE[1] / 2, SIZE[0] / 2]).double() - scale * (flat.amax(0) + flat.amin(0)) / 2
    truth = WeakPerspective(R, t, torch.tensor(scale, dtype=torch.float64), SIZE)
    ids = farthest_points(start, 80)
    points = truth.project(other.verts)[ids, :2]
    seen = other.vertex_normals[ids] @ R[2] < 0
    fit = fit_points(start, points, seen.double(), vertices=ids)
    shown = (
        (f"rigid pose: {float(fit.rigid.residual):.1f} pixels", start, fit.rigid.camera(SIZE)),
        (f"pose and shape: {float(fit.pose.residual):.1f} pixels", fit.mesh, fit.pose.camera(SIZE)),
        (f"the cat of the {int(seen.sum())} landmarks", other, truth),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for axis, (title, mesh, camera) in zip(axes, shown, strict=True):
        axis.imshow(
            render(Mesh(mesh.verts, mesh.faces), camera).squeeze(0).movedim(0, -1).clamp(0, 1).numpy()
        )
        at = camera.project(mesh.verts)[ids, :2][seen]
        for (x0, y0), (x1, y1) in zip(at.tolist(), points[seen].tolist(), strict=True):
            axis.plot([x0, x1], [y0, y1], color="tab:orange", linewidth=1.2)
        axis.scatter(*points[seen].T, s=10, color="tab:red", zorder=3)
        axis.set_title(title)
        axis.set(xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))
        axis.axis("off")
    out = Path("out/gallery/landmark_fit.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
