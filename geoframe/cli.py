"""The command line: `geoframe info`, `geoframe match`, `geoframe match-all`.

Exit status: 0 done; 2 bad input, told in one line; 1 any other failure, told in one line that says how to see
more. Nothing slow is imported before a command needs it.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

_BAD_INPUT = (
    ValueError,
    ImportError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def info(mesh: Path, /, *, json: bool = False) -> None:
    """Tell what a mesh file holds and what is wrong with it.

    Args:
        mesh: OBJ, OFF, PLY, STL, GLB or glTF file.
        json: print one JSON object instead of the table.
    """
    from json import dumps

    from geoframe.surface import health

    found = health(_load_mesh(mesh))
    print(dumps(found.as_dict(), indent=1) if json else f"{mesh}\n{found}")


def match(
    source: Path,
    target: Path,
    /,
    *,
    out: Path,
    landmarks: Path | None = None,
    ground_truth: Path | None = None,
    k: int | None = None,
) -> None:
    """Map one surface to another: map.npz, metrics.json, match.png and report.html.

    p2p_21 in map.npz gives, for every vertex of TARGET, a vertex of SOURCE; C_12 sends functions on SOURCE to
    functions on TARGET. Measures are relative to the square root of a surface's area.

    Args:
        source: mesh file of surface 1.
        target: mesh file of surface 2.
        out: folder for the four files; made if need be, written only when all is done.
        landmarks: text file with a pair "source_vertex target_vertex" a line (0-based), or JSON.
        ground_truth: pairs in the same format to judge the map by; adds the geodesic error on SOURCE, from the
            vertex found to the true one, to metrics.json.
        k: number of eigenfunctions of the final map.
    """
    from geoframe import maps
    from geoframe._check import check_index
    from geoframe._files import staged_folder
    from geoframe.report import write_report
    from geoframe.surface import check_landmarks
    from geoframe.viz import draw_match, save_picture

    mesh1, mesh2 = _load_mesh(source), _load_mesh(target)
    sizes = (mesh1.n_verts, mesh2.n_verts)
    pairs = truth = None
    if landmarks is not None:
        pairs = _read_pairs(landmarks, source, target)
        with _about(landmarks):
            check_landmarks(pairs, *sizes)
    if ground_truth is not None:
        truth = _read_pairs(ground_truth, source, target)
        with _about(ground_truth):
            check_index(truth[:, 0], sizes[0], "source vertices", what="vertices")
            check_index(truth[:, 1], sizes[1], "target vertices", what="vertices")
        _exact_or_dijkstra(mesh1)  # what is missing to measure is told before the work
    names = (source.stem, target.stem) if source.stem != target.stem else (str(source), str(target))
    titles = (f"{names[0]} · {sizes[0]:,} vertices", f"{names[1]} · {sizes[1]:,} vertices")
    with staged_folder(out) as folder, _progress("matching") as progress:
        found = maps.match(mesh1, mesh2, pairs, progress=progress, **_given(k=k))
        progress("measuring", 1.0)
        numbers, curves = _measure(mesh1, mesh2, found, truth)
        progress("drawing", 1.0)
        _save_map(found, folder / "map.npz")
        described: dict[str, Any] = {
            "source": names[0],
            "target": names[1],
            "n_vertices": sizes,
            "settings": found.settings,
        }
        described |= {"candidates": found.candidates, "n_landmarks": 0 if pairs is None else len(pairs)}
        _save_json({**described, **numbers, **curves}, folder / "metrics.json")
        picture = draw_match(mesh1, mesh2, found.p2p_21, landmarks=found.landmarks, titles=titles)
        save_picture(picture, folder / "match.png")
        write_report(folder / "report.html", mesh1, mesh2, found, names=names, measures={**numbers, **curves})
    for name, value in numbers.items():
        print(f"{name:28s} {value:.4f}")
    print(f"wrote map.npz, metrics.json, match.png and report.html to {out}")


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
        meshes: a folder (all ordered pairs), or a text file with "source target [landmark_file]" a line.
        out: folder for the results.
        landmarks: of a folder's meshes: a folder with <mesh>.json (name -> vertex). By default those beside
            the meshes. Names that two surfaces share are paired.
        engine: loky works on this machine, dask and ray also on a cluster that is already running.
        jobs: pairs at once; by default one a core.
        k: number of eigenfunctions of the final maps.
    """
    from geoframe import batch

    pairs = _listed_pairs(meshes) if meshes.is_file() else _folder_pairs(meshes, landmarks)
    with _progress(f"{len(pairs)} pairs") as progress:
        records = batch.match_all(pairs, out, k=k, engine=engine, jobs=jobs, progress=progress)
    _print_summary(records)
    done = sum(r["status"] == "done" for r in records)
    print(f"{done} of {len(records)} pairs done; wrote {out / 'summary.csv'}")
    if not done:
        raise RuntimeError("no pair could be matched; each one's JSON file says why")


