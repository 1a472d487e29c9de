"""Deep matching on Sintel and Middlebury pairs, beside OpenCV's flow; and what training on the zoo changes.

    GEOFRAME_DATA=DIR python -m experiments.deep_matching.run --out OUT [--quick] [--seed S] [--steps N]

Reads DIR/flow/NAME with frame10.png, frame11.png, flow10.flo. Settings were chosen on Middlebury and on scenes;
the Sintel pairs are for the report. Training (exponents, features, both) is on scenes of the zoo before frames of
DIR/video, with exact flow, and measured on the Sintel pairs by the matches alone. Writes OUT/results.json after every
part and OUT/NAME.png.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoframe._files import atomic_path, to_json
from geoframe.data.augment import blur, jitter_color, motion_blur
from geoframe.data.flow_files import FlowPair, list_flow_pairs
from geoframe.data.image_files import read_image
from geoframe.data.moving_scenes import zoo_scene
from geoframe.data.rendered import render_set
from geoframe.flow import dis_flow
from geoframe.metrics.flow import flow_measures, spread_matches
from geoframe.models.deep_matching import EXPONENTS, FEATURES, OURS, DeepMatcher, load, match_images, train
from geoframe.models.deep_matching.network import build
from geoframe.models.deep_matching.predictor import quasi_dense
from geoframe.viz.flow import as_picture, flow_colors
from geoframe.viz.surfaces import save_picture
from geoframe.zoo import species

TABLE = {"exponents": EXPONENTS, "features": FEATURES, "both": OURS}
SIZE = (96, 128)  # of the scenes that are learned from
PHOTOGRAPHS = 0.75  # share of scenes before one; the others have a background that is drawn


def main() -> None:
    """Match, measure, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pairs = list_flow_pairs(Path(os.environ["GEOFRAME_DATA"]) / "flow", "middlebury")
    pairs = pairs[:1] if args.quick else pairs
    results: dict[str, float] = {}

    def note(prefix: str, numbers: dict[str, float]) -> None:
        results.update({f"{prefix}.{name}": value for name, value in numbers.items()})
        with atomic_path(args.out / "results.json") as temporary:
            temporary.write_text(to_json(results))
        print(prefix, json.dumps({k: round(v, 3) for k, v in numbers.items()}), flush=True)

    for pair in pairs:
        note(pair.name, whole(pair, args.out))
    steps = 2 if args.quick else args.steps
    sintel = pairs if args.quick else [p for p in pairs if p.name.startswith("sintel")]
    photographs = frames_of(Path(os.environ["GEOFRAME_DATA"]) / "video")
    draw = scene_pairs(4 if args.quick else 400, args.seed, photographs)
    note("hand-made", matches_only(DeepMatcher(), sintel))
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        note("untrained", matches_only(build(OURS.settings), sintel))
    for name, recipe in TABLE.items():
        start, folder = time.process_time(), args.out / f"model_{name}"
        plan = replace(recipe, schedule=replace(recipe.schedule, steps=steps))
        ready = (folder / "model.json").is_file()
        predictor = load(folder) if ready else train(draw, out=folder, recipe=plan, seed=args.seed)
        spent = (time.process_time() - start) / 60
        note(name, {**matches_only(predictor.model, sintel), "cpu_minutes": spent})


def whole(pair: FlowPair, out: Path) -> dict[str, float]:
    """Measures of matches and flow of a pair, and of OpenCV's flow; the flows beside the true one as a picture."""
    first, second, truth = read_image(pair.image0), read_image(pair.image1), pair.true_flow()
    wall, cpu = time.perf_counter(), time.process_time()
    found = match_images(first, second)
    numbers = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    size = (truth.shape[1], truth.shape[2])
    near = spread_matches(found.points0, found.points1, found.score, size)
    far = spread_matches(found.points0, found.points1, found.score, size, radius=None)
    dis = dis_flow(first, second)
    for name, flow in (("matches", near), ("spread", far), ("flow", found.flow), ("dis", dis)):
        numbers |= {f"{name}_{key}": value for key, value in flow_measures(flow, truth).items()}
    most = float(np.nanpercentile(truth.norm(dim=0).numpy(), 99))
    shown = [as_picture(first), *(flow_colors(f, most=most) for f in (truth, found.flow, dis))]
    save_picture(np.concatenate(shown), out / f"{pair.name}.png")
    return numbers


def matches_only(matcher: DeepMatcher, pairs: list[FlowPair]) -> dict[str, float]:
    """Means over pairs of the measures of quasi-dense matches, searched over 80 pixels with six levels."""
    if matcher.levels < 6:  # a pyramid learned with fewer goes on with the last exponent
        more = matcher.exponents.detach()
        more = torch.cat([more, more[-1:].expand(6 - len(more))])
        matcher = extended(matcher, more)
    rows = []
    for pair in pairs:
        first, second, truth = read_image(pair.image0), read_image(pair.image1), pair.true_flow()
        size = (truth.shape[1], truth.shape[2])
        points0, points1, score = quasi_dense(first, second, matcher, radius=80, downscale=1, half=True)
        near = flow_measures(spread_matches(points0, points1, score, size), truth)
        far = flow_measures(spread_matches(points0, points1, score, size, radius=None), truth)
        rows.append({**near, "spread_acc10": far["acc10"], "spread_epe": far["epe"]})
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def extended(matcher: DeepMatcher, exponents: Tensor) -> DeepMatcher:
    """The same descriptors with more levels."""
    wide = build({**matcher.settings, "levels": len(exponents)})
    state = {k: v for k, v in matcher.state_dict().items() if k != "exponents"}
    wide.load_state_dict({**state, "exponents": exponents})
    return wide.eval()


def scene_pairs(
    n: int, seed: int, photographs: Sequence[Tensor]
) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
    """Pairs of images with exact flow, n of them again and again: renders before photographs, in changing light."""
    pictures = next(render_set(species(), min(n, 120), size=128, seed=seed).batches(min(n, 120)))

    @functools.cache
    def drawn(number: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((seed, number))
        photograph = photographs[int(rng.integers(len(photographs)))] if rng.random() < PHOTOGRAPHS else None
        scene = zoo_scene(
            pictures.image,
            pictures.mask,
            SIZE,
            seed=number,
            backdrop=photograph,
            motion=float(rng.uniform(0.5, 2)),
        )
        flow = torch.where(scene.occluded, torch.nan, scene.flow)  # what is hidden can't be matched
        return in_other_light(scene.image0, rng), in_other_light(scene.image1, rng), flow

    return lambda number: drawn(number % n)


def in_other_light(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Another exposure, some blur and noise: what changes from frame to frame of a film."""
    brightness, contrast, gamma = np.exp(rng.normal(0, [0.08, 0.08, 0.05])).tolist()
    image = jitter_color(image, brightness=brightness, contrast=contrast, gamma=gamma)
    kind = rng.random()
    if kind < 0.35:
        image = motion_blur(image, float(rng.uniform(1, 7)), float(rng.uniform(0, 180)))
    elif kind < 0.55:
        image = blur(image, float(rng.uniform(0.3, 1.3)))
    noise = torch.from_numpy(rng.standard_normal(image.shape).astype(np.float32))
    return (image + float(rng.uniform(0, 0.02)) * noise).clamp(0, 1)


def frames_of(folder: Path) -> list[Tensor]:
    """Every twelfth frame of the sequences of a folder."""
    clips = [sorted(clip.glob("*.jpg")) for clip in sorted(folder.iterdir()) if clip.is_dir()]
    return [read_image(path) for clip in clips for path in clip[::12]]


if __name__ == "__main__":
    main()
