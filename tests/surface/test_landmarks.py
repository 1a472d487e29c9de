"""Landmark files in their three forms, and every way to get them wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from geoframe.surface import check_landmarks, pair_landmarks, read_landmarks, read_named_landmarks

DATA = os.environ.get("GEOFRAME_DATA")


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_text_with_blanks_and_comments(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "# source target\n\n 3 5\n0\t7   # nose\r\n  \n12 0")
    pairs = read_landmarks(path)
    assert pairs.tolist() == [[3, 5], [0, 7], [12, 0]] and pairs.dtype == torch.int64


def test_json_pairs(tmp_path: Path) -> None:
    assert read_landmarks(write(tmp_path, "a.json", '{"pairs": [[3, 5], [0, 7]]}')).tolist() == [
        [3, 5],
        [0, 7],
    ]


def test_names_pair_in_the_order_of_the_first(tmp_path: Path) -> None:
    first = read_named_landmarks(write(tmp_path, "a.json", '{"nose": 4, "tail": 2, "fin": 9, "ear": 1}'))
    second = read_named_landmarks(write(tmp_path, "b.json", '{"ear": 10, "nose": 40, "tail": 20}'))
    assert pair_landmarks(first, second).tolist() == [[4, 40], [2, 20], [1, 10]]
    with pytest.raises(ValueError, match=r"at least 1 name in common, found \['fin'\] and \['ear'"):
        pair_landmarks({"fin": 9}, second)


@pytest.mark.skipif(not DATA, reason="GEOFRAME_DATA is not set: real landmarks are not there")
def test_real_landmarks() -> None:
    folder = Path(str(DATA)) / "animals/cat_lion"
    for name in ("landmarks.txt", "markers_55.txt"):
        pairs = read_landmarks(folder / name)
        assert pairs.tolist() == [
            [int(w) for w in row.split()] for row in (folder / name).read_text().splitlines()
        ]
        assert torch.equal(check_landmarks(pairs, 7207, 5000), pairs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1 2\n\n3\n", "line 3: expected 'source_vertex target_vertex'.*found '3'"),
        ("a.txt", "1 2 3\n", "line 1"),
        ("a.txt", "1 2\n# ok\n1 two\n", "line 3: .*'1 two'"),
        ("a.txt", "1 -2\n", "line 1"),
        ("a.txt", "1 2.0\n", "line 1"),
        ("a.txt", "1 99999999999999999999\n", "line 1"),
        ("a.txt", "# nothing\n\n", "at least 1 pair"),
        ("a.txt", "", "at least 1 pair"),
        ("a.json", '{"pairs": []}', "at least 1 pair"),
        ("a.json", '{"pairs": [[1, 2], [3]]}', "list of pairs .source_vertex, target_vertex."),
        ("a.json", '{"pairs": [[1, 2.5]]}', "list of"),
        ("a.json", '{"pairs": [[1, true]]}', "list of"),
        ("a.json", '{"pairs": [[1, -1]]}', "list of"),
        ("a.json", '{"pairs": 3}', "list of"),
        ("a.json", '{"nose": 3}', "key 'pairs'; a file of names"),
        ("a.json", "3", "JSON object or list, found int"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"pairs": [[1, 2]], "pairs": [[3, 4]]}', "the key 'pairs' stands twice"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_landmarks(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*none.txt: No such file"):
        read_landmarks(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_landmarks(tmp_path / "b.txt")
    with pytest.raises(ValueError, match="0-based vertex number for 'nose', found '-1'"):
        read_named_landmarks(write(tmp_path, "c.json", json.dumps({"nose": -1})))
    with pytest.raises(ValueError, match="at least 1 name"):
        read_named_landmarks(write(tmp_path, "d.json", "{}"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([[0, 0], [5, 1]], r"pair 1 has source vertex 5, expected one in \[0, 4\]"),
        ([[0, 0], [4, 3]], r"pair 1 has target vertex 3, expected one in \[0, 2\]"),
        ([[-1, 0]], "pair 0 has source vertex -1"),
        ([[0, 0], [1, 1], [0, 2]], "source vertex 0 stands in pairs 0 and 2"),
        ([[0, 1], [1, 1]], "target vertex 1 stands in pairs 0 and 1"),
    ],
)
def test_check_landmarks_values(pairs: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_landmarks(torch.tensor(pairs), 5, 3)


def test_check_landmarks_types() -> None:
    good = torch.tensor([[4, 0], [0, 2]], dtype=torch.int32)
    assert check_landmarks(good, 5, 3).dtype == torch.int64
    assert check_landmarks([[4, 0], [0, 2]], 5, 3).tolist() == good.tolist()
    with pytest.raises(
        TypeError, match=r"landmarks: expected a tensor, a NumPy array or a list of numbers, found str"
    ):
        check_landmarks("nose", 5, 3)
    with pytest.raises(TypeError, match="integer dtype"):
        check_landmarks(torch.zeros(1, 2), 5, 3)
    with pytest.raises(ValueError, match=r"landmarks: expected shape \(L, 2\), found \(3,\)"):
        check_landmarks(torch.tensor([1, 2, 3]), 5, 3)
    with pytest.raises(ValueError, match="at least 1 pair"):
        check_landmarks(torch.zeros(0, 2, dtype=torch.long), 5, 3)


def test_named_landmarks_among_other_things(tmp_path: Path) -> None:
    file = write(tmp_path, "e.json", '{"landmarks": {"nose": 4, "tail": 2}, "symmetry": [0, 1]}')
    assert read_named_landmarks(file) == {"nose": 4, "tail": 2}
    with pytest.raises(ValueError, match="at least 1 name"):
        read_named_landmarks(write(tmp_path, "f.json", '{"landmarks": {}}'))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("1 2\n3 4\n", encoding=encoding)
    (tmp_path / "b.json").write_text('{"pairs": [[1, 2], [3, 4]]}', encoding=encoding)
    (tmp_path / "c.json").write_text('{"nose": 7}', encoding=encoding)
    assert read_landmarks(tmp_path / "a.txt").tolist() == [[1, 2], [3, 4]]
    assert read_landmarks(tmp_path / "b.json").tolist() == [[1, 2], [3, 4]]
    assert read_named_landmarks(tmp_path / "c.json") == {"nose": 7}


def test_a_name_that_stands_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"g.json: .*the key 'nose' stands twice"):
        read_named_landmarks(write(tmp_path, "g.json", '{"nose": 4, "tail": 2, "nose": 5}'))
