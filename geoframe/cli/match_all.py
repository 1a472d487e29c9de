"""`geoframe match-all`: maps between all pairs of a folder or list."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from geoframe.cli._common import PartFailed, progress_bar, read_pairs, shared_landmarks, text_table, warn


def match_all(
    meshes: Path,
    /,
    *,
    out: Path,
    landmarks: Path | None = None,
    engine: Literal["loky", "dask", "ray"] = "loky",
    jobs: int | None = None,
    k: int | None = None,
) -> None:
    """Map all pairs of a folder, or the pairs of a list; a run that was killed goes on where it was.

    Every pair gets OUT/<a>--<b>.npz and .json; a pair that fails is recorded there and the rest goes on. At the
    end: OUT/summary.json, summary.csv and a table.

    Args:
        meshes: a folder (all ordered pairs), or a text file with "source target [landmark_file]" a line. A folder of
            `geoframe canonical` counts as a mesh.
        out: folder for the results.
        landmarks: of a folder's meshes: a folder with <mesh>.json (name -> vertex). By default those beside
            the meshes and in canonical folders. Names that two surfaces share are paired.
        engine: loky works on this machine, dask and ray also on a cluster that is already running.
        jobs: pairs at once; by default one a core.
        k: number of eigenfunctions of the final maps.
    """
    from geoframe import batch

    pairs = _listed_pairs(meshes) if meshes.is_file() else _folder_pairs(meshes, landmarks)
    with progress_bar(f"{len(pairs)} pairs") as progress:
        records = batch.match_all(pairs, out, k=k, engine=engine, jobs=jobs, progress=progress)
    _print_summary(records)
    done = sum(r["status"] == "done" for r in records)
    print(f"{done} of {len(records)} pairs done; wrote {out / 'summary.csv'}")
    if doubted := [r for r in records if r.get("verdict") == "doubtful"]:
        names = ", ".join(f"{r['source']} to {r['target']}" for r in doubted[:5])
        more = ", ..." if len(doubted) > 5 else ""
        warn(f"{len(doubted)} of these maps are doubtful ({names}{more}); each one's JSON file says why")
    if done < len(records):
        raise PartFailed(
            f"{len(records) - done} of {len(records)} pairs failed; each one's JSON file says why"
        )


def _folder_pairs(folder: Path, landmarks: Path | None) -> list[Any]:
    """All ordered pairs of a folder, with the landmarks of <mesh>.json beside the meshes or in another folder."""
    from geoframe import batch
    from geoframe.canonical.surface import named_landmarks
    from geoframe.surface import read_named_landmarks

    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of meshes or a list of pairs, found nothing there")
    if landmarks is not None and not landmarks.is_dir():
        raise ValueError(f"{landmarks}: expected a folder with <mesh>.json files, found none there")

    def landmarks_of(mesh: Path) -> dict[str, int] | None:
        inside = mesh / "surface.json"
        if landmarks is None and inside.is_file():
            return named_landmarks(mesh)
        file = (landmarks or folder) / f"{mesh.stem}.json"
        return read_named_landmarks(file) if file.exists() else None

    return batch.all_pairs(folder, landmarks_of)


def _listed_pairs(file: Path) -> list[Any]:
    """The pairs of a text file, "source target [landmark_file]" a line, paths relative to the file."""
    import shlex

    from geoframe import batch

    pairs = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as err:
        raise ValueError(
            f"{file}: expected a text file with two mesh files a line, found binary data"
        ) from err
    for number, line in enumerate(lines, 1):
        words = [file.parent / w for w in shlex.split(line, comments=True)]
        if not words:
            continue
        if len(words) not in (2, 3):
            expected = "source target [landmark_file]"
            raise ValueError(f"{file}, line {number}: expected {expected}, found {len(words)} words")
        given = len(words) == 3
        dots = read_pairs(words[2], *words[:2]) if given else shared_landmarks(*words)
        pairs.append(
            batch.Pair(words[0], words[1], None if dots is None else tuple(map(tuple, dots.tolist())))
        )
    return pairs


def _print_summary(records: list[dict[str, Any]]) -> None:
    """A table of the pairs that are done (the first 50) and a line for every one that failed."""
    done = [r for r in records if r["status"] == "done"]
    names = list(dict.fromkeys(n for r in done for n in r["measures"]))
    rows = [
        (r["source"], r["target"], *(r["measures"].get(n, float("nan")) for n in names)) for r in done[:50]
    ]
    if done:
        print(text_table(rows, ("source", "target", *names)))
    if len(done) > 50:
        print(f"({len(done) - 50} more in the files)")
    for r in records:
        if r["status"] == "error":
            print(f"failed: {r['source']} to {r['target']}: {' '.join(r['error'].split())}")
