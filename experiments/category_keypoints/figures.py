"""The paper's figures 3, 4 and 5, and shapes with their keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from geoframe import metrics
from geoframe.data import CloudSet
from geoframe.viz.clouds import draw_clouds, keypoint_colors
from geoframe.viz.surfaces import save_picture
from geoframe.zoo import rigid


def draw_figures(back: Mapping[str, torch.Tensor], category: str, ready: CloudSet, folder: Path) -> None:
    """keypoints.png and figure3.png to figure5.png.

    Args:
        back: by variant, keypoints (n, K, 3) found on rotated clouds, after undoing the known rotations; NaN where an
            order-free keypoint is not found. The first one is drawn on the clouds.
        ready: normalised clouds to test. folder: is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(back.values()))
    picture = draw_clouds([*ready.points[:12].numpy()], [*first[:12].numpy()], up=ready.up)
    save_picture(picture, folder / "keypoints.png")
    _figure_3(back, ready.up, folder / "figure3.png")
    if len(ready) > 1:
        pairs = metrics.random_pairs(len(ready), 2000, seed=1)
        still = torch.eye(3).expand(len(ready), 3, 3)
        ordered = {name: k for name, k in back.items() if not bool(k.isnan().any())}
        errors = {
            name: metrics.relative_rotation_error(k, still, pairs, up=ready.up).numpy()
            for name, k in ordered.items()
        }
        _figure_5(errors, folder / "figure5.png")
    if ready.labels is not None:
        _figure_4(back, ready, category, folder / "figure4.png")


def _figure_3(back: Mapping[str, torch.Tensor], up: int, path: Path) -> None:
    """The keypoints of all shapes over each other, after undoing the known rotations."""
    clouds, colors = [], []
    for k in back.values():
        known = ~k.isnan().any(-1)
        clouds.append(k[known].numpy())
        colors.append(np.tile(keypoint_colors(k.shape[1]), (len(k), 1))[known.flatten().numpy()])
    picture = draw_clouds(clouds, up=up, colors=colors, titles=list(back), columns=3, size=420)
    save_picture(picture, path)


def _figure_4(back: Mapping[str, torch.Tensor], ready: CloudSet, category: str, path: Path) -> None:
    """Which part every keypoint lies on, over the shapes where it is found."""
    from matplotlib.figure import Figure

    assert ready.labels is not None
    figure = Figure(figsize=(1 + 4.5 * len(back), 5), layout="constrained")
    for axes, (name, keypoints) in zip(
        figure.subplots(1, len(back), squeeze=False)[0], back.items(), strict=True
    ):
        matrix, number = metrics.semantic_consistency(keypoints, ready.points, ready.labels)
        image = axes.imshow(matrix.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        parts = rigid.part_names(category)[: matrix.shape[1]]
        axes.set_xticks(range(len(parts)), [p.replace("_", " ") for p in parts], rotation=60, ha="right")
        axes.set_yticks(range(len(matrix)))
        axes.set(ylabel="keypoint", title=f"{name}: {number:.0f} %")
    figure.colorbar(image, label="share of the shapes")
    figure.suptitle("semantic consistency")
    figure.savefig(path, dpi=130)


def _figure_5(errors: Mapping[str, np.ndarray], path: Path) -> None:
    """Share of the pairs below an error of registration about the vertical."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, error in errors.items():
        axes.plot(np.sort(error), np.linspace(0, 100, len(error)), label=name)
    axes.set(xlim=(0, 20), ylim=(0, 100), xlabel="rotation error, degrees", ylabel="pairs below, %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
