"""What the command line says: options by the name typed, whole tables in a pipe, numbers with their nouns."""

from __future__ import annotations

import json

import pytest

from geoframe import cli
from geoframe.cli._common import counted, text_table
from geoframe.cli._words import as_typed
from geoframe.surface import save
from geoframe.surface.shapes import icosphere

SAID = [
    ("match a b --out x --k abc", "--k: expected an integer, found 'abc'"),
    ("match a b --out x --k", "--k: expected an integer, found none"),
    ("match-all a --out x --jobs 1.5", "--jobs: expected an integer, found '1.5'"),
    ("match-all a --out x --engine spark", "--engine: expected one of loky, dask, ray, found 'spark'"),
    ("canonical a --out x --vertices abc", "--vertices: expected an integer, found 'abc'"),
    ("canonical a", "expected --out, found none"),
    ("match", "expected SOURCE, TARGET, --out, found none"),
    (
        "keypoints train --data d --category c --out x --degrees foo",
        "--degrees: expected a number, found 'foo'",
    ),
    ("keypoints predict m --data d --out x --up w", "--up: expected one of x, y, z, found 'w'"),
    ("info --json", "geoframe info: expected MESH, found none"),
]


@pytest.mark.parametrize(("text", "said"), SAID, ids=[s[0] for s in SAID])
def test_a_wrong_value_is_told_with_the_option_and_what_is_expected(text, said, capsys):
    assert cli.main(text.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert "no type matching" not in err and "literal" not in err and "None" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vertices", "0"], "--vertices: expected an integer from 100"),
        (["--component", "7"], "component"),
        (["--fill-holes", "-3"], "--fill-holes: expected an integer"),
    ],
)
def test_the_library_complains_with_the_name_of_the_option(words, said, tmp_path, capsys):
    save(icosphere(3), tmp_path / "ball.off")
    command = ["canonical", str(tmp_path / "ball.off"), "--out", str(tmp_path / "out"), *words]
    assert cli.main(command) == 2
    err = capsys.readouterr().err
    assert said in err and "n_verts" not in err and "fill_holes" not in err


def test_only_options_of_the_command_are_renamed():
    match = cli.COMMANDS["match"]
    assert as_typed("k: expected an integer, found 0", match) == "--k: expected an integer, found 0"
    assert as_typed("a.off: verts: expected finite numbers", match) == "a.off: verts: expected finite numbers"
    assert as_typed("a.off: n_verts: expected", cli.COMMANDS["canonical"]) == "a.off: --vertices: expected"


def test_a_table_is_never_cut():
    rows = [("aeroplane-" * 12, "b", 0.021234, float("nan")), ("c", "d" * 50, 1.0, 2.0)]
    lines = text_table(rows, ("source", "target", "dirichlet", "a measure of a long name")).splitlines()
    assert len(lines) == 4 and rows[0][0] in lines[2] and rows[1][1] in lines[3]
    assert "…" not in "".join(lines) and "..." not in "".join(lines)
    assert lines[2].split()[2:] == ["0.0212", "nan"]
    end = lines[0].index("dirichlet") + len("dirichlet")
    assert lines[2][:end].endswith("0.0212") and lines[3][:end].endswith(
        "1.0000"
    )  # numbers stand at the right


def test_counts_have_their_noun():
    assert (
        counted(1, "loop") == "1 loop" and counted(2, "loop") == "2 loops" and counted(0, "loop") == "0 loops"
    )
    assert (
        counted(1200, "vertex", "vertices") == "1,200 vertices"
        and counted(1, "vertex", "vertices") == "1 vertex"
    )


def test_the_door_of_meshes_refuses_points(tmp_path):
    from geoframe import load_mesh

    (tmp_path / "points.off").write_text("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n")
    with pytest.raises(ValueError, match=r"points.off: expected a mesh, found points without faces"):
        load_mesh(tmp_path / "points.off")
    save(icosphere(1), tmp_path / "ball.off")
    assert load_mesh(tmp_path / "ball.off").n_faces == 80


@pytest.mark.parametrize("content", [[[3, 4], [0, 1]], {"pairs": [[3, 4], [0, 1]]}])
def test_pairs_in_json_are_a_list_or_named(content, tmp_path):
    from geoframe import read_landmarks

    (tmp_path / "pairs.json").write_text(json.dumps(content))
    assert read_landmarks(tmp_path / "pairs.json").tolist() == [[3, 4], [0, 1]]
    (tmp_path / "pairs.json").write_text("[[1, 2, 3]]")
    with pytest.raises(ValueError, match="expected a list of pairs"):
        read_landmarks(tmp_path / "pairs.json")
