"""The paper's figures 3, 4 and 5, and shapes with their keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from geoframe import metrics
from geoframe.data import CloudSet, misalign
from geoframe.keypoints import Detector
from geoframe.layers import turn_by
from geoframe.viz import save_picture
from geoframe.viz_clouds import draw_clouds, keypoint_colors
from geoframe.zoo import rigid


def draw_figures(
    detectors: Mapping[str, Detector], degrees: Mapping[str, float], ready: CloudSet, folder: Path
) -> None:
    """keypoints.png and figure3.png to figure5.png of detectors by name, each for clouds turned by its degrees.

    Args:
        ready: normalised clouds to test. folder: is made.
    """
    if not detectors:
        return
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(detectors.values()))
    shown = first.predict(ready.points[:12]).keypoints
    picture = draw_clouds([*ready.points[:12].numpy()], [*shown.numpy()], up=ready.up)
    save_picture(picture, folder / "keypoints.png")
    pairs = metrics.random_pairs(len(ready), 2000, seed=1)
    back, errors = {}, {}
    for name, detector in detectors.items():
        generator = torch.Generator().manual_seed(1)
        points, angle = misalign(ready.points, degrees[name], up=ready.up, generator=generator)
        R = turn_by(angle, ready.up)
        found = detector.predict(points).keypoints
        back[name] = found @ R
        errors[name] = metrics.relative_rotation_error(found, R, pairs, up=ready.up).numpy()
    _figure_3(back, ready.up, folder / "figure3.png")
    _figure_5(errors, folder / "figure5.png")
    if ready.labels is not None:
        _figure_4(next(iter(back.values())), ready, first.category, folder / "figure4.png")


def _figure_3(back: Mapping[str, torch.Tensor], up: int, path: Path) -> None:
    """The keypoints of all shapes over each other, after undoing the known turns."""
    clouds = [k.flatten(0, 1).numpy() for k in back.values()]
    colors = [np.tile(keypoint_colors(k.shape[1]), (len(k), 1)) for k in back.values()]
    picture = draw_clouds(clouds, up=up, colors=colors, titles=list(back), columns=3, size=420)
    save_picture(picture, path)


def _figure_4(back: torch.Tensor, ready: CloudSet, category: str, path: Path) -> None:
    """Which part every keypoint lies on, over the shapes."""
    from matplotlib.figure import Figure

    assert ready.labels is not None
    matrix, number = metrics.semantic_consistency(back, ready.points, ready.labels)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    parts = rigid.part_names(category)[: matrix.shape[1]]
    axes.set_xticks(range(len(parts)), [p.replace("_", " ") for p in parts], rotation=60, ha="right")
    axes.set_yticks(range(len(matrix)))
    axes.set(ylabel="keypoint", title=f"semantic consistency {number:.0f} %")
    figure.colorbar(image, label="share of the shapes")
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
