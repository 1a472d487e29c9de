"""Where a trained To The Point loses: parts of it replaced by the truth, one at a time, without any training.

    python -m experiments.to_the_point.budget --model FOLDER --crops UNSEEN.npz --own OWN.npz --out OUT [--most N]

UNSEEN.npz and OWN.npz are crops of renders kept by `experiments.to_the_point.run`; the true modes are the principal
components of the true shapes of OWN. Writes OUT/budget.json, a row of measures for each replacement:

- mesh: the true mesh itself against the masks (what occluders leave);
- network, network/rigid: as it is, and with the mean shape;
- network/true_visibility, network/true_modes: the network's positions with the visibility of the z-buffer, or with
  the modes of the true shapes;
- points, points/network_visibility, points/rigid, points/true_modes: true positions of all vertices, with the
  visibility of the z-buffer where nothing else is said.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor

from geoframe._files import to_json
from geoframe.data.object_crops import PADDING, ObjectCrops
from geoframe.heads.positions import Positions
from geoframe.metrics.embeddings import mask_iou
from geoframe.metrics.reconstruction import REVERSED, keypoint_pck, surface_error
from geoframe.models.to_the_point import Predictor, load
from geoframe.models.to_the_point.evaluate import canonical, reconstructed, rotation_errors
from geoframe.models.to_the_point.network import Posed, ToThePoint
from geoframe.render import rasterize, vertex_visibility

SURE = 20.0  # logit of a visibility that is known
RIDGE = 0.1  # of the true modes, which are scaled to vary by 1
AT_ONCE = 32


def main() -> None:
    """Measure every replacement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--own", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=1000)
    args = parser.parse_args()
    predictor, crops = load(args.model), ObjectCrops.load(args.crops)
    crops, own = crops[range(min(args.most, len(crops)))], ObjectCrops.load(args.own)
    with torch.no_grad():
        rows = budget(predictor, crops, own[range(min(args.most, len(own)))])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "budget.json").write_text(to_json(rows), encoding="utf-8")
    for name, row in rows.items():
        print(f"{name:28s} " + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))


def budget(predictor: Predictor, crops: ObjectCrops, own: ObjectCrops) -> dict[str, dict[str, float]]:
    """Name of each replacement -> measures."""
    model = predictor.model
    assert crops.truth is not None and crops.screen is not None
    screen = true_screen(crops)
    mask, seen = drawn(model, screen, crops.size)
    found, posed = reconstructed(model, crops)
    known = torch.where(seen, SURE, -SURE)
    truth = Positions(2 * crops.screen / crops.size - 1, known, None)
    right = with_true_modes(model, own)
    ways = {
        "network": posed,
        "network/rigid": model.solve(found, deform=False),
        "network/true_visibility": model.solve(found._replace(visibility=known)),
        "network/true_modes": right.solve(found),
        "points": model.solve(truth),
        "points/network_visibility": model.solve(truth._replace(visibility=found.visibility)),
        "points/rigid": model.solve(truth, deform=False),
        "points/true_modes": right.solve(truth),
    }
    mesh = {"iou_hard": float(torch.stack([*map(mask_iou, mask, crops.mask)]).mean())}
    return {"mesh": mesh} | {name: measured(predictor, crops, x) for name, x in ways.items()}


def true_screen(crops: ObjectCrops) -> Tensor:
    """(n, V, 3) pixels of the true vertices, and their depth in pixels, to the scale of the crop."""
    assert crops.truth is not None and crops.screen is not None
    flat, true = (x[..., :2] - x[..., :2].mean(1, keepdim=True) for x in (crops.screen, crops.truth))
    scale = flat.norm(dim=-1).mean(1) / true.norm(dim=-1).mean(1)
    return torch.cat([crops.screen, scale[:, None, None] * crops.truth[..., 2:]], -1)


def drawn(model: ToThePoint, screen: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Silhouettes (n, S, S) of meshes, and which of their vertices are seen (n, V)."""
    masks, seen = [], []
    for part in screen.split(AT_ONCE):
        fragments = rasterize(part, model.faces, (size, size))
        masks.append(fragments.mask)
        seen.append(vertex_visibility(fragments, model.faces, part))
    return torch.cat(masks), torch.cat(seen)


def with_true_modes(model: ToThePoint, own: ObjectCrops, *, n_modes: int = 8) -> ToThePoint:
    """The same model with mean and principal components of true shapes in place of what it learned."""
    from geoframe.layers.shape_modes import ShapeModes

    assert own.truth is not None
    shapes = canonical(model.template.surface.verts, own.truth.double())
    mean = shapes.mean(0)
    _, s, components = torch.linalg.svd((shapes - mean).flatten(1), full_matrices=False)
    modes = (components * s[:, None] / len(shapes) ** 0.5)[:n_modes].unflatten(1, (-1, 3)).float()
    out = copy.deepcopy(model)
    V = len(mean)
    out.shape = ShapeModes(mean.float(), torch.eye(V), n_modes)  # every vertex free
    out.shape.modes.data.copy_(modes)
    out.ridge = RIDGE
    return out


def measured(predictor: Predictor, crops: ObjectCrops, posed: Posed) -> dict[str, float]:
    """Measures of posed meshes, as `evaluate` has them."""
    model, S = predictor.model, crops.size
    assert crops.truth is not None and crops.screen is not None
    mask, _ = drawn(model, posed.screen(S), S)
    flat = (posed.projected[..., :2] + 1) * (S / 2)
    marks, side = flat[:, predictor.vertices_of(crops.names)], S / (1 + 2 * PADDING)
    error = rotation_errors(model, crops, posed)
    surface = [
        surface_error(x, y, model.faces) for x, y in zip(posed.verts, crops.truth.double(), strict=True)
    ]
    return {
        "iou_hard": float(torch.stack([*map(mask_iou, mask, crops.mask)]).mean()),
        "pck_10": keypoint_pck(marks, crops.points, crops.visible, side, alpha=0.1),
        "rotation_median_deg": float(error.median()),
        "reversed": float((error > REVERSED).double().mean()),
        "surface_percent": sum(surface) / len(surface),
        "pixels": float((flat - crops.screen).norm(dim=-1).mean()),
    }


if __name__ == "__main__":
    main()
