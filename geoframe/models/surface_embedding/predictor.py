"""Surface embeddings in use: train on rendered or annotated pictures, predict pixel maps, describe, compare.

predictor = load()                                # the one that geoframe comes with
horse = predictor.predict(read_image("horse.jpg"), category="horse")[0]   # a PixelMap
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe._templates import template_symmetry, templates
from geoframe.canonical.surface import Surface
from geoframe.data.pixel_samples import PixelSamples
from geoframe.heads.backbone import backbone
from geoframe.heads.fields import FieldHead
from geoframe.layers.vertex_embedding import SharedEmbedding, VertexEmbedding
from geoframe.models.surface_embedding.network import SurfaceEmbedding
from geoframe.models.surface_embedding.recipe import OURS, BatchLosses, Recipe
from geoframe.training import Pictures, fit, load_model, save_model

KIND = "surface embedding"


def build(recipe: Recipe, surfaces: Mapping[str, Surface], *, seed: int = 0) -> SurfaceEmbedding:
    """The network of a recipe with weights at random, for some surfaces.

    Args:
        recipe: backbone, dimension, functions, head.
        surfaces: by name.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = FieldHead(backbone(recipe.backbone), recipe.dim, **recipe.head)
        tables = {
            name: VertexEmbedding(surface, recipe.dim, functions=recipe.functions, seed=seed + i)
            for i, (name, surface) in enumerate(surfaces.items())
        }
    return SurfaceEmbedding(head, SharedEmbedding(tables), style=recipe.style)


def train_network(
    model: SurfaceEmbedding,
    samples: PixelSamples,
    *,
    out: str | Path,
    recipe: Recipe,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    run: Mapping[str, Any] | None = None,
    progress: Callable[[str, float], None] | None = None,
    pictures: Pictures | None = None,
) -> list[dict[str, float]]:
    """Minimise the losses of a recipe over samples; see `geoframe.training.fit` for what is not told here.

    Args:
        model: trained in place.
        samples: with maps, where the backbone is frozen and each picture is seen more than once.
        out: folder for state and logs.
        recipe: losses, batches, schedule.
        seed: of batches.
        accelerator: see `fit`.
        devices: see `fit`.
        precision: see `fit`.
        run: see `fit`.
        progress: see `fit`.
        pictures: see `fit`.
    """
    surfaces = [e.surface for e in model.surfaces.values()]
    annotated = []
    for i in range(len(surfaces)):
        vertex = samples.vertex[samples.surface == i]
        annotated.append(torch.unique(vertex[vertex >= 0]))
    losses = BatchLosses(recipe.losses, surfaces, model.head, annotated)
    plan = recipe.batches

    def batches(epoch: int, rank: int, world: int) -> Any:
        return samples.batches(
            plan.size, plan.n_points, seed=seed * 1_000_003 + epoch, rank=rank, world=world
        )

    return fit(
        model,
        batches,
        losses,
        out=out,
        schedule=recipe.schedule,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        precision=precision,
        run=run,
        progress=progress,
        pictures=pictures,
    )