COMMANDS: dict[str, Callable[..., None]] = {"info": info, "match": match, "match-all": match_all}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's own) and return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from geoframe import __version__

        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        return _complain(
            "geoframe", f"unknown command {words[0]!r}; expected one of {', '.join(COMMANDS)}", 2
        )
    program = f"geoframe {words[0]}"
    command = _parse(COMMANDS[words[0]], program, words[1:])
    if isinstance(command, int):
        return command
    try:
        command()
        return 0
    except KeyboardInterrupt:
        return _complain(program, "interrupted", 130)
    except Exception as err:
        if debug:
            raise
        if _is_bad_input(err):
            return _complain(program, str(err), 2)
        return _complain(program, f"failed with {type(err).__name__}: {err}; add --debug to see where", 1)


def _help() -> str:
    import geoframe

    lines = [
        "usage: geoframe COMMAND [OPTIONS]",
        "",
        (geoframe.__doc__ or "").split("\n")[0],
        "",
        "commands:",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:10s} {(command.__doc__ or '').splitlines()[0]}")
    lines += ["", "geoframe COMMAND --help tells more; --debug shows where a failure comes from; --version."]
    return "\n".join(lines)


def _complain(program: str, message: str, status: int) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _is_bad_input(err: Exception) -> bool:
    if not isinstance(err, _BAD_INPUT):
        return False
    from numpy.linalg import LinAlgError

    return not isinstance(err, LinAlgError)  # a ValueError by inheritance, but no fault of the input's


