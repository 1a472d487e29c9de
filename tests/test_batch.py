"""match-all: resumable after SIGKILL, the same files on every engine, failures recorded, damage noticed."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe import batch
from geoframe.cli._common import save_json
from geoframe.maps import match
from geoframe.spectral import basis
from geoframe.surface import Mesh, PointCloud, geodesics, load, operators, save

pytestmark = pytest.mark.long

K = 12


def _blob(seed: int, n: int = 12) -> Mesh:
    """A smooth, lopsided closed surface; all seeds share their connectivity, so vertex i is vertex i."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, n + 1)[1:-1], np.linspace(0, 2 * np.pi, n, False), indexing="ij"
    )
    t, p = theta.ravel(), phi.ravel()
    sphere = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], 1)
    sphere = np.concatenate([sphere, [[0, 0, 1], [0, 0, -1]]])
    grow = 1 + 0.3 * np.sin(2 * sphere @ [0.9, 0.3, 0.2] + 1) + 0.02 * seed * sphere[:, 1]
    at = np.arange(len(t)).reshape(n - 1, n)
    a, b, c, d = at[:-1], np.roll(at, -1, 1)[:-1], at[1:], np.roll(at, -1, 1)[1:]
    top, low = np.full(n, len(t)), np.full(n, len(t) + 1)
    faces = [(a, c, b), (b, c, d), (top, at[0], np.roll(at[0], -1)), (low, np.roll(at[-1], -1), at[-1])]
    stacked = np.concatenate([np.stack([x.ravel() for x in f], 1) for f in faces])
    return Mesh(torch.tensor(sphere * grow[:, None] * (1.6, 1.0, 0.8)), torch.tensor(stacked))


def _make_set(folder: Path, n: int) -> Path:
    folder.mkdir()
    for i in range(n):
        save(_blob(i), folder / f"s{i}.off")
        names = {"front": 5, "back": 60, "top": 132, "low": 133, f"own{i}": 7}
        (folder / f"s{i}.json").write_text(json.dumps(names))
    return folder


@pytest.fixture
def trio(tmp_path):
    return _make_set(tmp_path / "set", 3)


def _pairs(folder: Path) -> list[batch.Pair]:
    return batch.all_pairs(folder, lambda mesh: json.loads(mesh.with_suffix(".json").read_text()))


def _contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def _times(folder: Path) -> dict[str, int]:
    return {f.name: f.stat().st_mtime_ns for f in folder.glob("s?--s?.*")}


