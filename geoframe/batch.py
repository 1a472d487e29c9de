"""Match a whole set of surfaces, pair by pair, in parallel, resumably.

One seam to other people's engines: joblib's `parallel_config` with loky (this machine), dask or ray (this
machine or a cluster that is already running and shares the file system). The state of a run is its result
files and nothing else: ``<a>--<b>.npz`` with the map and ``<a>--<b>.json``, written last, with the measures and
the digests that make both files prove themselves. A run that was killed at any moment goes on from there.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoframe._check import check_choice, check_int
from geoframe._files import atomic_path, mesh_file, to_json
from geoframe._optional import require

if TYPE_CHECKING:
    from geoframe.maps import Match

ENGINES = ("loky", "dask", "ray")
MESH_SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
POINT_SUFFIXES = (".pcd", ".xyz")
HELD = 100_000_000  # bytes of a surface's file up to which a process holds it: some 30,000 vertices
_KEPT = ".surfaces"  # folder of what was computed of each surface, while a run lasts
_FORMAT = 6  # part of every key: raise it when result files, or what match finds, change


@dataclass(frozen=True)
class Pair:
    """One pair to match.

    Attributes:
        source: mesh file or folder of `geoframe canonical`.
        target: likewise; `p2p_21` gives each of its vertices a vertex of the source.
        landmarks: pairs (source vertex, target vertex), or None.
    """

    source: Path
    target: Path
    landmarks: tuple[tuple[int, int], ...] | None = None

    @property
    def name(self) -> str:
        """Stem of the result files."""
        return f"{self.source.stem}--{self.target.stem}"


def match_all(
    pairs: Sequence[Pair],
    out: str | Path,
    *,
    k: int | None = None,
    engine: str = "loky",
    jobs: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Match every pair; finished pairs of an earlier run with the same surfaces and settings are not redone.

    Two surfaces are matched once for both ways (`geoframe.maps.match_both_ways`), in the order of their names: the
    files of (b, a) are the same whether (a, b) was asked for or not.

    Args:
        pairs: what to match. A pair that fails is recorded in its JSON file and the others go on; the next run
            tries it again.
        out: folder of the result files, ``summary.json`` and ``summary.csv``.
        k: basis size, as in `match`; None leaves it to `match`.
        engine: ``"loky"``, ``"dask"`` or ``"ray"``. dask uses the cluster of its configuration
            (``DASK_SCHEDULER_ADDRESS``) or starts workers here.
        jobs: how many at once; None is one a core. Each works with one thread, unless jobs is 1.
        progress: called with what was just finished and the share done in [0, 1].

    Returns:
        One record a pair, in the order of `pairs`: ``source``, ``target``, ``status`` (``"done"`` or
        ``"error"``), ``measures`` (NaN where the files say null), ``verdict`` and ``warnings``, or ``error``. The
        result files do not depend on the engine, the order of work, or interruptions.

    Raises:
        ValueError: no pairs, two pairs with one name, a missing file, unknown engine, unwritable `out`.
    """
    out = Path(out)
    check_choice(engine, ENGINES, "engine")
    if k is not None:
        check_int(k, "k", low=3)  # as `match` does
    if jobs is not None:
        check_int(jobs, "jobs", low=1)
    digests = _check_pairs(pairs)
    keys = [_key(pair, digests, k) for pair in pairs]
    _make_folder(out, pairs)
    todo = [i for i, pair in enumerate(pairs) if read_result(out, pair, keys[i]) is None]
    folders = {f: out / _KEPT / f"{digest[:32]}-{k or 0}" for f, digest in digests.items()}
    with _engine(engine, jobs):
        files = sorted({f for i in todo for f in (pairs[i].source, pairs[i].target)})
        n = len(files) + len(todo)
        prepared = [(f, k, _landmarks_on(f, pairs), folders[f]) for f in files]
        for done, file in enumerate(_run(engine, _prepare, prepared), 1):
            _tell(progress, f"surface {Path(file).stem}", done / n)
        done = len(files)
        for names in _run(
            engine, _match_pairs, _work([(pairs[i], keys[i]) for i in todo], out, k, folders, digests)
        ):
            for name in names:
                done += 1
                _tell(progress, name, done / n)
    shutil.rmtree(out / _KEPT, ignore_errors=True)
    _held.cache_clear()
    records = [_record(out, pair, key) for pair, key in zip(pairs, keys, strict=True)]
    write_summary(records, out)
    return records


