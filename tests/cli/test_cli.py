"""The command line as a user meets it: results on disk, one line for whatever is wrong, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from geoframe import cli, maps, viz
from geoframe.surface import Mesh, load, save

OFF_HEAD = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n"


def _bumpy(n: int, stretch: float = 1.0) -> Mesh:
    """A closed lopsided surface of 2 n (n - 1) + 2 vertices."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, n + 1)[1:-1], np.linspace(0, 2 * np.pi, 2 * n, False), indexing="ij"
    )
    t, p = theta.ravel(), phi.ravel()
    sphere = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], 1)
    sphere = np.concatenate([sphere, [[0, 0, 1], [0, 0, -1]]])
    grow = 1 + 0.3 * np.sin(2 * sphere @ [0.9, 0.3, 0.2] + 1)
    at = np.arange(len(t)).reshape(n - 1, 2 * n)
    a, b, c, d = at[:-1], np.roll(at, -1, 1)[:-1], at[1:], np.roll(at, -1, 1)[1:]
    top, low = np.full(2 * n, len(t)), np.full(2 * n, len(t) + 1)
    faces = [(a, c, b), (b, c, d), (top, at[0], np.roll(at[0], -1)), (low, np.roll(at[-1], -1), at[-1])]
    stacked = np.concatenate([np.stack([x.ravel() for x in f], 1) for f in faces])
    return Mesh(torch.tensor(sphere * grow[:, None] * (1.6, stretch, 0.8)), torch.tensor(stacked))


@pytest.fixture
def files(tmp_path):
    """Two good meshes that share their vertex order, good landmarks, and a folder to work in."""
    save(_bumpy(10), tmp_path / "a.off")
    save(_bumpy(10, 1.2), tmp_path / "b.obj")
    dots = [5, 60, 100, 130, 180, 181]
    (tmp_path / "dots.txt").write_text("# source target\n" + "".join(f"{v} {v}\n" for v in dots))
    (tmp_path / "truth.txt").write_text("".join(f"{v} {v}\n" for v in range(0, 182, 7)))
    return tmp_path


def _words(files, text: str) -> list[str]:
    """Arguments from one string; words that name a file of the folder, or one to be, become paths."""
    return [str(files / w[1:]) if w.startswith("@") else w for w in text.split()]


@pytest.fixture
def undrawn(monkeypatch):
    """Spare the picture where the test is about something else."""
    monkeypatch.setattr(viz, "draw_match", lambda *args, **kwargs: np.zeros((2, 2, 3), np.uint8))


def _listing(folder) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_match_writes_its_four_files(files, capsys):
    words = _words(
        files, "match @a.off @b.obj --landmarks @dots.txt --ground-truth @truth.txt --k 20 --out @new/out"
    )
    before = _listing(files)
    assert cli.main(words) == 0
    out = files / "new" / "out"
    names = {"map.npz", "match.png", "metrics.json", "report.html"}
    assert _listing(files) - before == {"new", "new/out", *(f"new/out/{n}" for n in names)}
    with np.load(out / "map.npz") as found:
        assert found["p2p_21"].shape == (182,) and found["p2p_12"].shape == (182,)
        assert found["C_12"].shape == (20, 20) == found["C_21"].shape
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["source"] == "a" and metrics["n_landmarks"] == 6 and metrics["n_vertices"] == [182, 182]
    assert 0 <= metrics["geodesic_error_mean"] < 0.15  # vertex i is vertex i, and this pair is easy
    curve = metrics["geodesic_error_curve"]
    assert curve["share"] == sorted(curve["share"]) and curve["share"][-1] == 1.0
    said = capsys.readouterr()
    assert "geodesic_error_mean" in said.out and str(out) in said.out
    assert said.err == ""  # no progress bar where nobody is looking
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "geodesic_error_mean" in page and "<polyline" in page


def test_match_takes_files_of_points(files, undrawn, capsys):
    verts = load(files / "b.obj").verts.tolist()
    (files / "b.xyz").write_text("".join(f"{x},{y} {z} 0 0 1\n" for x, y, z in verts))
    words = "match @a.off @b.xyz --landmarks @dots.txt --ground-truth @truth.txt --k 12 --out @out"
    assert cli.main(_words(files, words)) == 0
    assert "warning: surface 2 is a cloud of points" in capsys.readouterr().err
    metrics = json.loads((files / "out" / "metrics.json").read_text())
    assert metrics["geodesic_error_mean"] < 0.05
    assert any("triangles between neighbours" in w for w in metrics["warnings"])