def _run(folder: Path, out: Path, engine: str, cache: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "geoframe", "match-all", folder, "--out", out, "--engine", engine]
    words += ["--jobs", 2, "--k", K]
    env = {**os.environ, "GEOFRAME_CACHE": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(w) for w in words], env=env, start_new_session=True, **pipes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Three surfaces and what one quiet run in this process makes of their 6 pairs."""
    base = tmp_path_factory.mktemp("three")
    folder = _make_set(base / "set", 3)
    records = batch.match_all(_pairs(folder), base / "out", k=K, jobs=1)
    assert len(records) == 6 and all(r["status"] == "done" for r in records)
    return folder, base / "out"


# What goes on where it stopped is files, whatever the engine: dask is killed in the slow suite only.
@pytest.mark.parametrize("engine", ["loky", pytest.param("dask", marks=pytest.mark.slow)])
def test_killed_half_way_and_restarted_gives_the_files_of_a_quiet_run(engine, undisturbed, tmp_path):
    if engine == "dask":
        pytest.importorskip("distributed")
    folder, quiet = undisturbed
    out = tmp_path / "out"
    run = _run(folder, out, engine, tmp_path / "cache")
    deadline = time.time() + 120
    while len(list(out.glob("s?--s?.json"))) < 2:
        assert run.poll() is None and time.time() < deadline, run.communicate()
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    finished = {f.stem for f in out.glob("s?--s?.json")}
    assert 2 <= len(finished) < 6
    before = {n: t for n, t in _times(out).items() if n.rsplit(".", 1)[0] in finished}
    batch.match_all(_pairs(folder), out, k=K, jobs=1)
    assert _contents(out) == _contents(quiet)
    after = _times(out)
    assert {n: after[n] for n in before} == before  # finished pairs were not done again


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_other_engines_give_the_same_files(engine, undisturbed, tmp_path):
    pytest.importorskip("distributed" if engine == "dask" else engine)
    folder, quiet = undisturbed
    pairs = [p for p in _pairs(folder) if {p.source.stem, p.target.stem} <= {"s0", "s1"}]
    batch.match_all(
        pairs, tmp_path / "out", k=K, engine=engine, jobs=1
    )  # a worker more takes seconds to start
    assert [p.name for p in pairs] == ["s0--s1", "s1--s0"]
    for name in (f"{p.name}.{suffix}" for p in pairs for suffix in ("npz", "json")):
        assert (tmp_path / "out" / name).read_bytes() == (quiet / name).read_bytes()


def test_all_ordered_pairs_with_the_landmarks_both_have(trio):
    pairs = _pairs(trio)
    assert [p.name for p in pairs] == ["s0--s1", "s0--s2", "s1--s0", "s1--s2", "s2--s0", "s2--s1"]
    assert all(p.landmarks == ((5, 5), (60, 60), (132, 132), (133, 133)) for p in pairs)
    assert all(p.landmarks is None for p in batch.all_pairs(trio, lambda mesh: None))


def test_the_way_back_is_the_same_alone_and_beside_the_way_there(undisturbed, tmp_path):
    folder, quiet = undisturbed
    back = [p for p in _pairs(folder) if p.name == "s2--s0"]
    batch.match_all(back, tmp_path / "out", k=K, jobs=1)
    for name in ("s2--s0.npz", "s2--s0.json"):
        assert (tmp_path / "out" / name).read_bytes() == (quiet / name).read_bytes()
    with np.load(tmp_path / "out" / "s2--s0.npz") as found:
        assert (found["p2p_21"] == np.arange(134)).mean() > 0.5  # vertex i is vertex i


def test_what_is_wrong_with_a_pair_is_told_in_its_own_order(trio, tmp_path):
    rows = ((5, 500), (60, 60))  # the target has no vertex 500
    pairs = [batch.Pair(trio / f"{a}.off", trio / f"{b}.off", rows) for a, b in (("s0", "s1"), ("s1", "s0"))]
    batch.match_all(pairs, tmp_path / "out", k=K, jobs=1)
    for pair in pairs:
        told = json.loads((tmp_path / "out" / f"{pair.name}.json").read_text())["error"]
        assert "landmarks[:, 1]" in told and "surface 2" in told and "found 500" in told


def test_landmarks_may_be_lists(trio, tmp_path):
    pair = _pairs(trio)[2]
    lists = batch.Pair(pair.source, pair.target, [list(row) for row in pair.landmarks])
    (record,) = batch.match_all([lists], tmp_path / "out", k=K, jobs=1)
    assert record["status"] == "done"


def test_results_hold_the_map_in_the_stated_direction(trio, tmp_path):
    steps: list[tuple[str, float]] = []
    pair = _pairs(trio)[0]
    records = batch.match_all([pair], tmp_path / "out", k=K, jobs=1, progress=lambda *s: steps.append(s))
    assert [r["status"] for r in records] == ["done"]
    with np.load(tmp_path / "out" / "s0--s1.npz") as found:
        assert found["p2p_21"].shape == (134,) and found["p2p_21"].dtype == np.int64
        moved = (found["p2p_21"] == np.arange(134)).mean()  # vertex i is vertex i
    assert moved > 0.5
    assert steps[-1] == ("s0--s1", 1.0) and [s for _, s in steps] == sorted(s for _, s in steps)


def test_files_of_points_are_matched_too(tmp_path):
    (tmp_path / "set").mkdir()
    save(_blob(0), tmp_path / "set" / "a.off")
    save(PointCloud(_blob(1).verts), tmp_path / "set" / "b.pcd")
    names = {"front": 5, "back": 60, "top": 132, "low": 133}
    pairs = batch.all_pairs(tmp_path / "set", lambda mesh: names)
    assert [p.name for p in pairs] == ["a--b", "b--a"]
    (record,) = batch.match_all(pairs[:1], tmp_path / "out", k=K, jobs=1)
    assert record["status"] == "done" and any(
        "surface 2 is a cloud of points" in w for w in record["warnings"]
    )


def test_a_failing_pair_is_recorded_and_tried_again(trio, tmp_path):
    out, good = tmp_path / "out", (trio / "s1.off").read_bytes()
    (trio / "s1.off").write_bytes(good[: len(good) // 2])
    records = batch.match_all(_pairs(trio), out, k=K, jobs=1)
    assert [r["status"] for r in records] == ["error", "done", "error", "error", "done", "error"]
    told = json.loads((out / "s0--s1.json").read_text())
    assert "s1.off" in told["error"] and told["error"].startswith("ValueError")
    assert not (out / "s0--s1.npz").exists()
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["status"] for r in rows] == [r["status"] for r in records]
    assert rows[0]["error"] == told["error"] and not rows[1]["error"]
    kept = _times(out)
    (trio / "s1.off").write_bytes(good)
    assert all(r["status"] == "done" for r in batch.match_all(_pairs(trio), out, k=K, jobs=1))
    assert {n: t for n, t in _times(out).items() if "s1" not in n} == {
        n: t for n, t in kept.items() if "s1" not in n
    }


def _truncate(out: Path) -> None:
    file = out / "s0--s1.npz"
    file.write_bytes(file.read_bytes()[:-50])


def _forge(out: Path) -> None:
    (out / "s0--s1.npz").write_bytes((out / "s1--s0.npz").read_bytes())


def _garble(out: Path) -> None:
    (out / "s0--s1.json").write_text("{")


def _drop(out: Path) -> None:
    (out / "s0--s1.npz").unlink()


@pytest.mark.parametrize("damage", [_truncate, _forge, _garble, _drop])
def test_a_damaged_result_is_noticed_and_redone(damage, undisturbed, tmp_path):
    folder, quiet = undisturbed
    out = shutil.copytree(quiet, tmp_path / "out")  # with the times of the files
    pairs = _pairs(folder)
    whole, times = _contents(out), _times(out)
    damage(out)
    (out / ".s0--s1-abcd1234.npz").write_bytes(b"left by a killed run")
    batch.match_all(pairs, out, k=K, jobs=1)
    assert _contents(out) == whole
    redone = {n for n, t in _times(out).items() if t != times[n]}
    assert redone == {"s0--s1.npz", "s0--s1.json"}


def test_other_settings_or_surfaces_are_not_taken_for_done(trio, tmp_path):
    pair, out = _pairs(trio)[0], tmp_path / "out"
    batch.match_all([pair], out, k=K, jobs=1)

    def key() -> str:
        return json.loads((out / "s0--s1.json").read_text())["key"]

    keys = [key()]
    batch.match_all([pair], out, k=K - 2, jobs=1)
    keys.append(key())
    batch.match_all([batch.Pair(pair.source, pair.target, pair.landmarks[:3])], out, k=K - 2, jobs=1)
    keys.append(key())
    save(_blob(9), pair.source)
    batch.match_all([pair], out, k=K, jobs=1)
    keys.append(key())
    assert len(set(keys)) == 4


def test_what_is_not_a_number_is_null_in_the_files_and_nan_in_the_records(trio, tmp_path, monkeypatch):
    pair, out = _pairs(trio)[0], tmp_path / "out"
    arrays = {"p2p_21": np.arange(3)}
    found = {
        "measures": {"flipped_triangles": math.nan, "bijectivity": np.float32(0.5)},
        "settings": {"k": K},
    }
    monkeypatch.setattr(batch, "_compute", lambda ordered, forwards, k, kept: [(arrays, found)])
    monkeypatch.setattr(batch, "_run", lambda engine, fn, arguments: iter([fn(*a) for a in arguments]))
    (record,) = batch.match_all([pair], out, k=K, jobs=1)
    assert math.isnan(record["measures"]["flipped_triangles"]) and record["measures"]["bijectivity"] == 0.5
    for file in ("s0--s1.json", "summary.json"):
        text = (out / file).read_text()
        assert '"flipped_triangles": null' in text and "NaN" not in text


def test_json_of_any_numbers(tmp_path):
    value = {"b": torch.tensor(2.5), "a": [np.inf, (-math.inf, 1, True, None)], "word": "NaN"}
    save_json(value, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "b": 2.5,
        "a": [None, [None, 1, True, None]],
        "word": "NaN",
    }
    assert text.index('"b"') < text.index('"a"')


def test_bad_input(trio, tmp_path):
    pairs = _pairs(trio)
    with pytest.raises(ValueError, match="k: expected an integer at least 3, found 1"):
        batch.match_all(pairs, tmp_path / "out", k=1)
    with pytest.raises(ValueError, match="pairs: expected at least one"):
        batch.match_all([], tmp_path / "out")
    with pytest.raises(ValueError, match="engine: expected one of 'loky', 'dask', 'ray', found 'spark'"):
        batch.match_all(pairs, tmp_path / "out", engine="spark")
    with pytest.raises(ValueError, match="jobs: expected an integer at least 1"):
        batch.match_all(pairs, tmp_path / "out", jobs=0)
    with pytest.raises(ValueError, match=r"cannot read .*nope\.off: No such file"):
        batch.match_all([batch.Pair(trio / "s0.off", trio / "nope.off")], tmp_path / "out")
    elsewhere = batch.Pair(tmp_path / "s0.off", trio / "s1.off")
    with pytest.raises(ValueError, match="two pairs would share the result s0--s1"):
        batch.match_all([pairs[0], elsewhere], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file"):
        batch.match_all(pairs, tmp_path / "file" / "out")
    with pytest.raises(ValueError, match="expected at least two meshes"):
        batch.all_pairs(tmp_path, lambda mesh: None)
    assert not (tmp_path / "out").exists()


def test_everything_is_computed_once_for_the_whole_set(trio, tmp_path, monkeypatch):
    """One assembly, eigensolve and factorisation a surface, however many pairs it is in."""
    count = dict.fromkeys(("assembly", "eigensolve", "factorisation"), 0)

    def counting(module, attribute, name):
        before = getattr(module, attribute)

        def call(*args, **kwargs):
            count[name] += 1
            return before(*args, **kwargs)

        monkeypatch.setattr(module, attribute, call)

    counting(operators, "_laplacian_of_mesh", "assembly")
    counting(basis, "lowest_pairs", "eigensolve")
    counting(geodesics, "HeatGeodesics", "factorisation")
    monkeypatch.setenv("GEOFRAME_CACHE", "off")
    monkeypatch.setattr(batch, "_run", lambda engine, fn, arguments: iter([fn(*a) for a in arguments]))
    records = batch.match_all(_pairs(trio), tmp_path / "out", k=K, jobs=1)
    assert len(records) == 6 and all(r["status"] == "done" for r in records)
    assert count["eigensolve"] == 3 and count["factorisation"] == 3
    assert not list((tmp_path / "out").glob(".*"))
    one = match(*(load(trio / f"s{i}.off") for i in (0, 1)), torch.tensor(_pairs(trio)[0].landmarks), k=K)
    with np.load(tmp_path / "out" / "s0--s1.npz") as file:
        assert np.array_equal(file["p2p_21"], one.p2p_21)  # and the result is that of `match`


def test_one_match_computes_each_thing_once(trio, monkeypatch):
    count = []
    before = operators._laplacian_of_mesh
    monkeypatch.setattr(operators, "_laplacian_of_mesh", lambda *a: (count.append(a), before(*a))[1])
    match(*(load(trio / f"s{i}.off") for i in (0, 1)), torch.tensor(_pairs(trio)[0].landmarks), k=K)
    assert len(count) == 2
