"""What a model trained on renders alone does on photographs: masks, facing and sides of horses; joints in videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from geoframe.data.image_files import box_of_mask, read_image, read_mask
from geoframe.metrics.embeddings import mask_iou, pck
from geoframe.models.surface_embedding import Predictor
from geoframe.models.surface_embedding.network import at_points
from geoframe.pixels import PixelMap

LIMBS = 0.42  # of the height: below it everything counts as legs, whose far ones belong to the other side
MIDLINE = 0.1  # of half the width: nearer to the middle plane, a vertex has no side
WAYS = ("raw_features", "embedding", "embedding_and_features")
WEIGHT = 2.2  # of the embedding beside raw features, chosen on pairs of renders (study w)
PIXELS = 256  # longer side of the crops whose raw features are compared


def horses(predictor: Predictor, folder: Path, *, every: int = 1) -> tuple[dict[str, Any], list[PixelMap]]:
    """Mask IoU, facing and body side on photographs of horses, seen from the side, without boxes.

    Args:
        predictor: the model.
        folder: NAME.jpg with NAME.png, the mask.
        every: only each so many-th picture.

    Returns:
        Means and the maps. `facing`: share of pictures whose head pixels lie left of the rump's (labels.json: all
        horses look left). `body_side`: mean share of the pixels of trunk, neck and head that are put on the animal's
        left side, which is the one to be seen.
    """
    labels = json.loads(Path(__file__).with_name("labels.json").read_text(encoding="utf-8"))
    verts = predictor.target("horse").surface.verts
    height = (verts[:, 1] - verts[:, 1].min()) / (verts[:, 1].max() - verts[:, 1].min())
    left = verts[:, 2] < -MIDLINE * verts[:, 2].abs().max()
    right = verts[:, 2] > MIDLINE * verts[:, 2].abs().max()
    body = height > LIMBS
    x = (verts[:, 0] - verts[:, 0].min()) / (verts[:, 0].max() - verts[:, 0].min())
    rows, maps = [], []
    for path in sorted(folder.glob("*.jpg"))[::every]:
        image, mask = read_image(path), read_mask(path.with_suffix(".png"))
        found = predictor.predict(image, category="horse")[0]
        v = found.vertex[found.mask]
        row = {"name": path.stem, "mask_iou": float(mask_iou(found.mask, mask))}
        column = torch.nonzero(found.mask)[:, 1].float()
        front, back = x[v] > 0.65, (x[v] < 0.4) & body[v]
        told = bool(front.any()) and bool(back.any())
        row["facing"] = float(told and bool(column[front].mean() < column[back].mean()))
        sided = body[v] & (left[v] | right[v])
        row["body_side"] = float(left[v][sided].float().mean()) if bool(sided.any()) else 0.0
        verdict = predictor.verdict(found)
        row |= {"score": verdict.score, "sides": verdict.sides}
        rows.append(row)
        maps.append(found)
    clear = [r for r in rows if r["name"] not in labels["unclear"]]
    means = {k: float(np.mean([r[k] for r in rows])) for k in ("mask_iou", "body_side", "score", "sides")}
    means["facing"] = float(np.mean([r["facing"] for r in clear]))
    return {**means, "pictures": len(rows), "rows": rows}, maps


def videos(predictor: Predictor, folder: Path, names: Sequence[str] = ("camel", "cows")) -> dict[str, Any]:
    """Share of joints carried from the first annotated frame to within .2 sqrt(mask area), by five ways.

    All ways know the object's mask in every frame, as the data set gives it: it makes the box, and what is carried
    goes to pixels of the mask.
    """
    out: dict[str, Any] = {}
    for name in names:
        out[name] = _video(predictor, folder / name)
    ways = list(out[names[0]])
    out["mean"] = {way: float(np.mean([out[n][way] for n in names])) for way in ways}
    return out


class Frame(NamedTuple):
    """What is compared of a frame, of unit length: at pixels (n, 2) of the mask, and at joints (J, 2)."""

    mask: Tensor
    pixels: Tensor
    embedding: Tensor
    features: Tensor
    at_joints: tuple[Tensor, Tensor]

    def of(self, way: str, joints: bool, weight: float = WEIGHT) -> Tensor:
        """(C, n) or (C, J) descriptors; `weight` is that of the embedding beside the features."""
        E, F = self.at_joints if joints else (self.embedding, self.features)
        return {"embedding": E, "raw_features": F, "embedding_and_features": torch.cat([F, weight * E])}[way]


def _video(predictor: Predictor, folder: Path) -> dict[str, float]:
    joints = {k: torch.tensor(v) for k, v in json.loads((folder / "joints.json").read_text()).items()}
    frames = sorted(joints)
    first = frames[0]
    start = _frame(predictor, folder, first, joints[first][:, :2])
    flow = flow_tracks(folder, joints[first][:, :2], first, frames)
    hits: dict[str, list[float]] = {w: [] for w in ("copied", "flow", *WAYS)}
    for frame in frames[1:]:
        known = (joints[first][:, 2] > 0) & (joints[frame][:, 2] > 0)
        if not bool(known.any()):
            continue
        source, truth = joints[first][known, :2], joints[frame][known, :2].float()
        now = _frame(predictor, folder, frame, None)
        size = float(now.mask.sum()) ** 0.5
        b1, b2 = (box_of_mask(x.mask) for x in (start, now))
        there = {"copied": (source - b1[:2]) / (b1[2:] - b1[:2]) * (b2[2:] - b2[:2]) + b2[:2]}
        there["flow"] = flow[frame][known]
        for way in WAYS:
            best = (start.of(way, True)[:, known].T @ now.of(way, False)).argmax(1)
            there[way] = now.pixels[best] + 0.5
        for way, x in there.items():
            hits[way].append(float(pck(x.float(), truth, size, alpha=0.2)))
    return {way: round(float(np.mean(x)), 4) for way, x in hits.items()}


def _frame(predictor: Predictor, folder: Path, frame: str, joints: Tensor | None) -> Frame:
    image, mask = read_image(folder / f"{frame}.jpg"), read_mask(folder / f"{frame}.png")
    return described(predictor, image, mask, joints)


def described(predictor: Predictor, image: Tensor, mask: Tensor, joints: Tensor | None) -> Frame:
    """What is compared of an image (3, H, W) at the pixels of a mask (H, W) and at joints (J, 2)."""
    (x0, y0, x1, y1), found = predictor.looks(image, box_of_mask(mask))[-1]
    E, maps = found.embedding, raw_maps(predictor, image[:, y0:y1, x0:x1])
    pixels = torch.nonzero(mask).flip(1).float()

    def at(places: Tensor) -> tuple[Tensor, Tensor]:
        unit = (places - torch.tensor([x0, y0])) / torch.tensor([x1 - x0, y1 - y0])
        both = [
            at_points(x[None], unit[None] * torch.tensor([x.shape[2], x.shape[1]]), 1)[0].T
            for x in (E, *maps)
        ]
        unit_length = [nn.functional.normalize(x, dim=0) for x in both]
        return unit_length[0], torch.cat(unit_length[1:]) / len(maps) ** 0.5

    E_mask, F_mask = at(pixels + 0.5)
    at_joints = (E_mask[:, :0], F_mask[:, :0]) if joints is None else at(joints.float())
    return Frame(mask, pixels, E_mask, F_mask, at_joints)


@torch.no_grad()
def raw_maps(predictor: Predictor, crop: Tensor) -> list[Tensor]:
    """(C, h, w) each: the frozen backbone's maps of strides 16 and 32 of a crop (3, H, W)."""
    size = crop.shape[-2:]
    unit = PIXELS / max(size)
    wanted = [max(round(n * unit / 32), 1) * 32 for n in size]
    x = nn.functional.interpolate(crop[None], wanted, mode="bilinear", antialias=True).clamp(0, 1)
    return [m[0] for m in predictor.model.head.backbone(x)[-2:]]


def flow_tracks(folder: Path, points: Tensor, first: str, frames: Sequence[str]) -> dict[str, Tensor]:
    """(N, 2) points of the first frame in the others, by DIS flow from frame to frame; NaN without opencv."""
    try:
        import cv2
    except ImportError:
        return {f: torch.full_like(points, torch.nan) for f in frames}
    files = sorted(p for p in folder.glob("*.jpg") if first <= p.stem <= frames[-1])
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    at, out = points.numpy().astype(np.float32).copy(), {}
    grey = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2GRAY) for p in files]
    for i, path in enumerate(files):
        if i:
            flow = solver.calc(grey[i - 1], grey[i], None)
            H, W = grey[i].shape
            cols = np.clip(at[:, 0].astype(int), 0, W - 1)
            rows = np.clip(at[:, 1].astype(int), 0, H - 1)
            at = at + flow[rows, cols]
        if path.stem in frames:
            out[path.stem] = torch.from_numpy(at.copy())
    return out