def test_landmarks_by_name_from_a_folder_and_what_is_in_the_output_folder_stays(files, undrawn):
    out = files / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (files / "a.json").write_text(json.dumps({"x": 5, "y": 60, "only a": 3, "z": 130}))
    (files / "b.json").write_text(json.dumps({"z": 130, "y": 60, "x": 5}))
    assert cli.main(_words(files, "match @a.off @b.obj --landmarks @ --k 12 --out @out")) == 0
    assert json.loads((out / "metrics.json").read_text())["n_landmarks"] == 3
    assert (out / "mine.txt").read_text() == "mine"
    assert len(list(out.iterdir())) == 5


def _bad_files(files) -> None:
    verts = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
    contents = {
        "empty.off": "",
        "cut.off": OFF_HEAD,
        "range.off": verts + "3 0 1 2\n3 0 1 4\n",
        "negative.off": verts + "3 0 1 2\n3 0 1 -1\n",
        "points.off": "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n",
        "one.off": "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
        "mesh.stp": "1 2 3",
        "range.txt": "0 0\n5 182\n",
        "malformed.txt": "0 0\n5 60\n7 seven\n",
        "three.txt": "0 0\n1 2 3\n",
        "none.txt": "# nothing\n\n",
        "list.txt": "a.off\n",
        "gone.txt": "a.off nope.off\n",
    }
    for name, text in contents.items():
        (files / name).write_text(text)
    nan = load(files / "a.off")
    nan.verts[3, 1] = float("nan")
    save(nan, files / "nan.off")


