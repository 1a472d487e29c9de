"""`geoframe canonical --name-landmarks`: landmarks for an animal, none for a ball, and what is told of both."""

from __future__ import annotations

from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.cli import main
from geoframe.cli.canonical import _with_landmarks
from geoframe.surface import save
from geoframe.surface.shapes import icosphere


def test_landmarks_of_an_animal_are_named_and_kept(tmp_path, capsys):
    animal = zoo.animal("cat", 1000, seed=6, pose=2)
    save(animal.mesh, tmp_path / "cat.obj")
    options = ["--name-landmarks", "--vertices", "1000"]
    assert main(["canonical", str(tmp_path / "cat.obj"), "--out", str(tmp_path / "cat"), *options]) == 0
    told = capsys.readouterr().out
    assert "landmarks named: " in told and "of 32" in told
    surface = Surface.load(tmp_path / "cat")
    assert len(surface.landmarks) >= 20 and set(surface.landmarks) <= set(zoo.landmark_names())
    truth = [animal.landmarks[n] for n in surface.landmarks]
    gap = (surface.verts[list(surface.landmarks.values())] - animal.mesh.verts[truth]).norm(dim=1)
    assert float(gap.median()) < 0.05 * float(animal.mesh.face_areas.sum()) ** 0.5


def test_a_ball_has_none():
    ball = _with_landmarks(Surface.of(icosphere(3)))
    assert not ball.landmarks and "no landmarks named" in ball.notes[-1]


def test_two_sources_of_landmarks_are_one_too_many(tmp_path, capsys):
    save(icosphere(1), tmp_path / "ball.obj")
    (tmp_path / "names.json").write_text('{"top": 0}')
    command = ["canonical", str(tmp_path / "ball.obj"), "--out", str(tmp_path / "ball"), "--name-landmarks"]
    assert main([*command, "--landmarks", str(tmp_path / "names.json")]) == 2
    assert "--name-landmarks" in capsys.readouterr().err
