"""A canonical surface from any mesh: usable at the end, or one clear message."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe import cli, viz
from geoframe.canonical import Surface, make_canonical, surface
from geoframe.cli.match_all import _folder_pairs
from geoframe.surface import Mesh, Symmetry, health, load, save
from geoframe.surface.shapes import icosphere, torus
from geoframe.viz import canonical_page

N = 300
NOSE = 40  # a vertex of the body that no damage touches


def bean() -> Mesh:
    """A closed lopsided body, 642 vertices, mirror-symmetric in y."""
    ball = icosphere(3)
    x, y, z = ball.verts.T
    return ball.with_verts(torch.stack([1.7 * x + 0.3 * z * z, 0.7 * y, z + 0.4 * x * x], 1))


def damaged() -> Mesh:
    """The bean with holes, turned and repeated faces, a fin, a floating ball, a NaN vertex, a collapsed face."""
    body, ball = bean(), icosphere(1)
    rng = np.random.default_rng(0)
    safe = ~(body.faces == NOSE).any(1).numpy()
    faces = body.faces.numpy().copy()
    turned = rng.choice(len(faces), 150, replace=False)
    faces[turned] = faces[turned][:, ::-1]
    twice = faces[rng.choice(len(faces), 40, replace=False)][:, [1, 0, 2]]
    gone = rng.choice(np.flatnonzero(safe), 25, replace=False)
    faces = np.delete(faces, gone, axis=0)
    n = body.n_verts
    verts = torch.cat(
        [body.verts, 0.2 * ball.verts + torch.tensor([0, 0, 2.5]), torch.tensor([[0.0, 0, 1.9]])]
    )
    verts[300] = torch.nan
    fin = [[int(faces[3, 0]), int(faces[3, 1]), len(verts) - 1], [7, 7, 8]]
    return Mesh(verts, torch.from_numpy(np.concatenate([faces, twice, ball.faces.numpy() + n, fin])))


@pytest.fixture
def any_mirror(monkeypatch):
    """Spare the search for a mirror plane where the test is about something else."""
    plane = Symmetry(torch.tensor([0.0, 1, 0]).double(), torch.tensor(0.0).double(), torch.arange(1), 0.0)
    monkeypatch.setattr(surface, "reflective_symmetry", lambda mesh: plane)


def is_usable(mesh: Mesh) -> bool:
    found = health(mesh)
    return found.is_manifold and found.is_oriented and found.n_components == 1 and not found.problems


@pytest.fixture(scope="module")
def mended():
    return make_canonical(damaged(), {"nose": NOSE, "ball": 660}, n_verts=N, k=20)


def test_a_damaged_mesh_becomes_a_usable_surface(mended) -> None:
    body = bean()
    assert not is_usable(damaged())
    assert is_usable(mended) and mended.n_verts == N
    assert health(mended).is_closed and health(mended).facing == "outward"
    assert float((mended.area / body.area - 1).abs()) < 0.03
    assert float((mended.volume / body.volume - 1).abs()) < 0.05
    basis = mended.basis(mended.k)
    identity = basis.vecs.T @ (basis.mass[:, None] * basis.vecs)
    torch.testing.assert_close(identity, torch.eye(20, dtype=torch.float64), atol=1e-8, rtol=0)
    assert mended.distances(mended.landmarks["nose"]).shape == (1, N)


@pytest.mark.parametrize("seed", [2, 5])
def test_a_badly_damaged_mesh_too(seed, any_mirror) -> None:
    """A third of the faces turned, a third repeated, a sixth gone, random fins, NaN: holes meet everywhere."""
    body, rng = bean(), np.random.default_rng(seed)
    verts, faces = body.verts.numpy().copy(), body.faces.numpy().copy()
    turned = rng.random(len(faces)) < 0.3
    faces[turned] = faces[turned][:, ::-1]
    twice = faces[rng.random(len(faces)) < 0.3].copy()
    twice[::2] = twice[::2][:, ::-1]
    faces = faces[rng.random(len(faces)) > 0.15]
    fins = rng.integers(0, len(verts), (6, 3))
    verts[rng.integers(0, len(verts), 3)] = np.nan
    broken = Mesh(torch.tensor(verts), torch.tensor(np.concatenate([faces, twice, fins])))
    made = make_canonical(broken, n_verts=200, k=5)
    assert is_usable(made) and health(made).is_closed and made.n_verts == 200
    assert float((made.area / body.area - 1).abs()) < 0.1


def test_the_notes_tell_every_decision(mended) -> None:
    told = "\n".join(mended.notes)
    for words in (
        "1 vertex with a NaN",
        "kept the largest of 3 components",
        "landmarks left out, their vertices were removed: ball",
        "holes closed with",
        "remeshed: ",
        "mirror plane: residual",
    ):
        assert words in told, words


def test_landmarks_and_functions_are_carried(mended) -> None:
    """Landmarks stay exactly in place; what was not removed finds its nearest vertex."""
    old = damaged()
    assert list(mended.landmarks) == ["nose"]
    place = mended.verts[mended.landmarks["nose"]]
    assert (
        torch.equal(place, old.verts[NOSE]) and int(mended.origin.nearest[NOSE]) == mended.landmarks["nose"]
    )
    carried = (mended.origin.weights[..., None] * old.verts[mended.origin.vertices]).sum(1)
    torch.testing.assert_close(carried, mended.verts)
    gone = mended.origin.nearest < 0
    assert bool(gone[300]) and bool(gone[642:].all()) and int(gone.sum()) < 60
    apart = (mended.verts[mended.origin.nearest[~gone]] - old.verts[~gone]).norm(dim=1)
    assert float(apart.max()) < 0.25


def test_symmetry_is_found(mended) -> None:
    assert float(mended.symmetry.normal[1].abs()) > 0.999
    assert mended.symmetry.residual < 0.01


def test_another_component_can_be_asked_for(any_mirror) -> None:
    made = make_canonical(damaged(), component=1, n_verts=100, k=5)
    assert is_usable(made) and made.n_verts == 100
    assert float(made.verts[:, 2].min()) > 2
    with pytest.raises(ValueError, match=r"component: expected one in \[0, 2\], found 3"):
        make_canonical(damaged(), component=3, n_verts=100)


def test_large_holes_stay_open_and_are_told(any_mirror) -> None:
    body = bean()
    half = Mesh(body.verts, body.faces[body.verts[body.faces][..., 0].mean(1) > 0])
    made = make_canonical(half, n_verts=N, fill_holes=8, k=5)
    assert is_usable(made) and len(health(made).boundary_loops) == 1
    assert any(note.startswith("1 hole left open, of ") for note in made.notes)
    closed = make_canonical(half, n_verts=N, k=5)
    assert health(closed).is_closed


def test_a_mesh_of_the_size_keeps_its_triangles(any_mirror) -> None:
    body = bean()
    made = make_canonical(body, {"nose": NOSE}, n_verts=650, k=5)
    assert torch.equal(made.verts, body.verts) and torch.equal(made.faces, body.faces)
    assert made.landmarks == {"nose": NOSE} and torch.equal(made.origin.nearest, torch.arange(642))


def test_a_vertex_where_sheets_touch_keeps_its_landmark(any_mirror) -> None:
    """Two balls that share one vertex come apart; the landmark stays with the one that is kept, either way."""
    one = icosphere(2)
    top = int(one.verts[:, 2].argmax())
    for scale in (0.5, 2.0):
        other = scale * (one.verts - one.verts[one.verts[:, 2].argmin()]) + one.verts[top]
        low = int(one.verts[:, 2].argmin())
        faces = one.faces + one.n_verts
        faces[one.faces == low] = top
        mesh = Mesh(torch.cat([one.verts, other]), torch.cat([one.faces, faces]))
        made = make_canonical(mesh, {"joint": top}, n_verts=120, k=5)
        torch.testing.assert_close(made.verts[made.landmarks["joint"]], one.verts[top])


def test_what_cannot_be_used_is_told_in_one_line() -> None:
    moebius = _moebius()
    with pytest.raises(ValueError, match="one-sided"):
        make_canonical(moebius, n_verts=100)
    nothing = Mesh(torch.full((4, 3), torch.nan), torch.tensor([[0, 1, 2], [1, 2, 3]]))
    with pytest.raises(ValueError, match="no triangle with area is left"):
        make_canonical(nothing, n_verts=100)
    with pytest.raises(ValueError, match="found no faces"):
        make_canonical(Mesh(torch.zeros(4, 3), torch.zeros(0, 3, dtype=torch.int64)), n_verts=100)
    with pytest.raises(ValueError, match="n_verts"):
        make_canonical(bean(), n_verts=10)
    with pytest.raises(ValueError, match="landmarks"):
        make_canonical(bean(), {"nose": 5000}, n_verts=100)
    with pytest.raises(ValueError, match="all lie on removed parts"):
        make_canonical(damaged(), {"ball": 660}, n_verts=100)


def _moebius() -> Mesh:
    n = 30
    t = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    half = torch.stack([(t / 2).cos() * t.cos(), (t / 2).cos() * t.sin(), (t / 2).sin()], 1) * 0.4
    centre = torch.stack([t.cos(), t.sin(), 0 * t], 1)
    i = torch.arange(n - 1)
    faces = [torch.stack([i, i + 1, n + i], 1), torch.stack([i + 1, n + i + 1, n + i], 1)]
    last = torch.tensor([[n - 1, n, 2 * n - 1], [n, 0, 2 * n - 1]])
    return Mesh(torch.cat([centre + half, centre - half]), torch.cat([*faces, last]))


def test_a_folder_reads_back_the_same(mended, tmp_path) -> None:
    mended.save(tmp_path / "bean", about={"made_from": "bean.obj"})
    assert {p.name for p in (tmp_path / "bean").iterdir()} == {"surface.obj", "surface.json", "surface.npz"}
    back = Surface.load(tmp_path / "bean")
    assert torch.equal(back.verts, mended.verts) and torch.equal(back.faces, mended.faces)
    assert back.landmarks == mended.landmarks and back.notes == mended.notes
    assert all(map(torch.equal, back.origin, mended.origin))
    assert torch.equal(back.symmetry.vertex_map, mended.symmetry.vertex_map)
    assert back.k == mended.k and torch.equal(back.basis(9).vecs, mended.basis(9).vecs)
    nose = mended.landmarks["nose"]
    assert torch.equal(back.distances(nose), mended.distances(nose))
    (tmp_path / "bean" / "surface.npz").unlink()
    with pytest.raises(ValueError, match="as `geoframe canonical` writes it"):
        Surface.load(tmp_path / "bean")


def test_from_two_dirty_files_to_a_map(tmp_path, capsys, monkeypatch) -> None:
    """As a user does it: two canonical folders, their landmarks paired by name. (Pictures have a test of their own.)"""
    blank = np.zeros((2, 2, 3), np.uint8)
    monkeypatch.setattr(canonical_page, "draw_canonical", lambda *args, **kwargs: blank)
    monkeypatch.setattr(viz, "draw_match", lambda *args, **kwargs: blank)
    save(damaged(), tmp_path / "a.obj")
    body = bean()
    save(body.with_verts(body.verts * torch.tensor([1.2, 1.0, 0.9])), tmp_path / "b.off")
    dots = {"nose": NOSE, "left": 9, "right": 100, "top": 5, "low": 200}
    (tmp_path / "dots.json").write_text(json.dumps(dots))
    for name in ("a.obj", "b.off"):
        words = ["canonical", str(tmp_path / name), "--landmarks", str(tmp_path / "dots.json")]
        out = str(tmp_path / "folder" / name[0])
        assert cli.main([*words, "--vertices", "250", "--out", out]) == 0, capsys.readouterr().err
        found = {p.name for p in Path(out).iterdir()}
        assert found == {"surface.obj", "surface.json", "surface.npz", "canonical.png", "report.html"}
        page = (Path(out) / "report.html").read_text()
        assert "data:image/png;base64," in page and "remeshed" in page and "src='http" not in page
    assert "kept the largest of 3 components" in capsys.readouterr().out
    assert cli.main(["info", str(tmp_path / "folder" / "a")]) == 0
    assert "250" in capsys.readouterr().out
    a, b = tmp_path / "folder" / "a", tmp_path / "folder" / "b"
    words = ["match", str(a), str(b), "--k", "20", "--out", str(tmp_path / "ab")]
    assert cli.main(words) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "ab" / "metrics.json").read_text())
    assert metrics["n_landmarks"] == 5 and metrics["source"] == "a"
    with np.load(tmp_path / "ab" / "map.npz") as file:
        p2p_21 = file["p2p_21"]
    one, two = load(a / "surface.obj"), load(b / "surface.obj")
    wanted = two.verts / torch.tensor([1.2, 1.0, 0.9])
    assert float((one.verts[p2p_21] - wanted).norm(dim=1).mean()) < 0.25  # edges are about 0.2
    listed = _folder_pairs(tmp_path / "folder", None)
    pair = next(p for p in listed if p.source.name == "a")
    assert len(listed) == 2 and pair.landmarks is not None and len(pair.landmarks) == 5
    (tmp_path / "list.txt").write_text("folder/a folder/b\n")
    words = [
        "match-all",
        str(tmp_path / "list.txt"),
        "--k",
        "20",
        "--jobs",
        "1",
        "--out",
        str(tmp_path / "all"),
    ]
    assert cli.main(words) == 0, capsys.readouterr().err
    with np.load(tmp_path / "all" / "a--b.npz") as file:
        assert np.array_equal(file["p2p_21"], p2p_21)  # the same map, from the same landmarks


def test_the_picture_shows_what_was_removed(mended) -> None:
    """Eight panels; in the first, what was removed is red; there is nothing red in the second."""
    picture = canonical_page.draw_canonical(damaged(), mended, size=(90, 110)).astype(int)
    assert picture.shape[1] == 4 * 110 and picture.shape[0] >= 2 * 90
    red = (picture[..., 0] - picture[..., 1:].max(-1)) > 60
    first = red[:90, :110]
    assert 20 < first.sum() < 0.2 * (picture[:90, :110] < 250).any(-1).sum()
    assert not red[:90, 110:220].any()
    assert (picture < 250).any(-1)[90 + 34 :].reshape(-1, 4, 110).any((0, 2)).all()  # no panel is empty


def test_complaints_leave_nothing_behind(tmp_path, capsys) -> None:
    save(_moebius(), tmp_path / "m.obj")
    assert cli.main(["canonical", str(tmp_path / "m.obj"), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "one-sided" in told and "m.obj" in told and told.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"m.obj"}
    assert cli.main(["info", str(tmp_path)]) == 2
    assert "folder of geoframe canonical" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["spot_low_resolution", "plane_holes"])
def test_real_files(name, any_mirror) -> None:
    folder = Path(os.environ.get("GEOFRAME_DATA", "")) / "objects"
    if not (folder / f"{name}.obj").is_file():
        pytest.skip("needs the folder objects of GEOFRAME_DATA")
    made = make_canonical(load(folder / f"{name}.obj"), n_verts=700, k=10)
    assert is_usable(made) and abs(made.n_verts - 700) <= 70
    assert health(made).is_closed


def test_handles_are_kept(any_mirror) -> None:
    made = make_canonical(torus(1.0, 0.4, n_around=30, n_tube=12), n_verts=150, k=10)
    assert made.n_verts == 150 and health(made).genus == 1