BAD = [
    ("match @nope.off @b.obj --out @out", "nope.off: no such file"),
    ("match @a.off @empty.off --out @out", "empty.off: the file is empty"),
    ("match @a.off @cut.off --out @out", "cut.off"),
    ("match @a.off @range.off --out @out", "range.off"),
    ("match @a.off @negative.off --out @out", "negative.off"),
    ("match @a.off @points.off --out @out", "points.off: cloud: expected at least 50 points"),
    ("match @a.off @mesh.stp --out @out", "unknown suffix"),
    ("match @a.off @nan.off --out @out", "finite"),
    ("match @a.off @one.off --k 12 --out @out", "k: expected"),
    ("match @a.off @b.obj --k 1000 --out @out", "k: expected"),
    ("match @a.off @b.obj --landmarks @nope.txt --out @out", "nope.txt"),
    (
        "match @a.off @b.obj --landmarks @range.txt --out @out",
        "range.txt: landmarks: pair 1 has target vertex 182",
    ),
    ("match @a.off @b.obj --landmarks @malformed.txt --out @out", "malformed.txt: line 3"),
    ("match @a.off @b.obj --landmarks @three.txt --out @out", "three.txt: line 2"),
    ("match @a.off @b.obj --landmarks @none.txt --out @out", "at least 1 pair"),
    ("match @a.off @b.obj --ground-truth @range.txt --out @out", "range.txt: target vertices"),
    ("match @a.off @b.obj --ground-truth @malformed.txt --out @out", "malformed.txt: line 3"),
    ("match @a.off @b.obj --landmarks @dots.txt --k 12 --out @a.off", "cannot write to"),
    ("match @a.off @b.obj --landmarks @dots.txt --k 12 --out @a.off/out", "cannot write to"),
    ("match @a.off @b.obj", "--out"),
    ("match @a.off @b.obj --out @out --k many", "--k"),
    ("match @a.off @b.obj --out @out --landmark @dots.txt", "--landmark"),
    ("info @nope.off", "no such file"),
    ("info @points.off", "expected a mesh"),
    ("info", "MESH"),
    ("match-all @nowhere --out @out", "expected a folder of meshes or a list"),
    ("match-all @list.txt --out @out", "list.txt, line 1: expected source target"),
    ("match-all @gone.txt --out @out", "nope.off: No such file"),
    ("match-all @a.off --out @out", "a.off, line 1"),
    ("match-all @ --landmarks @dots.txt --out @out", "expected a folder with <mesh>.json"),
    ("match-all @ --engine spark --out @out", "spark"),
    ("match-all @ --out @a.off/out", "cannot write to"),
    ("frobnicate", "unknown command 'frobnicate'"),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[b[0] for b in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(text, said, files, capsys):
    _bad_files(files)
    before = _listing(files)
    assert cli.main(_words(files, text)) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and told.err.startswith("geoframe")
    assert said in told.err
    assert "Traceback" not in told.err and told.out == ""
    assert _listing(files) == before


def test_a_failure_is_one_line_that_says_how_to_see_more(files, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(maps, "match", fail)
    before = _listing(files)
    words = _words(files, "match @a.off @b.obj --out @out")
    assert cli.main(words) == 1
    assert capsys.readouterr().err == (
        "geoframe match: failed with RuntimeError: first line second line; add --debug to see where\n"
    )
    assert _listing(files) == before
    with pytest.raises(RuntimeError, match="first line"):
        cli.main([*words, "--debug"])


@pytest.mark.parametrize(
    ("error", "status"), [(np.linalg.LinAlgError("singular"), 1), (KeyboardInterrupt(), 130)]
)
def test_what_is_no_fault_of_the_input(error, status, files, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(maps, "match", fail)
    before = _listing(files)
    assert cli.main(_words(files, "match @a.off @b.obj --out @out")) == status
    assert capsys.readouterr().err.count("\n") == 1
    assert _listing(files) == before


def test_a_process_exits_with_the_status_and_no_traceback(files):
    words = [sys.executable, "-m", "geoframe", "info", str(files / "nope.off")]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and "nope.off" in run.stderr


def test_info_tells_what_is_in_a_file(files, capsys):
    assert cli.main(_words(files, "info @a.off")) == 0
    assert "182" in capsys.readouterr().out
    assert cli.main(_words(files, "info @a.off --json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert 182 in told.values() and 360 in told.values()


DEFECTS = {
    "OFF\n6 2 0\n0 0 0\n1 0 0\n0 1 0\n5 0 0\n6 0 0\n5 1 0\n3 0 1 2\n3 3 4 5\n": "components    2",
    "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n": "boundary      1 loop",
    "OFF\n5 3 0\n0 0 0\n1 0 0\n0 1 0\n0 -1 0\n0 0 1\n3 0 1 2\n3 1 0 3\n3 0 1 4\n": "manifold      no",
    "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n2 0 0\n3 0 1 2\n3 0 1 3\n": "1 face without area",
    "OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 1 2 0\n": "1 face with the vertices of an earlier one",
    "OFF\n4 1 0\n0 0 0\n1 0 0\n0 1 0\n9 9 9\n3 0 1 2\n": "1 vertex that no face uses",
}


@pytest.mark.parametrize(("content", "said"), DEFECTS.items(), ids=DEFECTS.values())
def test_info_names_a_defect_and_is_no_failure(content, said, files, capsys):
    (files / "defect.off").write_text(content)
    assert cli.main(_words(files, "info @defect.off")) == 0
    assert said in capsys.readouterr().out


def test_match_all_of_a_list(files, capsys):
    (files / "list.txt").write_text("a.off b.obj dots.txt  # one pair\n\nb.obj a.off\n")
    assert cli.main(_words(files, "match-all @list.txt --jobs 1 --k 12 --out @out")) == 0
    summary = json.loads((files / "out" / "summary.json").read_text())
    assert [(r["source"], r["target"], r["status"]) for r in summary] == [
        ("a", "b", "done"),
        ("b", "a", "done"),
    ]
    assert json.loads((files / "out" / "a--b.json").read_text())["n_landmarks"] == 6
    assert "2 of 2 pairs done" in capsys.readouterr().out


def test_match_all_of_a_folder_goes_on_after_a_failing_pair(files, capsys):
    (files / "cut.off").write_text(OFF_HEAD)
    assert cli.main(_words(files, "match-all @ --jobs 1 --k 12 --out @out")) == 1
    said = capsys.readouterr().out
    assert "2 of 6 pairs done" in said
    assert sum(line.startswith("failed: ") and "cut.off" in line for line in said.splitlines()) == 4


def test_match_all_where_nothing_works_is_a_failure(files, capsys):
    (files / "cut.off").write_text(OFF_HEAD)
    (files / "list.txt").write_text("a.off cut.off\n")
    assert cli.main(_words(files, "match-all @list.txt --jobs 1 --k 12 --out @out")) == 1
    assert "1 of 1 pairs failed" in capsys.readouterr().err


def test_top_level(capsys):
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name}" in told for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0
    for name in cli.COMMANDS:
        assert cli.main([*name.split(), "--help"]) == 0
        assert f"usage: geoframe {name}" in capsys.readouterr().out
    capsys.readouterr()
    assert cli.main(["keypoints", "--help"]) == 0
    told = capsys.readouterr().out
    assert "keypoints train" in told and "landmarks train" not in told


@pytest.mark.parametrize("words", [["--help"], ["match", "--help"]])
def test_help_whose_reader_leaves_early(words):
    """`geoframe match --help | head -1` says nothing on stderr."""
    run = [sys.executable, "-m", "geoframe", *words]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
        asked.stdout.close()
        assert asked.stderr.read() == b""
        assert asked.wait() == 0
