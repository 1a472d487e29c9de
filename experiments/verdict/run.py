"""Can a map be trusted? Right and wrong maps with a known truth, the confidence fitted on one half, tried on the other.

GEOFRAME_DATA=DIR python -m experiments.verdict.run --out OUT [--quick] [--seed S]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.verdict.fit import fitted, report
from experiments.verdict.surfaces import Pair, real_pairs, zoo_animals, zoo_pairs
from geoframe._files import atomic_path, to_json
from geoframe.maps.candidates import ranked
from geoframe.maps.evidence import Evidence
from geoframe.maps.quality import GeodesicDistortion
from geoframe.maps.ready import PROBES, default_size
from geoframe.maps.refine import Refined, chosen, refined
from geoframe.maps.search import TRIED, measures
from geoframe.maps.starts import Pair as Surfaces
from geoframe.maps.starts import starts_from_named_landmarks, starts_from_shape
from geoframe.maps.verdict import RIGHT, SURE, confidence

ZOO = 36  # pairs
WRONG = 1  # wrong candidates of each pair that are taken to the end, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="two pairs of the zoo, nothing fitted")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in found.read_text().splitlines()] if found.is_file() else []
    done = {row["pair"] for row in rows}
    pairs = zoo_pairs(zoo_animals(options.seed), options.seed, 2 if options.quick else ZOO)
    for name, make in [*pairs, *([] if options.quick else real_pairs())]:
        if name in done:
            continue
        began = time.perf_counter()
        new = list(maps_of(make(), WRONG))
        told = " ".join(f"{r['error']:.3f}{'' if r['chosen'] else '*'}" for r in new if r["level"] == "final")
        print(f"{name:40s} {time.perf_counter() - began:5.0f} s  errors {told}", flush=True)
        with found.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(r) + "\n" for r in new)
        rows += new
    model = fitted([r for r in rows if r["half"] == "choose"]) if not options.quick else None
    results = {
        "model": model,
        **{half: report([r for r in rows if r["half"] == half]) for half in ("choose", "report")},
    }
    print(json.dumps(results, indent=1))
    with atomic_path(options.out / "results.json") as temporary:
        temporary.write_text(to_json(results), encoding="utf-8")


def maps_of(pair: Pair, wrong: int) -> Iterator[dict[str, Any]]:
    """Rows: every candidate of a match without landmarks, and final maps of the one that `match` takes, of the
    nearest to the truth, and of a few wrong ones."""
    k = min(default_size(pair.one), default_size(pair.two))
    surfaces = Surfaces.of(pair.one, pair.two, k)
    evidence = Evidence.of(pair.one, pair.two, GeodesicDistortion(pair.one, pair.two, n=PROBES))
    starts = [*starts_from_named_landmarks(surfaces), *starts_from_shape(surfaces)]
    candidates = ranked(surfaces, starts, evidence, 1.0)
    every = torch.arange(pair.two.n_verts)
    errors = [pair.error(surfaces.places_21(c.C_12, every)) for c in candidates]
    about = {"pair": pair.name, "half": pair.half}
    for c, error in zip(candidates, errors, strict=True):
        yield {**about, "level": "candidate", "start": c.start, "error": error, "energy": c.energy, **c.terms}
    taken: dict[int, tuple[list[Refined], Refined, dict[str, float]]] = {}

    def to_the_end(i: int) -> bool:
        """Whether the candidate is another one than those that are taken to the end, which it now is, too."""
        if any(not surfaces.differ(candidates[i].C_12, candidates[j].C_12) for j in taken):
            return False
        maps = refined(surfaces, candidates[i], None, evidence.distortion)
        best = chosen(surfaces, maps, evidence.distortion)
        taken[i] = maps, best, measures(surfaces, best, evidence)
        return True

    for i in range(len(candidates)):  # as `match` does
        if to_the_end(i) and (confidence(taken[i][2]) >= SURE or len(taken) == TRIED):
            break
    mine = max(taken, key=lambda i: confidence(taken[i][2]))
    to_the_end(int(np.argmin(errors)))
    for i in (i for i, e in enumerate(errors) if e > RIGHT):
        if sum(errors[j] > RIGHT for j in taken) < wrong:
            to_the_end(i)
    for i, (maps, best, found) in taken.items():
        for m in maps:
            yield {
                **about,
                "level": "final",
                "start": candidates[i].start,
                "chosen": i == mine and m is best,
                "best": m is best,
                "how": m.how,
                "error": pair.error(m.p2p_21),
                **(found if m is best else measures(surfaces, m, evidence)),
            }


if __name__ == "__main__":
    main()
