"""Maps between people and between animals in different poses, beside pyFM where it is installed.

GEOFRAME_DATA=DIR python -m experiments.near_isometric.run --out OUT [--quick] [--seed S] [--case CASE ...] [--pyfm N]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import geoframe
from experiments.real_animals.run import pyfm
from experiments.verdict.surfaces import Pair, cut_away, real_pairs
from geoframe import Mesh
from geoframe._files import atomic_path, to_json
from geoframe.canonical import Surface
from geoframe.maps import Match
from geoframe.maps.verdict import RIGHT, SURE
from geoframe.surface.resize import resize

LANDMARKS = 7
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one pair of each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--every", type=int, default=1, help="take one pair in so many")
    parser.add_argument("--pyfm", type=int, default=0, help="also run pyFM on so many pairs with landmarks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "rows.jsonl"
    rows: list[Row] = [json.loads(x) for x in kept.read_text().splitlines()] if kept.is_file() else []
    done = {(r["case"], r["pair"]) for r in rows}
    left = options.pyfm
    for case in options.case:
        pairs = list(real_pairs())[:: options.every]
        for name, make in pairs[:1] if options.quick else pairs[:: THINNED.get(case, 1)]:
            if (case, name) in done:
                continue
            row = {"case": case, "pair": name, **CASES[case](make(), np.random.default_rng(options.seed))}
            if case == "landmarks" and left and row["half"] == "report":
                row, left = row | peer(make()), left - 1
            rows.append(row)
            print(
                json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}),
                flush=True,
            )
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    table = dict(summary(rows))
    print(json.dumps(table, indent=1))
    with atomic_path(options.out / "results.json") as temporary:
        temporary.write_text(to_json(table), encoding="utf-8")


def spread_landmarks(pair: Pair, n: int = LANDMARKS) -> Tensor:
    """(n, 2) pairs of corresponding vertices, far from each other on surface 1."""
    at = geoframe.farthest_points(pair.one.verts[pair.true], n)
    return torch.stack([pair.true[at], pair.seen[at]], 1)


def told(pair: Pair, found: Match, seconds: float) -> Row:
    """What is noted of a map."""
    row = {
        "half": pair.half,
        "error": pair.error(found.p2p_21),
        "confidence": found.confidence,
        "seconds": seconds,
        "refinement": found.settings["refinement"],
        "distortion": found.energies["distortion"],
    }
    if (
        found.precise_21 is not None
    ):  # by straight distances: interpolated ones are too long beside the true vertex
        true, scale = pair.one.verts[pair.true], pair.one.area.sqrt()
        places = pair.one.verts[found.p2p_21], found.precise_21.apply(pair.one.verts)
        for name, place in zip(("straight_error", "precise_straight_error"), places, strict=True):
            row[name] = float((place[pair.seen] - true).norm(dim=1).mean() / scale)
    return row


def matched(pair: Pair, landmarks: Tensor | None, *, precise: bool = False) -> Row:
    """A match of the two surfaces, timed."""
    began = time.perf_counter()
    found = geoframe.match(pair.one, pair.two, landmarks, precise=precise)
    return told(pair, found, time.perf_counter() - began)


def with_landmarks(pair: Pair, rng: np.random.Generator) -> Row:
    """From seven landmarks, also inside triangles."""
    return matched(pair, spread_landmarks(pair), precise=True)


def without(pair: Pair, rng: np.random.Generator) -> Row:
    """From nothing."""
    return matched(pair, None)


def noisy(pair: Pair, rng: np.random.Generator) -> Row:
    """From seven landmarks, surface 2 with noise of 2 % of sqrt(area)."""
    step = 0.02 * float(pair.two.area.sqrt()) * torch.as_tensor(rng.normal(size=pair.two.verts.shape))
    noisy2 = Mesh(pair.two.verts + step.to(pair.two.verts), pair.two.faces)
    return matched(pair._replace(two=Surface.of(noisy2)), spread_landmarks(pair))


def decimated(pair: Pair, rng: np.random.Generator) -> Row:
    """From seven landmarks, surface 2 remeshed to 1,000 vertices."""
    small = resize(pair.two, 1000, seed=0).mesh
    near = torch.cdist(pair.two.verts[pair.seen], small.verts).argmin(1)
    left = pair._replace(two=Surface.of(small), seen=near)
    return matched(left, spread_landmarks(left))


def cut(pair: Pair, rng: np.random.Generator, *, landmarks: bool = True) -> Row:
    """30 % of surface 2 cut away; from seven landmarks on what is left."""
    mesh, kept = cut_away(pair.two, 0.3, rng)
    number = torch.full((pair.two.n_verts,), -1)
    number[kept] = torch.arange(len(kept))
    seen = number[pair.seen]
    left = pair._replace(two=Surface.of(mesh), true=pair.true[seen >= 0], seen=seen[seen >= 0])
    return matched(left, spread_landmarks(left) if landmarks else None)


def cut_without(pair: Pair, rng: np.random.Generator) -> Row:
    """30 % of surface 2 cut away, and no landmarks."""
    return cut(pair, rng, landmarks=False)


def moved(pair: Pair, rng: np.random.Generator) -> Row:
    """From seven landmarks, surface 2 turned, 1,000 times as large and in another order; `same` as without that."""
    marks = spread_landmarks(pair)
    plain = geoframe.match(pair.one, pair.two, marks)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    order = torch.as_tensor(rng.permutation(pair.two.n_verts))
    number = torch.argsort(order)
    mesh = Mesh(
        1000 * (pair.two.verts @ torch.as_tensor(turn.T).to(pair.two.verts))[order], number[pair.two.faces]
    )
    marks = torch.stack([marks[:, 0], number[marks[:, 1]]], 1)
    began = time.perf_counter()
    found = geoframe.match(pair.one, mesh, marks)
    row = told(pair._replace(seen=number[pair.seen]), found, time.perf_counter() - began)
    return row | {"same": float((found.p2p_21 == plain.p2p_21[order]).double().mean())}


def peer(pair: Pair) -> Row:
    """pyFM from the same landmarks."""
    began = time.perf_counter()
    found = pyfm(pair.one, pair.two, spread_landmarks(pair))
    if found is None:
        return {}
    return {"pyfm_error": pair.error(found), "pyfm_seconds": time.perf_counter() - began}


CASES: dict[str, Callable[[Pair, np.random.Generator], Row]] = {
    "landmarks": with_landmarks,
    "none": without,
    "noise": noisy,
    "decimated": decimated,
    "cut": cut,
    "cut_none": cut_without,
    "moved": moved,
}
THINNED = {
    "noise": 8,
    "decimated": 8,
    "cut": 8,
    "cut_none": 8,
    "moved": 16,
}  # one pair in so many: they are slow


def summary(rows: list[Row]) -> Iterator[tuple[str, float]]:
    """Figures of each case, data set and half."""
    for case, kind, half in sorted({(r["case"], r["pair"].split("-")[0], r["half"]) for r in rows}):
        some = [r for r in rows if (r["case"], r["half"]) == (case, half) and r["pair"].startswith(kind)]
        error = np.array([r["error"] for r in some])
        right, sure = error < RIGHT, np.array([r["confidence"] for r in some]) >= SURE
        head = f"{case}/{kind}/{half}"
        yield f"{head}/pairs", len(some)
        yield f"{head}/error", float(error.mean())
        yield f"{head}/worst", float(error.max())
        yield f"{head}/wrong", int((~right).sum())
        yield f"{head}/wrong_called_sure", int((~right & sure).sum())
        yield f"{head}/right_called_doubtful", int((right & ~sure).sum())
        for name in (
            "straight_error",
            "precise_straight_error",
            "same",
            "pyfm_error",
            "seconds",
        ):
            values = [r[name] for r in some if name in r]
            if values:
                yield f"{head}/{name}", float(np.mean(values))
        both = [r for r in some if "pyfm_error" in r]
        if both:
            yield (
                f"{head}/ours_over_pyfm",
                float(sum(r["error"] for r in both) / sum(r["pyfm_error"] for r in both)),
            )


if __name__ == "__main__":
    main()
