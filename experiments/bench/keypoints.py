"""Category keypoints: shapes a second, and what 200 epochs of training take, beside the figures to be reached.

python -m experiments.bench.keypoints [--json FILE] [--case CASE ...]

score-1024x192         keypoints, scores and warnings of 192 clouds of 1,024 points, of any position and size, by the
                       chair model of the package, which trusts them; 300 a second on two cores
predict-1024x192       the same by a network that was not calibrated: keypoints only
normalised-1024x192    the same of clouds that are normalised already
train-889x200          200 epochs on 889 shapes, from the median of 20 steps; 30 minutes

The clouds are procedural chairs; but for the first row weights are random, which has no part in the time. There is no
peer to run beside; the peer's seconds are the limit, and the row says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from experiments.bench._harness import Row, main, measure
from geoframe.data import CloudBatches, CloudSet, load_clouds, rotate_randomly
from geoframe.models.category_keypoints import OURS, CategoryKeypoints, Predictor, load

SHAPES, SHAPES_A_SECOND = 192, 300
TRAIN_SHAPES, EPOCHS, TRAIN_SECONDS = 889, 200, 30 * 60


def scene() -> tuple[CategoryKeypoints, CloudSet]:
    """A network that has seen the clouds, and 64 chairs rotated by up to 45 degrees."""
    clouds = load_clouds("procedural", "chair", limit=64).normalised()
    model = CategoryKeypoints(up=clouds.up, **OURS.settings)
    rotated, _ = rotate_randomly(clouds.points, 45, up=clouds.up, generator=torch.Generator().manual_seed(0))
    model.prepare(rotated)
    return model, replace(clouds, points=rotated)


def inference(name: str, method: str) -> list[Row]:
    """Seconds for all shapes by random weights."""
    model, clouds = scene()
    K = model.basis.n_keypoints
    predictor = Predictor(model.eval(), "chair", torch.arange(K), torch.zeros(K, 3))
    return timed(name, getattr(predictor, method), clouds.points)


def scored(name: str) -> list[Row]:
    """Seconds for clouds that a calibrated model trusts."""
    predictor, clouds = load("chair"), scene()[1].points
    trusted = clouds[predictor.predict(clouds).score >= predictor.limit]
    return timed(name, predictor.predict, trusted)


def timed(name: str, method: Callable[[Tensor], object], clouds: Tensor) -> list[Row]:
    """Seconds for all shapes."""
    points = clouds[torch.arange(SHAPES) % len(clouds)]
    timing = measure(lambda: method(points), warmup=1, repeats=7)
    limit = SHAPES / SHAPES_A_SECOND
    note = f"{SHAPES / timing.median:.0f} shapes a second, spread {timing.spread:.2g} s"
    return [
        Row(name, timing.median, limit, limit / timing.median, f"limit, {SHAPES_A_SECOND} a second", note)
    ]


def training(name: str) -> list[Row]:
    """Seconds of all epochs, from the median step."""
    model, clouds = scene()
    plan = OURS.batches
    batches = CloudBatches(
        clouds, batch_size=plan.size, n_seen=plan.n_seen, missing=plan.missing, noise=plan.noise
    )
    losses, optimiser = OURS.losses, torch.optim.Adam(model.train().parameters(), 1e-3)
    drawn = [batch for epoch in range(2) for batch in batches(epoch)]

    def step() -> None:
        batch = drawn[0]
        drawn.append(drawn.pop(0))
        loss = torch.stack(list(losses(model, batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    timing = measure(step, warmup=2, repeats=20)
    steps = EPOCHS * math.floor(TRAIN_SHAPES / plan.size)
    seconds = steps * timing.median
    note = f"{timing.median:.3f} s a step, {steps} steps: {seconds / 60:.1f} minutes"
    return [Row(name, seconds, TRAIN_SECONDS, TRAIN_SECONDS / seconds, "limit, 30 minutes", note)]


CASES = {
    "score-1024x192": lambda: scored("score-1024x192"),
    "predict-1024x192": lambda: inference("predict-1024x192", "predict"),
    "normalised-1024x192": lambda: inference("normalised-1024x192", "predict_normalised"),
    "train-889x200": lambda: training("train-889x200"),
}

if __name__ == "__main__":
    main(__doc__, CASES)