def all_pairs(folder: str | Path, landmarks_of: Callable[[Path], dict[str, int] | None]) -> list[Pair]:
    """All ordered pairs of the surfaces in a folder, by name.

    Args:
        folder: holds files of meshes or points, or folders of `geoframe canonical`, with different stems.
        landmarks_of: mesh file -> its named landmarks, or None. Names that both surfaces have are paired.

    Raises:
        ValueError: fewer than two meshes, or two files with one stem.
    """
    files = sorted(
        f
        for f in Path(folder).iterdir()
        if mesh_file(f) != f or f.suffix.lower() in MESH_SUFFIXES + POINT_SUFFIXES
    )
    if len(files) < 2:
        raise ValueError(
            f"{folder}: expected at least two meshes ({', '.join(MESH_SUFFIXES)}), found {len(files)}"
        )
    named = {f: landmarks_of(f) or {} for f in files}

    def shared(a: Path, b: Path) -> tuple[tuple[int, int], ...] | None:
        return tuple((v, named[b][name]) for name, v in named[a].items() if name in named[b]) or None

    return [Pair(a, b, shared(a, b)) for a in files for b in files if a != b]


def read_result(out: Path, pair: Pair, key: str) -> dict[str, Any] | None:
    """The record of a finished pair, or None if its files are absent, damaged or of other inputs.

    Args:
        out: folder of the results.
        pair: what was matched.
        key: digest of its inputs and settings.
    """
    try:
        record = json.loads((out / f"{pair.name}.json").read_text(encoding="utf-8"))
        proof = _sha256(out / f"{pair.name}.npz")
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("key") != key or record.get("npz_sha256") != proof:
        return None
    return record


