"""The layouts people have their clouds in, made small; and real data where GEOFRAME_DATA is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geoframe.data import clouds_from_pyg, has_splits, known_up, list_cloud_files, load_clouds
from geoframe.metrics import surface_distance
from geoframe.surface import save
from geoframe.surface.shapes import box, icosphere


@pytest.fixture
def modelnet(tmp_path):
    """Three spheres to train, two boxes to test, as OFF."""
    for split, shapes in (("train", [icosphere(1, r) for r in (1, 2, 3)]), ("test", [box(), box((1, 2, 3))])):
        for i, mesh in enumerate(shapes):
            file = tmp_path / "chair" / split / f"chair_{i:04d}.off"
            file.parent.mkdir(parents=True, exist_ok=True)
            save(mesh, file)
    return tmp_path


def test_modelnet_meshes_are_sampled_on_their_surface(modelnet):
    train, test = (load_clouds(modelnet, "chair", split=s, n_points=200) for s in ("train", "test"))
    assert train.points.shape == (3, 200, 3) and train.up == 2
    assert train.names == ("chair_0000", "chair_0001", "chair_0002")
    radius = train.points.norm(dim=-1)
    assert bool((radius[1] <= 2 + 1e-5).all()) and bool((radius[1] > 1.7).all())
    walls = (test.points[1].abs() * 2 - torch.tensor([1.0, 2, 3])).abs().amin(-1)
    assert float(walls.max()) < 1e-5
    again = load_clouds(modelnet, "chair", n_points=200)
    assert torch.equal(again.points, train.points)
    assert not torch.equal(load_clouds(modelnet, "chair", n_points=200, seed=1).points, train.points)


def test_surfaces_are_kept_where_every_cloud_has_one(modelnet):
    assert load_clouds(modelnet, "chair", n_points=50).surfaces is None
    clouds = load_clouds(modelnet, "chair", n_points=50, surfaces=True)
    procedural = load_clouds("procedural", "table", split="val", n_points=50, limit=2, surfaces=True)
    for some, reach in ((clouds, 1e-6), (procedural, 0.01)):  # what is procedural is smooth, its mesh is not
        ready = some.normalised().first(2)
        assert len(ready.surfaces) == 2
        assert float(surface_distance(ready.points, ready.surfaces).max()) < reach
        assert float(surface_distance(some.points[:2] + 0.3, some.surfaces[:2]).max()) > 0.02
    np.save(modelnet / "chair" / "train" / "cloud.npy", np.random.default_rng(0).random((60, 3)))
    assert load_clouds(modelnet, "chair", n_points=50, surfaces=True).surfaces is None


def test_a_raw_folder_is_looked_into(modelnet, tmp_path_factory):
    root = tmp_path_factory.mktemp("pyg")
    (modelnet / "chair").rename(root / "moved")
    (root / "raw").mkdir()
    (root / "moved").rename(root / "raw" / "chair")
    assert len(load_clouds(root, "chair", n_points=50)) == 3


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "bed.npz", train=rng.random((4, 30, 3)), test=rng.random((2, 30, 3)))
    assert load_clouds(tmp_path, "bed", split="test", n_points=30).points.shape == (2, 30, 3)
    assert load_clouds(tmp_path / "bed.npz", "anything", n_points=10).points.shape == (4, 10, 3)
    more = load_clouds(tmp_path, "bed", n_points=50).points
    assert len(torch.unique(more[0], dim=0)) == 30
    with pytest.raises(ValueError, match=r"bed.npz: expected an array 'val', found"):
        load_clouds(tmp_path, "bed", split="val")
    whole = load_clouds(tmp_path, "bed", split="all", n_points=10)
    assert whole.names[3:5] == ("train_0003", "test_0000") and has_splits(tmp_path, "bed")
    apart = [load_clouds(tmp_path, "bed", split=s, n_points=10).points for s in ("train", "test")]
    assert torch.equal(whole.points, torch.cat(apart))
    assert len(load_clouds(tmp_path, "bed", split="all", n_points=10, limit=5)) == 5
    whole_file = (tmp_path / "bed.npz").read_bytes()
    for content in (b"nonsense", b"", whole_file[:200], whole_file[:-60]):
        (tmp_path / "sofa.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"sofa.npz: expected an npz file of arrays .* truncated file$"):
            load_clouds(tmp_path, "sofa")
    np.savez(tmp_path / "flat.npz", train=np.ones((2, 9, 3)))
    with pytest.raises(ValueError, match="one point repeated"):
        load_clouds(tmp_path, "flat", n_points=9)
    with pytest.raises(ValueError, match=r"expected category 'boat' or files .*, found bed, flat, sofa"):
        load_clouds(tmp_path, "boat")


def test_shapenet_part(tmp_path):
    (tmp_path / "synsetoffset2category.txt").write_text("Airplane\t02691156\nBag\t02773838\n")
    rng = np.random.default_rng(0)
    lists = {"train": ["a1", "a2"], "test": ["a3"]}
    for names in lists.values():
        for name in names:
            table = np.concatenate([rng.random((40, 6)), rng.integers(0, 4, (40, 1))], axis=1)
            file = tmp_path / "02691156" / f"{name}.txt"
            file.parent.mkdir(exist_ok=True)
            np.savetxt(file, table)
    folder = tmp_path / "train_test_split"
    folder.mkdir()
    for split, names in lists.items():
        entries = [f"shape_data/02691156/{n}" for n in names] + ["shape_data/04379243/other"]
        (folder / f"shuffled_{split}_file_list.json").write_text(json.dumps(entries))
    train = load_clouds(tmp_path, "airplane", n_points=40)
    assert train.names == ("a1", "a2") and train.up == 1
    assert train.labels is not None and train.labels.shape == (2, 40)
    table = np.loadtxt(tmp_path / "02691156" / "a1.txt")
    at = torch.cdist(train.points[0], torch.from_numpy(table[:, :3])).argmin(1)
    assert train.labels[0].tolist() == table[at.numpy(), 6].astype(int).tolist()
    assert load_clouds(tmp_path, "Airplane", split="test").names == ("a3",)
    assert load_clouds(tmp_path, "airplane", split="all").names == ("a1", "a2", "a3")
    first = load_clouds(tmp_path, "airplane", n_points=40, limit=1)
    assert first.names == ("a1",) and torch.equal(first.points, train.points[:1])
    assert has_splits(tmp_path, "airplane") and known_up(tmp_path, "airplane") == "y"
    with pytest.raises(ValueError, match="expected a category among airplane, bag, found 'boat'"):
        load_clouds(tmp_path, "boat")
    with pytest.raises(ValueError, match="expected the train clouds of bag, found none"):
        load_clouds(tmp_path, "bag")


def test_dynamic_faust(tmp_path):
    h5py = pytest.importorskip("h5py")
    mesh = icosphere(1)
    frames = np.stack([mesh.verts.numpy() * (1 + 0.1 * t) for t in range(14)], axis=2)
    with h5py.File(tmp_path / "registrations_m.hdf5", "w") as file:
        file["50009_jiggle_on_toes"] = frames
        file["faces"] = mesh.faces.numpy()
    train, test = (
        load_clouds(tmp_path, "50009_jiggle_on_toes", split=s, n_points=64) for s in ("train", "test")
    )
    assert (len(train), len(test), train.up) == (12, 2, 1)
    some = load_clouds(tmp_path, "50009_jiggle_on_toes", split="all", n_points=64, limit=8)
    assert torch.equal(some.points, torch.cat([train.points[:6], test.points[:1], train.points[6:7]]))
    assert float(test.points[0].norm(dim=-1).max()) == pytest.approx(1.6, rel=0.02)
    with pytest.raises(ValueError, match="expected a sequence among 50009_jiggle_on_toes"):
        load_clouds(tmp_path, "50002_run")
    (tmp_path / "registrations_f.hdf5").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"registrations_f.hdf5: expected an hdf5 file"):
        load_clouds(tmp_path, "50009_jiggle_on_toes")


def test_a_folder_of_anything(tmp_path):
    save(icosphere(1), tmp_path / "a.obj")
    np.save(tmp_path / "b.npy", np.random.default_rng(0).random((80, 3)))
    (tmp_path / "c.xyz").write_text("3\n" + "0 0 0\n1 0 0\n0 1 0\n")
    (tmp_path / "d.txt").write_text("0,0,0,9\n1,0,0,9\n0,2,0,9\n")
    (tmp_path / "notes.md").write_text("not a cloud")
    assert [f.name for f in list_cloud_files(tmp_path)] == ["a.obj", "b.npy", "c.xyz", "d.txt"]
    found = load_clouds(tmp_path, "whatever", n_points=60, up="y")
    assert found.names == ("a", "b", "c", "d") and found.up == 1
    assert found.points.shape == (4, 60, 3)
    assert sorted(torch.unique(found.points[3], dim=0).tolist()) == [[0, 0, 0], [0, 2, 0], [1, 0, 0]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_before_the_first_point(tmp_path, encoding):
    for name, text in (("a.xyz", "3\n0 0 0\n1 0 0\n0 1 0\n"), ("b.txt", "0,0,0\n1,0,0\n0,1,0\n")):
        (tmp_path / name).write_text(text, encoding=encoding)
    clouds = load_clouds(tmp_path, "whatever", split="all", n_points=3, up="y")
    expected = [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert [sorted(cloud) for cloud in clouds.points.tolist()] == [expected, expected]


def test_all_files_of_a_folder_or_every_seventh(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).random((20, 3)))
    assert not has_splits(tmp_path, "any")
    assert load_clouds(tmp_path, "any", split="all", n_points=9).names == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"none \('test' is every seventh of the 3 here; take split 'all'\)"):
        load_clouds(tmp_path, "any", split="test")
    for i in range(3, 8):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).random((20, 3)))
    assert load_clouds(tmp_path, "any", split="test", n_points=9).names == ("6",)
    assert len(load_clouds(tmp_path, "any", n_points=9)) == 7


def test_all_joins_the_splits_and_names_differ(modelnet):
    assert has_splits(modelnet, "chair")
    (modelnet / "chair" / "test" / "chair_0001.off").rename(modelnet / "chair" / "test" / "chair_0007.off")
    (modelnet / "chair" / "test" / "chair_0000.off").rename(modelnet / "chair" / "test" / "chair_0008.off")
    names = load_clouds(modelnet, "chair", split="all", n_points=9).names
    assert [n[-1] for n in names] == ["0", "1", "2", "7", "8"]
    np.save(modelnet / "chair" / "chair_0000.npy", np.random.default_rng(0).random((20, 3)))
    names = load_clouds(modelnet, "chair", split="all", n_points=9).names
    assert names[:2] == ("chair_0000.npy", "train_chair_0000.off") and len(set(names)) == 6


def test_hidden_files_and_predictions_are_no_clouds_and_all_names_differ(tmp_path):
    cloud = np.random.default_rng(0).random((20, 3))
    (tmp_path / "train").mkdir()
    for name in ("b.npy", "train_a.npy", "train/a.npy"):
        np.save(tmp_path / name, cloud)
    np.savetxt(tmp_path / "b.xyz", cloud)
    (tmp_path / "._b.npy").write_bytes(b"nonsense")
    (tmp_path / "b.keypoints.ply").write_bytes(b"nonsense")
    assert [f.name for f in list_cloud_files(tmp_path)] == ["b.npy", "b.xyz", "train_a.npy"]
    names = load_clouds(tmp_path, "any", split="all", n_points=9).names
    assert names == ("0000_b.npy", "0001_b.xyz", "0002_train_a.npy", "0003_train_a.npy")


def test_a_limit_reads_no_more(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((20, 3)))
    (tmp_path / "b.npy").write_bytes(b"nonsense")
    assert load_clouds(tmp_path, "any", n_points=9, limit=1).names == ("a",)


def test_procedural_seeds_do_not_meet(monkeypatch):
    made = torch.rand(20, 3), torch.rand(20, 3), torch.zeros(20).long()
    monkeypatch.setattr("geoframe.zoo.rigid.sample_points", lambda category, i, n: made)  # 257 take minutes
    last = load_clouds("procedural", "chair", n_points=20, seed=99).names[-1]
    first = load_clouds("procedural", "chair", split="test", n_points=20, limit=1).names[0]
    assert (last, first) == ("chair_99255", "chair_100000") and has_splits("procedural", "chair")
    with pytest.raises(ValueError, match="seed: expected an integer from 0 to 99, found 100"):
        load_clouds("procedural", "chair", seed=100)
    some = load_clouds("procedural", "chair", split="all", n_points=20, limit=257)
    assert some.names[254:] == ("chair_254", "chair_255", "chair_100000")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"nonsense", r"x.npy: expected an array \(N, 3\)"),
        ("x.npy", b"", r"x.npy: expected an array \(N, 3\)"),
        ("x.txt", b"hello world\nfoo", r"x.txt: expected lines of as many numbers each"),
        ("x.txt", b"1 2 3\n1 foo 3", r"x.txt: expected lines .*'foo'.* at row 1"),
        ("x.pts", b"", r"x.pts: expected lines of at least three numbers"),
        ("x.xyz", b"0 0 nan\n1 1 1\n", r"x.xyz: expected finite numbers"),
        ("x.obj", b"v 0 0\n", r"x.obj"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_clouds(tmp_path, "any", n_points=5)


def test_nothing_there_is_told(tmp_path, modelnet):
    with pytest.raises(ValueError, match="expected a folder or file of clouds, found nothing there"):
        load_clouds(tmp_path / "nowhere", "chair")
    with pytest.raises(
        ValueError, match="expected category 'boat' or files of meshes or clouds, found chair"
    ):
        load_clouds(modelnet, "boat")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="found neither"):
        load_clouds(empty, "chair")
    np.save(modelnet / "stray.npy", np.random.default_rng(0).random((20, 3)))
    with pytest.raises(ValueError, match=r"expected category 'boat' or files .*, found chair"):
        load_clouds(modelnet, "boat")
    with pytest.raises(ValueError, match="split: expected one of"):
        load_clouds(modelnet, "chair", split="dev")
    file = modelnet / "chair" / "test" / "chair_0000.off"
    with pytest.raises(ValueError, match=r"expected a folder, .npz or .hdf5; use load_cloud for one mesh"):
        load_clouds(file, "chair")
    for data in (modelnet, "procedural"):
        with pytest.raises(ValueError, match="limit: expected an integer at least 1, found -1"):
            load_clouds(data, "chair", limit=-1)


def test_pyg_entries():
    pyg = pytest.importorskip("torch_geometric.data")
    mesh = icosphere(1)
    whole = [pyg.Data(pos=mesh.verts.float(), face=mesh.faces.mT) for _ in range(2)]
    assert clouds_from_pyg(whole, n_points=70).points.shape == (2, 70, 3)
    for name in ("y", "category"):  # as in ModelNet and in ShapeNet
        mixed = [pyg.Data(pos=mesh.verts.float() * (i + 1), **{name: torch.tensor([i])}) for i in range(3)]
        one = clouds_from_pyg(mixed, category=2, n_points=42)
        assert len(one) == 1 and float(one.points.norm(dim=-1).mean()) == pytest.approx(3, rel=1e-4)
        with pytest.raises(ValueError, match="at least one cloud of category 7, found none"):
            clouds_from_pyg(mixed, category=7)
    labels = torch.arange(42) % 3
    parts = clouds_from_pyg([pyg.Data(pos=mesh.verts.float(), y=labels)], n_points=42, up="y")
    assert parts.labels is not None and parts.up == 1
    at = torch.cdist(parts.points[0], mesh.verts.float()).argmin(1)
    assert torch.equal(parts.labels[0], labels[at])
    with pytest.raises(ValueError, match="at least one cloud"):
        clouds_from_pyg([])
    assert len(clouds_from_pyg([SimpleNamespace(pos=mesh.verts)], n_points=10)) == 1


def test_modelnet10_at_hand():
    folder = os.environ.get("GEOFRAME_DATA")
    if not folder:
        pytest.skip("GEOFRAME_DATA is not set")
    chairs = load_clouds(Path(folder) / "modelnet10", "chair", split="test")
    assert chairs.points.shape == (100, 1024, 3) and chairs.up == 2
    ready = chairs.normalised().points
    assert float(ready.abs().max()) <= 1 + 1e-5
