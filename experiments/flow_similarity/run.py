"""Features from motion: foreground of videos without labels, and a linear probe on photographs of horses.

    GEOFRAME_DATA=DIR python -m experiments.flow_similarity.run --out OUT [--quick] [--seed S] [--steps N] [--form FORM]

Reads DIR/video (sequences NAME/00000.jpg with NAME/00000.png) and DIR/horses (NAME.jpg with a mask). Trains on renders
of the zoo with exact flow and on the first three quarters of every sequence with OpenCV's flow; the last quarter is for
the test. Writes OUT/results.json after every part, and pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._files import atomic_path, to_json
from geoframe.data.image_files import read_image, read_mask
from geoframe.data.moving_scenes import zoo_scene
from geoframe.data.rendered import categories, render_set
from geoframe.flow import dis_flow, moving_pixels
from geoframe.heads.backbone import backbone
from geoframe.heads.hypercolumn import HypercolumnHead
from geoframe.models.flow_similarity import (
    OURS,
    FlowFeatures,
    Predictor,
    foreground,
    foreground_by_motion,
    linear_probe,
    load,
    train,
)
from geoframe.models.flow_similarity.evaluate import overlap

GAP = 3  # frames between the two of a pair
SIDE = 160  # pixels, of the shorter side of a frame of a video


def main() -> None:
    """Train what is not trained, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--form", choices=["kta", "ce", "ce-rev"], default=OURS.losses.form)
    args = parser.parse_args()
    data = Path(os.environ["GEOFRAME_DATA"])
    args.out.mkdir(parents=True, exist_ok=True)
    steps = args.steps or (4 if args.quick else 1000)
    results: dict[str, float] = {"steps": steps}

    def note(**numbers: float) -> None:
        results.update(numbers)
        with atomic_path(args.out / "results.json") as temporary:
            temporary.write_text(to_json(results))
        print(json.dumps(numbers), flush=True)

    clips = {f.name: list(pairs_of(f)) for f in sorted((data / "video").iterdir())}
    if args.quick:
        clips = dict(list(clips.items())[:2])
    learn = [(a, dis_flow(a, b)) for clip in clips.values() for a, b, _ in clip[: 3 * len(clip) // 4]]
    held = {name: clip[3 * len(clip) // 4 :] for name, clip in clips.items()}
    scenes = zoo_frames(24 if args.quick else 160, args.seed)
    note(video_frames=len(learn), zoo_frames=len(scenes), held_frames=sum(map(len, held.values())))
    start = time.process_time()
    recipe = OURS.with_steps(steps).with_form(args.form)
    ready = (args.out / "model/model.json").is_file()
    trained = (
        load(args.out / "model")
        if ready
        else train(learn + scenes, out=args.out / "model", recipe=recipe, seed=args.seed)
    )
    note(train_cpu_minutes=(time.process_time() - start) / 60)
    torch.manual_seed(args.seed)
    untrained = Predictor(FlowFeatures().eval())
    for name, predictor in (("trained", trained), ("untrained", untrained)):
        scores = torch.tensor([segment(predictor, clip) for clip in held.values()]).mean(0)
        note(**{f"J_clusters_{name}": 100 * float(scores[0]), f"J_by_motion_{name}": 100 * float(scores[1])})
    residual = [
        mean_overlap([moving_pixels(dis_flow(a, b)) for a, b, _ in clip], clip) for clip in held.values()
    ]
    note(J_residual_motion=100 * sum(residual) / len(residual))
    horses = horse_pictures(data / "horses", 20 if args.quick else None)
    split = horses[::2], horses[1::2]
    note(probe_trained=linear_probe(trained.columns, *split))
    note(probe_untrained=linear_probe(untrained.columns, *split))
    note(probe_embedding_trained=linear_probe(trained.predict, *split))
    note(probe_embedding_untrained=linear_probe(untrained.predict, *split))
    note(probe_autoencoder=linear_probe(autoencoder(learn + scenes, steps, args.seed).columns, *split))
    lite0 = HypercolumnHead(backbone("efficientnet-lite0"))
    note(probe_lite0=linear_probe(lambda x: frozen_columns(lite0, x), *split))


def pairs_of(folder: Path) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(frame, frame GAP later, mask (H, W) bool) of every third frame of a sequence."""
    frames = sorted(folder.glob("*.jpg"))
    for a, b in list(zip(frames, frames[GAP:], strict=False))[::3]:
        one, two = (shrunk(read_image(x)) for x in (a, b))
        mask = read_mask(a.with_suffix(".png")).float()[None, None]
        yield one, two, F.interpolate(mask, size=one.shape[1:], mode="area")[0, 0] > 0.5


def shrunk(image: Tensor) -> Tensor:
    """The picture with a shorter side of SIDE pixels."""
    scale = SIDE / min(image.shape[1:])
    size = [round(n * scale) for n in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def zoo_frames(n: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Frames of scenes of the zoo with their exact flow."""
    pictures = next(render_set(categories(), n, size=128, seed=seed).batches(n))
    scenes = (zoo_scene(pictures.image, pictures.mask, (SIDE, SIDE), seed=seed + i) for i in range(n))
    return [(s.image0, s.flow) for s in scenes]


def segment(predictor: Predictor, clip: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[float, float]:
    """Mean overlap of the foreground found in a sequence, by clusters of the embedding and by regression."""
    flows = [dis_flow(a, b) for a, b, _ in clip]
    clusters = foreground([predictor.predict(a) for a, _, _ in clip], flows)
    regression = foreground_by_motion([predictor.columns(a) for a, _, _ in clip], flows)
    return mean_overlap(clusters, clip), mean_overlap(regression, clip)


def mean_overlap(found: list[Tensor], clip: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Mean intersection over union with the masks."""
    return sum(overlap(x, mask) for x, (_, _, mask) in zip(found, clip, strict=True)) / len(clip)


def horse_pictures(folder: Path, limit: int | None) -> list[tuple[Tensor, Tensor]]:
    """(image, mask) of every photograph that has one."""
    pictures = sorted(p for p in folder.glob("*.jpg"))[:limit]
    return [(read_image(p), read_mask(p.with_suffix(".png"))) for p in pictures]


@torch.no_grad()
def frozen_columns(head: HypercolumnHead, image: Tensor) -> Tensor:
    """Hypercolumns (C, h, w) of an image."""
    return head.column_field(image[None])[0]


def autoencoder(frames: list[tuple[Tensor, Tensor]], steps: int, seed: int) -> Predictor:
    """The same network trained to tell the colour of each pixel from its coarse maps, for as many steps."""
    torch.manual_seed(seed)
    model = FlowFeatures()
    back = torch.nn.Linear(sum(model.head.backbone.channels[2:]), 3 * 64)
    optimiser = torch.optim.AdamW([*model.parameters(), *back.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(frames), (OURS.batch_size,), generator=generator).tolist()
        batch = torch.stack([crop(frames[i][0], OURS.crop, generator) for i in chosen])
        maps = model.head.backbone(batch)[2:]
        size = maps[0].shape[2:]
        wide = torch.cat([F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps], 1)
        said = F.pixel_shuffle(back(wide.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8)
        loss = (said - batch).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Predictor(model.eval())


def crop(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random square of a picture."""
    y, x = (int(torch.randint(n - side + 1, (), generator=generator)) for n in image.shape[1:])
    return image[:, y : y + side, x : x + side]


if __name__ == "__main__":
    main()