def write_summary(records: list[dict[str, Any]], out: Path) -> None:
    """Write ``summary.json`` (the records) and ``summary.csv`` (a row a pair), each whole.

    Args:
        records: as `match_all` returns them.
        out: folder of the results.
    """
    with atomic_path(out / "summary.json") as temporary:
        temporary.write_text(to_json(records, sort_keys=True), encoding="utf-8")
    names = list(dict.fromkeys(n for r in records for n in r.get("measures", {})))
    with (
        atomic_path(out / "summary.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["source", "target", "status", *names, "error"])
        for r in records:
            measures = r.get("measures", {})
            row = [measures.get(n, "") for n in names]
            writer.writerow([r["source"], r["target"], r["status"], *row, r.get("error", "")])


def _check_pairs(pairs: Sequence[Pair]) -> dict[Path, str]:
    """Digest of every mesh file; complains about what would make the whole run meaningless."""
    if not pairs:
        raise ValueError("pairs: expected at least one pair, found none")
    seen: dict[str, Pair] = {}
    for pair in pairs:
        other = seen.setdefault(pair.name, pair)
        if other is not pair:
            files = f"{other.source}, {other.target} and {pair.source}, {pair.target}"
            raise ValueError(
                f"pairs: two pairs would share the result {pair.name}: {files}; rename the files"
            )
    digests = {}
    for file in sorted({f for p in pairs for f in (p.source, p.target)}):
        try:
            digests[file] = _sha256(mesh_file(file))
        except OSError as err:
            raise ValueError(f"cannot read {file}: {err.strerror or err}") from err
    return digests


def _make_folder(out: Path, pairs: Sequence[Pair]) -> None:
    """Make `out`, see that it can be written to before any work is done, and clear what a killed run left."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as err:
        raise ValueError(f"cannot write to {out}: {err.strerror or err}; choose a writable folder") from err
    for pair in pairs:
        for stale in out.glob(f".{glob.escape(pair.name)}-*"):
            stale.unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _key(pair: Pair, digests: dict[Path, str], k: int | None) -> str:
    from geoframe import __version__

    parts = [_FORMAT, __version__, digests[pair.source], digests[pair.target], pair.landmarks, k]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextlib.contextmanager
def _engine(engine: str, jobs: int | None) -> Iterator[None]:
    """Set up joblib for the engine, and take down what was started here."""
    import joblib

    jobs = jobs or joblib.cpu_count()
    if engine == "loky":
        with joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
            yield
    elif engine == "dask":
        distributed = require("distributed", extra="distributed")
        config = require("dask", extra="distributed").config
        local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
        running = config.get("scheduler-address", None)
        with distributed.Client(**({} if running else local)), joblib.parallel_config(backend="dask"):
            yield
    else:
        require("ray.util.joblib", extra="ray").register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=jobs):
            yield


def _run(engine: str, fn: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> Iterator[Any]:
    """`fn` over `arguments` in parallel; results as they come where the engine can, else all at the end."""
    import joblib

    if not arguments:
        return iter(())
    return_as = "list" if engine == "ray" else "generator_unordered"
    return iter(joblib.Parallel(return_as=return_as)(joblib.delayed(fn)(*a) for a in arguments))


def _landmarks_on(file: Path, pairs: Sequence[Pair]) -> tuple[int, ...]:
    """All vertices of a surface that are a landmark of some pair."""
    found: set[int] = set()
    for pair in pairs:
        for side, mine in ((0, pair.source), (1, pair.target)):
            if mine == file:
                found |= {row[side] for row in pair.landmarks or ()}
    return tuple(sorted(found))


def _tell(progress: Callable[[str, float], None] | None, what: str, share: float) -> None:
    if progress is not None:
        progress(what, share)


def _prepare(file: Path, k: int | None, landmarks: tuple[int, ...], kept: Path) -> str:
    """Compute what matches need of a surface by itself and keep it in a folder; what is wrong is told by its pairs."""
    import torch

    from geoframe.maps.clouds import load_matched
    from geoframe.maps.ready import prepare

    if not kept.is_dir():
        with contextlib.suppress(Exception):
            surface = load_matched(file)
            prepare(surface, k=k, landmarks=torch.tensor(landmarks, dtype=torch.int64))
            surface.save(kept)
    return str(file)


def _work(
    todo: Sequence[tuple[Pair, str]],
    out: Path,
    k: int | None,
    folders: Mapping[Path, Path],
    digests: Mapping[Path, str],
) -> list[tuple[Any, ...]]:
    """Arguments of `_match_pairs`: two surfaces with the same landmarks are one piece of work, whichever way round."""
    together: dict[Pair, list[tuple[Pair, str]]] = {}
    for pair, key in todo:
        together.setdefault(_in_order(pair, digests), []).append((pair, key))
    return [
        (ordered, asked, out, k, (folders[ordered.source], folders[ordered.target]))
        for ordered, asked in together.items()
    ]


def _in_order(pair: Pair, digests: Mapping[Path, str]) -> Pair:
    """The pair in the order in which it is matched, which does not depend on what else is asked for: of surfaces by
    name, of landmarks by vertices."""
    source, target = sorted((pair.source, pair.target), key=lambda f: (f.stem, digests[f], str(f)))
    if pair.landmarks is None:
        return Pair(source, target)
    rows = [tuple(row) if source == pair.source else tuple(row)[::-1] for row in pair.landmarks]
    return Pair(source, target, tuple(sorted(rows)))  # type: ignore[arg-type]


def _match_pairs(
    ordered: Pair, asked: Sequence[tuple[Pair, str]], out: Path, k: int | None, kept: tuple[Path, Path]
) -> list[str]:
    """Match two surfaces and write two files for each way asked for, or the JSON that says why not.

    Args:
        ordered: the surfaces in the order in which they are matched.
        asked: this pair, the one with the surfaces exchanged, or both, with their keys.
        out: folder of the result files.
        k: basis size, or None.
        kept: folders of what was computed of each surface.
    """
    try:
        found: Any = _compute(ordered, [pair.source == ordered.source for pair, _ in asked], k, kept)
    except Exception as err:  # noqa: BLE001  whatever it is, it is these pairs' and is recorded with them
        if len(asked) > 1:  # one way may work
            return [name for one in asked for name in _match_pairs(ordered, [one], out, k, kept)]
        found = [err]
    for (pair, key), one in zip(asked, found, strict=True):
        _write_pair(pair, key, out, one, exchanged=pair.source != ordered.source)
    return [pair.name for pair, _ in asked]


def _write_pair(
    pair: Pair,
    key: str,
    out: Path,
    found: tuple[dict[str, Any], dict[str, Any]] | Exception,
    *,
    exchanged: bool,
) -> None:
    """Write the two files of a pair, or the JSON that says why there is no map; `exchanged` if an error was met with
    the surfaces the other way round."""
    head = {"source": pair.source.stem, "target": pair.target.stem, "key": key}
    npz = out / f"{pair.name}.npz"
    try:
        if isinstance(found, Exception):
            raise found
        with atomic_path(npz) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **found[0])
        record = {**head, "status": "done", "npz_sha256": _sha256(npz), **found[1]}
    except Exception as err:  # noqa: BLE001
        npz.unlink(missing_ok=True)
        message = _of_the_other_order(str(err)) if exchanged else str(err)
        record = {**head, "status": "error", "error": f"{type(err).__name__}: {message}"}
    with atomic_path(out / f"{pair.name}.json") as temporary:
        temporary.write_text(to_json(record, sort_keys=True), encoding="utf-8")


def _of_the_other_order(message: str) -> str:
    """What `match` says of surfaces 1 and 2, with these exchanged."""
    words = [("surface 1", "surface 2"), ("mesh1", "mesh2"), ("landmarks[:, 0]", "landmarks[:, 1]")]
    other = {a: b for pair in words for a, b in (pair, pair[::-1])}
    return re.sub("|".join(map(re.escape, other)), lambda found: other[found[0]], message)


@lru_cache(maxsize=16)
def _held(path: Path) -> Any:
    """A surface that stays in memory with all that is computed of it, for the next pairs of this process."""
    from geoframe.maps.clouds import load_matched

    return load_matched(path)


def _surface(path: Path) -> Any:
    """A surface of a file, or of a folder of this run, which is held if it is small."""
    from geoframe.maps.clouds import load_matched

    small = path.parent.name == _KEPT and (path / "surface.npz").stat().st_size < HELD
    return _held(path) if small else load_matched(path)


def _compute(
    ordered: Pair, forwards: Sequence[bool], k: int | None, kept: tuple[Path, Path]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each way asked for, as the pair is ordered or exchanged, arrays for the npz and entries for the JSON."""
    import torch

    from geoframe.maps import match, match_both_ways

    landmarks = None if ordered.landmarks is None else torch.tensor(ordered.landmarks, dtype=torch.int64)
    files = zip((ordered.source, ordered.target), kept, strict=True)
    source, target = (_surface(folder if folder.is_dir() else file) for file, folder in files)
    if all(forwards):
        found = [match(source, target, landmarks, k=k)]
    else:
        found = list(match_both_ways(source, target, landmarks, k=k))
    return [_entries(found[0 if forward else 1], len(ordered.landmarks or ())) for forward in forwards]


def _entries(found: Match, n_landmarks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays for the npz, entries for the JSON."""
    arrays = {n: getattr(found, n).cpu().numpy() for n in ("p2p_21", "p2p_12", "C_12", "C_21")}
    return arrays, {
        "measures": {**found.energies, "confidence": found.confidence},
        "verdict": found.verdict,
        "warnings": list(found.warnings),
        "settings": found.settings,
        "n_landmarks": n_landmarks,
    }


def _record(out: Path, pair: Pair, key: str) -> dict[str, Any]:
    """What the files say of a pair, without the bookkeeping."""
    record = read_result(out, pair, key)
    if record is None:
        record = json.loads((out / f"{pair.name}.json").read_text(encoding="utf-8"))
    found = {
        n: record[n]
        for n in ("source", "target", "status", "measures", "verdict", "warnings", "error")
        if n in record
    }
    if "measures" in found:
        found["measures"] = {n: math.nan if x is None else x for n, x in found["measures"].items()}
    return found
