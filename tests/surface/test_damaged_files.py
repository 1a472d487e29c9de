"""Mesh files as they come, damaged, through load, health, eigenbasis and match: a result or one clear line, in time.

Files are worked on in a process of their own, so that one that never ends, or ends the interpreter, is named.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import geoframe
from geoframe import eigenbasis, health
from geoframe.spectral import hks
from geoframe.surface import Mesh, farthest_points, repair, save
from geoframe.surface.health import outliers
from geoframe.surface.resize import resize
from geoframe.surface.shapes import cylinder, icosphere, torus

SECONDS = 10.0  # of processor time for one file
WORKER = """
import json, sys, time, traceback
import torch
from geoframe import eigenbasis, health, load, match
from geoframe.surface.mesh import Mesh
torch.set_num_threads(1)
partner = load(sys.argv[1]) if len(sys.argv) > 1 else None
for path in sys.stdin.read().split("\\n"):
    start, stage, told = time.process_time(), "load", ""
    print(json.dumps({"path": path}), flush=True)
    try:
        surface = load(path)
        if partner is not None:
            stage = "match"
            found = match(surface, partner, k=30)
            assert found.p2p_21.shape == (partner.n_verts,), "another number of vertices"
            assert 0 <= int(found.p2p_21.min()) and int(found.p2p_21.max()) < surface.n_verts, "out of range"
        else:
            if isinstance(surface, Mesh):
                stage = "health"
                str(health(surface))
            stage = "eigenbasis"
            basis = eigenbasis(surface, 30, cache=False)
            assert bool(torch.isfinite(basis.vals).all() and torch.isfinite(basis.vecs).all()), "not finite"
            gram = basis.vecs.T @ (basis.mass[:, None] * basis.vecs)
            assert float((gram - torch.eye(30)).abs().max()) < 1e-6, "not orthonormal"
        stage = "done"
    except Exception as err:
        told = f"{type(err).__name__}: {err}"
    took = time.process_time() - start
    print(json.dumps({"path": path, "stage": stage, "told": told, "seconds": took}), flush=True)
