"""Point clouds of a category from disk, in the layouts people have them in."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe._files import read_text
from geoframe._optional import require
from geoframe.data.clouds import CloudSet
from geoframe.surface.io import load
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import sample_surface

_log = logging.getLogger(__name__)
_STORED = ("train", "test", "val")
SPLITS = (*_STORED, "all")
_MESHES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf", ".pcd")
_CLOUDS = (".npy", ".txt", ".xyz", ".pts")
_KNOWN = ", ".join((*_MESHES, *_CLOUDS))
PREDICTED = ".keypoints.ply"  # of `geoframe keypoints predict`; no clouds
_SYNONYMS = {"airplane": "aeroplane", "motorcycle": "motorbike"}  # of procedural categories
_AXES = {"x": 0, "y": 1, "z": 2}


def load_clouds(
    path: str | Path,
    category: str,
    *,
    split: str = "train",
    n_points: int = 1024,
    up: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    surfaces: bool = False,
    on_bad_file: Callable[[str], None] | None = None,
) -> CloudSet:
    """The clouds of a category, in the files' units.

    `path` is one of:

    - "procedural": seeded shapes of `geoframe.zoo`, 256 to train and 64 to test (y up, with parts and correspondence).
      Categories are those of `geoframe.zoo.rigid.CATEGORIES`; "procedural-chair" and "airplane" are understood;
    - a folder with CATEGORY.npz, arrays `train` and `test` of shape (n, N, 3), or such a file (z up);
    - ModelNet10/40: ``CATEGORY/train/*.off`` and ``CATEGORY/test/*.off`` (z up); surfaces are sampled;
    - ShapeNet-part: synsetoffset2category.txt, train_test_split/ and ``<synset>/*.txt`` with columns
      x y z nx ny nz part (y up, with parts);
    - Dynamic FAUST: registrations_m.hdf5 or registrations_f.hdf5, a category such as 50009_jiggle_on_toes (y up);
    - a folder of meshes or clouds: ``CATEGORY/{train,test}/*``, ``CATEGORY/*`` or the files themselves (z up). Any
      mesh file that `geoframe.load` reads, PLY and PCD clouds, .npy (N, 3) and text of numbers (.txt, .xyz, .pts).

    A folder `raw` in between, as of torch_geometric, is looked into. Without a split on disk every seventh file by name
    is for the test (15 %, as in the paper). Names are those of the files without suffix; where they repeat, with folder
    and suffix. `clouds_from_pyg` takes a torch_geometric data set.

    Args:
        path: see above.
        category: its name in the data.
        split: "train", "test", "val" (where the layout has it) or "all".
        n_points: N of every cloud; meshes are sampled by area, clouds thinned at random, smaller ones repeat points.
        up: "x", "y" or "z" instead of the layout's vertical axis.
        limit: only the first so many clouds; None for all.
        seed: of the samples; of procedural clouds it chooses the shapes, and is at most 99.
        surfaces: keep the meshes as well, where every cloud is a sample of one.
        on_bad_file: called with one line for every cloud that cannot be read or used, which is then left out; None
            raises at the first.

    Raises:
        ValueError: nothing there, an empty folder, a category that does not exist, a file that cannot be read or holds
            no usable cloud (with `on_bad_file`: not one of them can be).
    """
    check_choice(split, SPLITS, "split")
    check_int(n_points, "n_points", low=2)
    check_int(1 if limit is None else limit, "limit", low=1)
    axis = None if up is None else _AXES[check_choice(up, tuple(_AXES), "up")]
    if str(path) == "procedural":
        found = _procedural(category, split, n_points, seed, limit, surfaces)
    else:
        job = _Job(category, split, n_points, seed, limit, surfaces, on_bad_file)
        found = _from_disk(_root(path), job)
    return found if axis is None else replace(found, up=axis)


@dataclass(frozen=True)
class _Job:
    """What `load_clouds` was asked for."""

    category: str
    split: str
    n: int
    seed: int
    limit: int | None
    surfaces: bool
    on_bad_file: Callable[[str], None] | None

    def each(self, items: Sequence[Any], read: Callable[[int, Any], Any]) -> list[tuple[Any, Any]]:
        """(item, ``read(i, item)``) of all items that can be read; bad ones are told, if there is someone to tell."""
        done = []
        for i, item in enumerate(items):
            try:
                done.append((item, read(i, item)))
            except (ValueError, OSError) as err:
                if self.on_bad_file is None:
                    raise
                self.on_bad_file(" ".join(str(err).split()))
        if items and not done:
            raise ValueError(f"{items[0]}: expected at least one usable cloud, found none of {len(items)}")
        return done


def has_splits(path: str | Path, category: str) -> bool:
    """Whether what `load_clouds` takes comes in parts to train and to test; not so a plain folder of files.

    Args:
        path: as in `load_clouds`.
        category: its name in the data.

    Raises:
        ValueError: nothing there.
    """
    if str(path) == "procedural" or _layout(root := _root(path), category) != "folder":
        return True
    base = root / category if (root / category).is_dir() else root
    return any((base / s).is_dir() for s in _STORED)


def known_up(path: str | Path, category: str) -> str | None:
    """The vertical axis, "x", "y" or "z", where the layout decides it; else None.

    Args:
        path: as in `load_clouds`.
        category: its name in the data.

    Raises:
        ValueError: nothing there.
    """
    if str(path) == "procedural" or _layout(_root(path), category) in ("ShapeNet-part", "Dynamic FAUST"):
        return "y"
    return None


def clouds_from_pyg(
    dataset: Sequence[Any],
    *,
    category: int | None = None,
    n_points: int = 1024,
    up: str = "z",
    seed: int = 0,
) -> CloudSet:
    """Clouds of one category of a torch_geometric data set (ModelNet, ShapeNet, FAUST, ...).

    Entries need `pos` (N, 3); with `face` (3, F) the surface is sampled, else points are drawn; per-point `y`
    gives the parts.

    Args:
        dataset: entries with `pos`.
        category: number of the category, which entries have as `category` (ShapeNet) or as their one `y`
            (ModelNet); None takes all entries.
        n_points: N of every cloud.
        up: the vertical axis, "x", "y" or "z".
        seed: of the samples.

    Returns:
        The clouds, named by number.

    Raises:
        ValueError: no entry of the category.
    """
    check_choice(up, tuple(_AXES), "up")
    drawn, labels = [], []
    for i, entry in enumerate(dataset):
        if category is not None and _category_of(entry) != category:
            continue
        rng = _rng(seed, i)
        face = getattr(entry, "face", None)
        if face is not None and face.numel():
            drawn.append(_sample(Mesh(entry.pos, face.mT.long()), n_points, seed + i))
            continue
        pick = _draw(len(entry.pos), n_points, rng)
        drawn.append(entry.pos[pick])
        if isinstance(y := getattr(entry, "y", None), Tensor) and len(y) == len(entry.pos):
            labels.append(y[pick].long())
    if not drawn:
        of = "" if category is None else f" of category {category}"
        raise ValueError(f"dataset: expected at least one cloud{of}, found none")
    parts = torch.stack(labels) if len(labels) == len(drawn) else None
    return CloudSet(torch.stack(drawn), tuple(f"{i:04d}" for i in range(len(drawn))), _AXES[up], parts)


def _category_of(entry: Any) -> int | None:
    """The number of an entry's category, where it has one."""
    for name in ("category", "y"):
        x = getattr(entry, name, None)
        if isinstance(x, Tensor) and x.numel() == 1:
            return int(x)
    return None


def _root(path: str | Path) -> Path:
    """Where the clouds are: the path, or its folder `raw`."""
    root = Path(path)
    if not root.exists():
        raise ValueError(f"{root}: expected a folder or file of clouds, found nothing there")
    return root / "raw" if (root / "raw").is_dir() else root


def _layout(root: Path, category: str) -> str:
    if root.suffix == ".npz" or (root / f"{category}.npz").is_file():
        return "npz"
    if (root / "synsetoffset2category.txt").is_file():
        return "ShapeNet-part"
    if root.suffix == ".hdf5" or list(root.glob("registrations_*.hdf5")):
        return "Dynamic FAUST"
    return "folder"


def _from_disk(root: Path, job: _Job) -> CloudSet:
    layout = _layout(root, job.category)
    if layout == "npz":
        return _npz(root if root.suffix == ".npz" else root / f"{job.category}.npz", job)
    if layout == "ShapeNet-part":
        return _shapenet_part(root, job)
    if layout == "Dynamic FAUST":
        return _dynamic_faust(root, job)
    if root.is_file():
        raise ValueError(f"{root}: expected a folder, .npz or .hdf5; use load_cloud for one mesh or cloud")
    return _folder(root, job)


def _rng(seed: int, i: int) -> np.random.Generator:
    return np.random.default_rng([seed, i])


def _draw(n_have: int, n: int, rng: np.random.Generator) -> Tensor:
    """n indices of n_have: all different where there are enough, else all and some again."""
    order = rng.permutation(n_have)
    extra = rng.integers(0, max(n_have, 1), max(0, n - n_have))
    return torch.as_tensor(np.concatenate([order, extra])[:n])


def _sample(mesh: Mesh, n: int, seed: int) -> Tensor:
    return sample_surface(mesh, n, generator=seed).points


def _npz(file: Path, job: _Job) -> CloudSet:
    wanted = _STORED if job.split == "all" else (job.split,)
    with _reading(file, "an npz file of arrays of numbers"), np.load(file, allow_pickle=False) as data:
        there = data.files
        arrays = {s: np.asarray(data[s], np.float64) for s in wanted if s in there}
    if not arrays:
        need = " or ".join(map(repr, wanted))
        raise ValueError(f"{file}: expected an array {need}, found {', '.join(there) or 'none'}")
    for name, array in arrays.items():
        if array.ndim != 3 or array.shape[2] != 3 or not len(array):
            raise ValueError(f"{file}: expected {name!r} of shape (n, N, 3), found {array.shape}")
    rows = [(name, i) for name, array in arrays.items() for i in range(len(array))][: job.limit]

    def read(_: int, row: tuple[str, int]) -> Tensor:
        name, i = row
        points = torch.as_tensor(arrays[name][i])
        if job.n != len(points):
            points = points[_draw(len(points), job.n, _rng(job.seed, i))]
        return _usable(points, f"{file}: {name}[{i}]")

    drawn = job.each(rows, read)
    names = tuple(f"{name}_{i:04d}" for (name, i), _ in drawn)
    return CloudSet(torch.stack([points for _, points in drawn]), names, 2)


def _usable(points: Tensor, where: str) -> Tensor:
    """The points, if they are finite and differ."""
    if not bool(points.isfinite().all()):
        raise ValueError(f"{where}: expected finite numbers, found NaN or infinite coordinates")
    if not len(points) or not bool((points.amax(0) > points.amin(0)).any()):
        raise ValueError(f"{where}: expected points that differ, found one point repeated, or none")
    return points


@contextlib.contextmanager
def _reading(file: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong with a file that is truncated, empty or something else is told with its name.

    Not in the words of numpy, which for arrays of objects are the advice to load them unsafely.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of files without a line; we tell
            yield
    except FileNotFoundError as err:
        raise ValueError(f"cannot read {file}: no such file") from err
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as err:
        where = f" ({err})" if " at row " in str(err) else ""
        raise ValueError(f"{file}: expected {what}, found something else or a truncated file{where}") from err


def _shapenet_part(root: Path, job: _Job) -> CloudSet:
    lines = read_text(root / "synsetoffset2category.txt").split("\n")
    ids = {words[0].lower(): words[1] for line in lines if len(words := line.split()) == 2}
    if job.category.lower() not in ids:
        raise ValueError(
            f"{root}: expected a category among {', '.join(sorted(ids))}, found {job.category!r}"
        )
    synset = ids[job.category.lower()]
    listing = root / "train_test_split" / f"shuffled_{job.split}_file_list.json"
    if listing.is_file():
        entries = [Path(e).parts[-2:] for e in json.loads(read_text(listing))]
        files = [root / synset / f"{name}.txt" for folder, name in entries if folder == synset]
    else:
        files = _share(sorted((root / synset).glob("*.txt")), job.split)
    if not files:
        raise ValueError(f"{root / synset}: expected the {job.split} clouds of {job.category}, found none")

    def read(i: int, file: Path) -> Tensor:
        table = _text(file)
        if table.shape[1] != 7:
            raise ValueError(f"{file}: expected text of seven columns, x y z nx ny nz part")
        rows = table[_draw(len(table), job.n, _rng(job.seed, i))]
        _usable(rows[:, :3], str(file))
        return rows

    done = job.each(sorted(files)[: job.limit], read)
    rows = torch.stack([table for _, table in done])
    return CloudSet(rows[..., :3].contiguous(), tuple(f.stem for f, _ in done), 1, rows[..., 6].long())


def _text(file: Path) -> Tensor:
    """A table (N, C) of numbers; a first line that is one number, the count, is skipped."""
    lines = read_text(file).split("\n")
    with _reading(file, "lines of as many numbers each"):
        first = int(len(lines[0].replace(",", " ").split()) == 1)
        delimiter = "," if "," in "".join(lines[1:2]) else None
        data = np.loadtxt(lines[first:], dtype=np.float64, ndmin=2, delimiter=delimiter)
    if data.shape[0] == 0 or data.shape[1] < 3:
        raise ValueError(f"{file}: expected lines of at least three numbers, found shape {data.shape}")
    return torch.as_tensor(data)


def _dynamic_faust(root: Path, job: _Job) -> CloudSet:
    h5py = require("h5py", extra="train")
    files = [root] if root.is_file() else sorted(root.glob("registrations_*.hdf5"))
    known: list[str] = []
    for file in files:
        with _reading(file, "an hdf5 file of registrations"), h5py.File(file, "r") as data:
            known += [k for k in data if k != "faces"]
            if job.category not in data:
                continue
            frames = torch.as_tensor(np.moveaxis(np.asarray(data[job.category], np.float32), 2, 0))
            faces = torch.as_tensor(np.asarray(data["faces"], np.int64))

        def read(_: int, i: int, file: Path = file, frames: Tensor = frames, faces: Tensor = faces) -> Any:
            _usable(frames[i], f"{file}: frame {i} of {job.category}")
            mesh = Mesh(frames[i], faces)
            return mesh, _sample(mesh, job.n, job.seed + i)

        done = job.each(_share(range(len(frames)), job.split)[: job.limit], read)
        points = torch.stack([cloud for _, (_, cloud) in done])
        meshes = tuple(mesh for _, (mesh, _) in done)
        names = tuple(f"{job.category}_{i:05d}" for i, _ in done)
        return CloudSet(points, names, 1, surfaces=meshes if job.surfaces else None)
    raise ValueError(
        f"{root}: expected a sequence among {', '.join(sorted(known)[:8])}, ..., found {job.category!r}"
    )


def _share(items: Any, split: str) -> list[Any]:
    """Every seventh entry for the test (and for validation), the others to train; or all."""
    return [x for i, x in enumerate(items) if split == "all" or (i % 7 == 6) == (split != "train")]


def _folder(root: Path, job: _Job) -> CloudSet:
    """Files below CATEGORY, or the folder's own where it holds no categories."""
    base = root / job.category
    if not base.is_dir():
        folders = [f.stem for f in sorted(root.iterdir()) if _is_category(f)]
        if folders or not (list_cloud_files(root) or any((root / s).is_dir() for s in _STORED)):
            there = ", ".join(folders[:12]) or "neither"
            raise ValueError(
                f"{root}: expected category {job.category!r} or files of meshes or clouds, found {there}"
            )
        base = root
    loose = list_cloud_files(base)
    if job.split == "all":
        files = [*loose, *(f for s in _STORED if (base / s).is_dir() for f in list_cloud_files(base / s))]
    else:
        files = (
            list_cloud_files(base / job.split) if (base / job.split).is_dir() else _share(loose, job.split)
        )
    if not files:
        hint = (
            f" ({job.split!r} is every seventh of the {len(loose)} here; take split 'all')" if loose else ""
        )
        raise ValueError(
            f"{base}: expected {job.split} files of meshes or clouds ({_KNOWN}), found none{hint}"
        )
    done = job.each(files[: job.limit], lambda i, file: _read_cloud(file, job.n, job.seed, i))
    meshes = [mesh for _, (_, mesh) in done if mesh is not None]
    kept = tuple(meshes) if job.surfaces and len(meshes) == len(done) else None
    names = _different_names([file for file, _ in done], base)
    return CloudSet(torch.stack([points for _, (points, _) in done]), names, 2, surfaces=kept)


def _different_names(files: list[Path], base: Path) -> tuple[str, ...]:
    """Of files below `base`: their stems, with folder and suffix where stems repeat, numbered where those do."""
    names = [f.stem for f in files]
    if len(set(names)) < len(names):
        names = ["_".join(f.relative_to(base).parts) for f in files]
    if len(set(names)) < len(names):
        names = [f"{i:04d}_{name}" for i, name in enumerate(names)]
    return tuple(names)


def _is_category(path: Path) -> bool:
    """Whether this is NAME.npz, or a folder of clouds that is not the part to train or to test."""
    if not path.is_dir():
        return path.suffix == ".npz" and not path.name.startswith(".")
    own = path.name not in _STORED and not path.name.startswith(".")
    return own and bool(list_cloud_files(path) or any((path / s).is_dir() for s in _STORED))


def list_cloud_files(folder: str | Path) -> list[Path]:
    """The files in a folder that `load_cloud` reads, by their suffix, sorted; none of what else lies there.

    Hidden files are passed over, and keypoints that `geoframe keypoints predict` wrote.
    """
    files = [f for f in Path(folder).iterdir() if f.is_file() and f.suffix.lower() in (*_MESHES, *_CLOUDS)]
    return sorted(f for f in files if not f.name.startswith(".") and not f.name.endswith(PREDICTED))


def load_cloud(file: str | Path, *, n_points: int = 1024, seed: int = 0) -> Tensor:
    """The points of one file; a mesh is sampled by area, a cloud is drawn from, repeating what is short.

    Args:
        file: a mesh or cloud that `load_clouds` reads.
        n_points: N.
        seed: of the sample.

    Returns:
        (N, 3) float64, so that coordinates with a large offset keep their digits.

    Raises:
        ValueError: naming the file, for one that is missing, is not what `load_clouds` reads or holds no usable cloud.
    """
    file = Path(file)
    if file.suffix.lower() not in (*_MESHES, *_CLOUDS):
        raise ValueError(f"{file}: expected a mesh or cloud ({_KNOWN}), found suffix {file.suffix!r}")
    return _read_cloud(file, check_int(n_points, "n_points", low=2), seed, 0)[0]


def _read_cloud(file: Path, n: int, seed: int, i: int) -> tuple[Tensor, Mesh | None]:
    """Points (n, 3) of a file, and its mesh if it is one."""
    if file.suffix.lower() in _MESHES:
        surface = load(file, dtype=torch.float64)
        try:
            if isinstance(surface, Mesh):
                return _sample(surface, n, seed + i).double(), surface
            seen = surface.points.isfinite().all(1) | (file.suffix.lower() != ".pcd")  # there NaN is not seen
            points = surface.points[seen]
        except ValueError as err:
            raise ValueError(f"{file}: {err}") from err
    elif file.suffix.lower() == ".npy":
        with _reading(file, "an array (N, 3) of numbers"):
            array = np.asarray(np.load(file, allow_pickle=False), np.float64)
        if array.ndim != 2 or array.shape[1] < 3:
            raise ValueError(f"{file}: expected an array (N, 3), found shape {array.shape}")
        points = torch.as_tensor(np.ascontiguousarray(array[:, :3]))
    else:
        points = _text(file)[:, :3].contiguous()
    _usable(points, str(file))
    if len(points) < n:
        _log.info("%s has %d points, fewer than %d: some are repeated", file, len(points), n)
    return points[_draw(len(points), n, _rng(seed, i))], None


def _procedural(category: str, split: str, n: int, seed: int, limit: int | None, surfaces: bool) -> CloudSet:
    from geoframe.zoo import rigid
    from geoframe.zoo.template import draft

    category = category.removeprefix("procedural-")
    category = check_choice(_SYNONYMS.get(category, category), rigid.CATEGORIES, "category")
    check_int(seed, "seed", low=0, high=99)  # so that no seed to train reaches the numbers of the test
    first = {"train": (0, 256), "test": (100_000, 64), "val": (200_000, 64)}
    chosen = [first[s] for s in (_STORED if split == "all" else (split,))]
    numbers = [a + 1000 * seed + i for a, count in chosen for i in range(count)][:limit]
    made = [rigid.sample_points(category, i, n) for i in numbers]
    points, canonical, labels = (torch.stack(x) for x in zip(*made, strict=True))
    names = tuple(f"{category}_{i}" for i in numbers)
    meshes = tuple(draft(rigid.sample(category, i))[0] for i in numbers) if surfaces else None
    return CloudSet(points.float(), names, 1, labels, canonical.float(), meshes)