def _parse(command: Callable[..., None], program: str, words: list[str]) -> Callable[[], None] | int:
    """The command with its arguments bound, or the exit status if there is nothing to run.

    What the parser has to say against the words, a box of several lines, is squeezed into one.
    """
    import functools

    import tyro

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **kwargs)

    style = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(bind, prog=program, args=words, config=style)  # type: ignore[return-value]
    except SystemExit as stop:
        if not stop.code:
            return 0
        lines = [line.strip("│╰╯ ") for line in complaint.getvalue().splitlines()[1:]]  # less the box's title
        rule = next((i for i, line in enumerate(lines) if line and not line.strip("─")), len(lines))
        return _complain(program, f"{' '.join(lines[:rule])}; see {program} --help", 2)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[str, float], None]]:
    """A callable (step, share done) that moves a bar on stderr; it does nothing where nobody is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=1.0, step="")
        yield lambda step, share: bar.update(task, completed=share, step=step)


def _load_mesh(path: Path) -> Any:
    """The mesh of a file; a file of points only is refused."""
    from geoframe.surface import Mesh, load

    surface = load(path)
    if not isinstance(surface, Mesh):
        raise ValueError(f"{path}: expected a mesh, found points without faces; reconstruct a surface first")
    return surface


def _read_pairs(path: Path, source: Path, target: Path) -> Any:
    """(L, 2) vertex pairs from a file of pairs, or from a folder of <mesh>.json files with named vertices."""
    from geoframe.surface import pair_landmarks, read_landmarks, read_named_landmarks

    if not path.is_dir():
        return read_landmarks(path)
    named1, named2 = (read_named_landmarks(path / f"{mesh.stem}.json") for mesh in (source, target))
    try:
        return pair_landmarks(named1, named2)
    except ValueError as err:
        raise ValueError(f"{path}: {source.stem}.json and {target.stem}.json share no landmark name") from err


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Complaints about what a file held are told with its name."""
    try:
        yield
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def _measure(mesh1: Any, mesh2: Any, found: Any, truth: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers and curves that say how good the map is: the energies of `match`, and the error against `truth`."""
    numbers = {name: float(value) for name, value in found.energies.items()}
    if found.ambiguity is not None:
        numbers["ambiguity"] = float(found.ambiguity)
    if truth is None:
        return numbers, {}
    import torch

    from geoframe.surface.geodesics import geodesic_pairs

    method = _exact_or_dijkstra(mesh1)
    predicted = found.p2p_21[truth[:, 1]]
    errors = geodesic_pairs(mesh1, predicted, truth[:, 0], method=method) / mesh1.area.sqrt()
    thresholds = torch.linspace(0, max(0.1, float(errors.max())), 101, dtype=errors.dtype)
    share = (errors[None] <= thresholds[:, None]).double().mean(1)
    numbers |= {"geodesic_error_mean": float(errors.mean()), "geodesic_error_max": float(errors.max())}
    curve = {"threshold": thresholds.tolist(), "share": share.tolist(), "distances": method}
    return numbers, {"geodesic_error_curve": curve}


def _exact_or_dijkstra(mesh: Any) -> str:
    """Exact distances where they are defined, on manifold meshes; heat is no choice, it is off at short range."""
    from geoframe._optional import require
    from geoframe.surface import health

    if not health(mesh).is_manifold:
        return "dijkstra"
    require("pygeodesic.geodesic", extra="geometry")
    return "exact"


def _save_map(found: Any, path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        arrays = {name: getattr(found, name).cpu().numpy() for name in ("p2p_21", "p2p_12", "C_12", "C_21")}
        np.savez_compressed(file, **arrays)


def _save_json(value: Any, path: Path) -> None:
    import json

    path.write_text(json.dumps(value, indent=1, default=float) + "\n", encoding="utf-8")


def _folder_pairs(folder: Path, landmarks: Path | None) -> list[Any]:
    """All ordered pairs of a folder, with the landmarks of <mesh>.json beside the meshes or in another folder."""
    from geoframe import batch
    from geoframe.surface import read_named_landmarks

    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of meshes or a list of pairs, found nothing there")
    if landmarks is not None and not landmarks.is_dir():
        raise ValueError(f"{landmarks}: expected a folder with <mesh>.json files, found none there")

    def landmarks_of(mesh: Path) -> dict[str, int] | None:
        file = (landmarks or folder) / f"{mesh.stem}.json"
        return read_named_landmarks(file) if file.exists() else None

    return batch.all_pairs(folder, landmarks_of)


def _listed_pairs(file: Path) -> list[Any]:
    """The pairs of a text file, "source target [landmark_file]" a line, paths relative to the file."""
    import shlex

    from geoframe import batch

    pairs = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
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
        dots = _read_pairs(words[2], words[0], words[1]) if len(words) == 3 else None
        pairs.append(
            batch.Pair(words[0], words[1], None if dots is None else tuple(map(tuple, dots.tolist())))
        )
    return pairs


def _print_summary(records: list[dict[str, Any]]) -> None:
    """A table of the pairs that are done (the first 50) and a line for every one that failed."""
    from rich.console import Console
    from rich.table import Table

    done = [r for r in records if r["status"] == "done"]
    names = list(dict.fromkeys(n for r in done for n in r["measures"]))
    table = Table("source", "target", *names)
    for r in done[:50]:
        table.add_row(r["source"], r["target"], *(f"{r['measures'].get(n, float('nan')):.4f}" for n in names))
    if done:
        Console().print(table)
    if len(done) > 50:
        print(f"({len(done) - 50} more in the files)")
    for r in records:
        if r["status"] == "error":
            print(f"failed: {r['source']} to {r['target']}: {' '.join(r['error'].split())}")