"""


def damaged(data: bytes, is_text: bool, kind: str, rng: np.random.Generator) -> bytes:
    """The content of a file with one damage of a kind."""
    content = bytearray(data)
    if kind == "bytes":
        for at in rng.integers(0, len(content), int(rng.integers(1, 20))):
            content[at] = int(rng.integers(0, 256))
        return bytes(content)
    if kind == "cut":
        return bytes(content[: int(rng.integers(0, len(content)))])
    if not is_text:  # behind the header
        for at in rng.integers(300, len(content), int(rng.integers(1, 20))):
            content[at] = int(rng.integers(0, 256))
        return bytes(content)
    lines = data.split(b"\n")
    if kind == "lines":
        gone = set(rng.integers(0, len(lines), int(rng.integers(1, 30))).tolist())
        return b"\n".join(line for i, line in enumerate(lines) if i not in gone)
    if kind == "count":  # a huge count or index in one of the last lines, or in the first ones
        at = int(rng.choice([int(rng.integers(0, 12)), int(rng.integers(len(lines) // 2, len(lines)))]))
        lines[at] = re.sub(rb"\d+", b"%d" % 10 ** int(rng.integers(5, 20)), lines[at], count=1)
        return b"\n".join(lines)
    digits = [
        i for i, byte in enumerate(data) if 48 <= byte < 58
    ]  # the file stays readable, its numbers change
    for at in rng.choice(digits, int(rng.integers(1, 40))):
        content[at] = int(rng.integers(48, 58))
    return bytes(content)


def with_one_number(mesh: Mesh, rng: np.random.Generator, value: float) -> Mesh:
    """The mesh with one coordinate replaced."""
    verts = mesh.verts.clone()
    verts[int(rng.integers(mesh.n_verts)), int(rng.integers(3))] = value
    return mesh.with_verts(verts)


def text_of(mesh: Mesh, suffix: str) -> bytes:
    """The mesh as a text file; STL has no writer in the library."""
    rows, faces = mesh.verts.tolist(), mesh.faces.tolist()
    points = [" ".join(map(repr, row)) for row in rows]
    if suffix == "obj":
        lines = [*(f"v {p}" for p in points), *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces)]
    elif suffix == "off":
        lines = ["OFF", f"{len(rows)} {len(faces)} 0", *points, *(f"3 {a} {b} {c}" for a, b, c in faces)]
    elif suffix == "ply":
        lines = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *(f"property double {k}" for k in "xyz"),
                 f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", *points,
                 *(f"3 {a} {b} {c}" for a, b, c in faces)]  # fmt: skip
    else:
        loops = ["\n".join(f"vertex {points[i]}" for i in face) for face in faces]
        facets = [f"facet normal 0 0 0\nouter loop\n{loop}\nendloop\nendfacet" for loop in loops]
        lines = ["solid a", *facets, "endsolid a"]
    return "\n".join([*lines, ""]).encode()


def small_surfaces(*, coarse: bool = False) -> dict[str, Mesh]:
    """Surfaces of some hundred vertices, or of two hundred, of which two look alike from several sides."""
    ball = icosphere(2 if coarse else 3)
    bumps = 1 + 0.3 * torch.sin(2 * ball.verts @ torch.tensor([0.9, 0.3, 0.2]).double() + 1)[:, None]
    stretched = ball.with_verts(ball.verts * bumps * torch.tensor([1.6, 1.0, 0.8]).double())
    if coarse:
        tube, ring = cylinder(0.5, 2.0, n_around=16), torus(n_around=24, n_tube=12)
    else:
        tube, ring = cylinder(0.5, 2.0), torus()
    return {"bumpy": stretched, "cylinder": tube, "torus": ring}


def write_damaged_files(
    folder: Path, meshes: dict[str, Mesh], n_numbers: int, n_others: int, seed: int
) -> list[Path]:
    """Files of the surfaces: n_numbers with one coordinate far out, NaN or infinite, n_others otherwise."""
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(n_numbers + n_others):
        name = sorted(meshes)[int(rng.integers(len(meshes)))]
        mesh, suffix = meshes[name], ("obj", "off", "ply", "stl", "binary.ply")[i % 5]
        kind = "number" if i < n_numbers else str(rng.choice(["bytes", "cut", "lines", "count", "digits"]))
        if kind == "number":
            value = float(10 ** rng.uniform(10, 100) * rng.choice([-1, 1]))
            mesh = with_one_number(mesh, rng, value if i % 20 else float(rng.choice([np.nan, np.inf])))
        path = folder / f"{i:03d}-{name}-{kind}.{suffix}"
        if suffix == "binary.ply":
            save(mesh, path)
        else:
            path.write_bytes(text_of(mesh, suffix))
        if kind != "number":
            path.write_bytes(damaged(path.read_bytes(), suffix != "binary.ply", kind, rng))
        paths.append(path)
    return paths


def work_on(paths: list[Path], *more: Path) -> list[dict]:
    """What became of each file: the stage that it reached, what was told, and the seconds it took.

    With one more file, each is matched with that.
    """
    done: list[dict] = []
    while len(done) < len(paths):
        left = "\n".join(map(str, paths[len(done) :]))
        with tempfile.TemporaryFile() as asked:
            asked.write(left.encode())
            asked.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, *map(str, more)],
                stdin=asked,
                stdout=subprocess.PIPE,
                text=True,
            )
        lines: queue.Queue[str] = queue.Queue()
        thread = threading.Thread(
            target=lambda p=process, q=lines: [q.put(line) for line in p.stdout] and q.put("")
        )
        thread.start()
        try:
            record = json.loads(lines.get(timeout=60))  # the interpreter and torch have to start
            while True:
                line = lines.get(timeout=6 * SECONDS)  # other processes may be at work, too
                if not line:
                    break
                record = json.loads(line)
                if "stage" in record:
                    done.append(record)
        except queue.Empty:
            process.kill()
        process.wait()
        thread.join()
        if "stage" not in record:  # it never ended, or took the interpreter with it
            done.append({**record, "stage": "lost", "told": "", "seconds": float("inf")})
    return done


def assert_all_told(records: list[dict]) -> None:
    lost = [r for r in records if r["stage"] == "lost" or r["seconds"] > SECONDS]
    assert not lost, f"no end, or no interpreter left: {lost}"
    for r in records:
        clear = not r["told"] or re.fullmatch(r"(ValueError|TypeError): \S[^\n]{9,600}", r["told"])
        assert clear, r


def test_forty_damaged_files(tmp_path: Path) -> None:
    paths = write_damaged_files(tmp_path, small_surfaces(), 12, 28, seed=1)
    records = work_on(paths)
    assert [r["path"] for r in records] == list(map(str, paths))
    assert_all_told(records)
    stages = Counter(r["stage"] for r in records)
    assert stages["load"] >= 8 and stages["eigenbasis"] >= 3 and stages["done"] >= 2  # each kind is met


@pytest.mark.slow
def test_five_hundred_damaged_files(tmp_path: Path) -> None:
    surfaces = {name: geoframe.template(name) for name in geoframe.templates()}
    assert_all_told(work_on(write_damaged_files(tmp_path, surfaces, 200, 300, seed=2)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("n_numbers", "n_others", "least"), [(3, 5, 2), pytest.param(20, 30, 10, marks=pytest.mark.slow)]
)
def test_damaged_files_are_matched_or_refused(
    n_numbers: int, n_others: int, least: int, tmp_path: Path
) -> None:
    """With a sound surface of another kind, without landmarks."""
    surfaces = small_surfaces(coarse=True)
    save(surfaces["bumpy"], tmp_path / "partner.off")
    records = work_on(
        write_damaged_files(tmp_path, surfaces, n_numbers, n_others, seed=3), tmp_path / "partner.off"
    )
    assert_all_told(records)
    assert Counter(r["stage"] for r in records)["done"] >= least


@pytest.mark.parametrize("value", [1e4, -1e10, 1e40, 1e77, 1e100])
def test_one_vertex_far_out_is_named(value: float) -> None:
    """health says which and how it is mended, the spectrum ends in one line that says it, too, and the rest works."""
    mesh = geoframe.template("cat")
    verts = mesh.verts.clone()
    verts[7, 1] = value
    spoilt = mesh.with_verts(verts)
    h = health(spoilt)
    assert h.outlier_vertices.tolist() == [7]
    assert "1 vertex very far from all others, first 7: repair(mesh, drop_outliers=True)" in h.problems
    json.dumps(h.as_dict(), allow_nan=False)
    try:
        basis = eigenbasis(spoilt, 30, cache=False)
    except ValueError as err:
        assert re.search(r"vertex 7;|first 7: .*drop_outliers", str(err)) and "\n" not in str(err)
    else:
        assert value == 1e4 and bool(torch.isfinite(basis.vecs).all())
    with pytest.raises(ValueError, match=r"expected no outliers, found 1 .*first 7.*drop_outliers"):
        resize(spoilt, 300)
    assert len(set(farthest_points(spoilt, 40).tolist())) == 40
    mended = repair(spoilt, drop_outliers=True)
    assert mended.mesh.n_verts == mesh.n_verts - 1 and int(mended.vertex_map[7]) == -1
    assert health(mended.mesh).problems == []
    assert repair(mended.mesh, drop_outliers=True).mesh.n_verts == mesh.n_verts - 1


def test_no_canonical_surface_has_an_outlier_and_size_is_no_reason() -> None:
    for name in geoframe.templates():
        verts = geoframe.template(name).verts.numpy()
        for scaled in (verts, 1e30 * verts, verts + 1e5):
            assert not len(outliers(scaled)), name
    assert outliers(np.zeros((5, 3))).tolist() == outliers(np.empty((0, 3))).tolist() == []
    assert outliers(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [np.nan, 0, 0], [0, 0, 1e3]])).tolist() == [
        4
    ]


def test_edges_too_long_for_the_triangles_wanted_are_refused() -> None:
    """A wire of 400 strips, each 60,000 times as long as it is wide, would be cut into millions of pieces."""
    wire = cylinder(0.01, 10.0, n_around=400, n_along=1, n_cap=1)
    assert not len(health(wire).outlier_vertices)
    with pytest.raises(ValueError, match=r"longest edges are .* times as long as those wanted"):
        resize(wire, 2000)


def test_pieces_that_share_no_vertex_are_named() -> None:
    """A soup of triangles, as STL files are: its first eigenvalues are zeros, and the way out is said."""
    mesh = geoframe.template("cat")
    soup = Mesh(mesh.verts[mesh.faces].reshape(-1, 3), torch.arange(3 * mesh.n_faces).reshape(-1, 3))
    basis = eigenbasis(soup, 30, cache=False)
    assert basis.vals.tolist() == [0.0] * 30
    with pytest.raises(
        ValueError, match=r"all 30 eigenvalues are zero.*30 or more components.*merge_vertices=True"
    ):
        hks(basis)
    joined = repair(soup, merge_vertices=True).mesh
    assert hks(eigenbasis(joined, 30, cache=False), 5).shape == (mesh.n_verts, 5)
