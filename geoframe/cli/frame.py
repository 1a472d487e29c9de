"""`geoframe frame train`: learn an object frame from a folder of images; what else it can do is in `landmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def train(
    *,
    data: Path,
    out: Path,
    recipe: Literal["geoframe", "dense", "symmetric", "compressed"] = "geoframe",
    group: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    backbone: str | None = None,
    crop: Literal["whole", "centre", "box", "landmarks"] = "whole",
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
) -> None:
    """Learn an object frame from images of a category, without labels; a run that was killed goes on.

    OUT gets model.safetensors and model.json, log.csv, the same for TensorBoard, and the state to go on from. Images
    that cannot be read are told and left out.

    Args:
        data: a folder of images, or the root of CelebA, AFLW or 300-W; landmarks, if there are any, are not used.
        out: folder for the model.
        recipe: geoframe is ours; dense, symmetric and compressed are chapters 5, 6 and 7 of the thesis.
        group: none, mirror or rotation-N; by default the recipe's.
        minutes: budget of time; by default the recipe's number of steps.
        steps: number of steps.
        backbone: of recipe geoframe: small, efficientnet-lite0 or auto:FOLDER.
        crop: how images become squares; landmarks crops by them, which then is no longer unsupervised.
        seed: of everything random.
        devices: GPUs, or processes on the CPU.
        accelerator: cpu, cuda, mps or auto.
    """
    from dataclasses import replace

    from geoframe.cli._points import lasting, learn
    from geoframe.models import object_frame

    plan = object_frame.RECIPES[recipe]
    if backbone is not None:
        if recipe != "geoframe":
            raise ValueError(f"--backbone: expected only with --recipe geoframe, found {recipe}")
        plan = replace(plan, settings={**plan.settings, "backbone": backbone})
    if group is not None:
        plan = replace(plan, group=group)
    plan = lasting(plan, minutes, steps)
    learn(object_frame, data, out, plan, crop=crop, seed=seed, devices=devices, accelerator=accelerator)
