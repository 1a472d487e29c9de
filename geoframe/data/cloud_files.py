"""Point clouds of a category from disk, in the layouts people have them in."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
_MESHES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
_CLOUDS = (".npy", ".txt", ".xyz", ".pts")
_PREDICTED = ".keypoints.ply"  # what `geoframe keypoints predict` writes; no clouds of a data set
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
) -> CloudSet:
    """The clouds of a category, in the files' units.

    `path` is one of:

    - "procedural": seeded chairs and tables of `geoframe.zoo`, 256 to train and 64 to test, for people without
      data (y up, with parts and correspondence);
    - a folder with CATEGORY.npz, arrays `train` and `test` of shape (n, N, 3), or such a file (z up);
    - ModelNet10/40: CATEGORY/train/*.off and CATEGORY/test/*.off (z up); surfaces are sampled;
    - ShapeNet-part: synsetoffset2category.txt, train_test_split/ and <synset>/*.txt with columns
      x y z nx ny nz part (y up, with parts);
    - Dynamic FAUST: registrations_m.hdf5 or registrations_f.hdf5, a category such as 50009_jiggle_on_toes (y up);
    - a folder of meshes or clouds: CATEGORY/{train,test}/*, CATEGORY/* or the files themselves (z up). Any
      mesh file that `geoframe.load` reads, PLY clouds, .npy (N, 3) and text of numbers (.txt, .xyz, .pts).

    A `raw` folder in between, as torch_geometric keeps it, is looked into. Without a split on disk every
    seventh file by name is for the test (15 %, as in the paper). Names are those of the files without suffix;
    where they repeat, with folder and suffix. `clouds_from_pyg` takes a torch_geometric data set.

    Args:
        split: "train", "test", "val" (where the layout has it) or "all". n_points: N of every cloud; meshes are
            sampled by area, clouds are thinned at random, smaller ones repeat points.
        up: "x", "y" or "z" instead of the layout's. limit: only the first so many. seed: of the samples; of
            procedural clouds it chooses the shapes, and is at most 99.
        surfaces: keep the meshes as well, where every cloud is a sample of one.

    Raises:
        ValueError: nothing there, an empty folder, a category that does not exist, a file that cannot be read.
    """
    check_choice(split, SPLITS, "split")
    check_int(n_points, "n_points", low=2)
    if limit is not None:
        check_int(limit, "limit", low=1)
    axis = None if up is None else _AXES[check_choice(up, tuple(_AXES), "up")]
    if str(path) == "procedural":
        found = _procedural(category, split, n_points, seed, limit, surfaces)
    else:
        found = _from_disk(_root(path), category, split, n_points, seed, limit, surfaces)
    return found if axis is None else replace(found, up=axis)


def has_splits(path: str | Path, category: str) -> bool:
    """Whether what `load_clouds` takes comes in parts to train and to test; not so a plain folder of files.

    Raises:
        ValueError: nothing there.
    """
    if str(path) == "procedural" or _layout(root := _root(path), category) != "folder":
        return True
    base = root / category if (root / category).is_dir() else root
    return any((base / s).is_dir() for s in _STORED)


def known_up(path: str | Path, category: str) -> str | None:
    """The vertical axis, "x", "y" or "z", where the layout of what `load_clouds` takes decides it; else None.

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
        category: number of the category, which entries have as `category` (ShapeNet) or as their one `y`
            (ModelNet); None takes all entries.
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


def _from_disk(
    root: Path, category: str, split: str, n: int, seed: int, limit: int | None, surfaces: bool
) -> CloudSet:
    layout = _layout(root, category)
    if layout == "npz":
        file = root if root.suffix == ".npz" else root / f"{category}.npz"
        return _npz(file, split, n, seed, limit)
    if layout == "ShapeNet-part":
        return _shapenet_part(root, category, split, n, seed, limit)
    if layout == "Dynamic FAUST":
        return _dynamic_faust(root, category, split, n, seed, limit, surfaces)
    if root.is_file():
        raise ValueError(f"{root}: expected a folder, .npz or .hdf5; use load_cloud for one mesh or cloud")
    return _folder(root, category, split, n, seed, limit, surfaces)


def _rng(seed: int, i: int) -> np.random.Generator:
    return np.random.default_rng([seed, i])


def _draw(n_have: int, n: int, rng: np.random.Generator) -> Tensor:
    """n indices of n_have: all different where there are enough, else all and some again."""
    order = rng.permutation(n_have)
    extra = rng.integers(0, max(n_have, 1), max(0, n - n_have))
    return torch.as_tensor(np.concatenate([order, extra])[:n])


def _sample(mesh: Mesh, n: int, seed: int) -> Tensor:
    return sample_surface(mesh, n, generator=seed).points


def _npz(file: Path, split: str, n: int, seed: int, limit: int | None) -> CloudSet:
    wanted = _STORED if split == "all" else (split,)
    with _reading(file, "an npz file of arrays of numbers"), np.load(file, allow_pickle=False) as data:
        there = data.files
        arrays = {s: np.asarray(data[s], np.float32) for s in wanted if s in there}
    if not arrays:
        need = " or ".join(map(repr, wanted))
        raise ValueError(f"{file}: expected an array {need}, found {', '.join(there) or 'none'}")
    drawn, names = [], []
    for name, array in arrays.items():
        if array.ndim != 3 or array.shape[2] != 3 or not len(array):
            raise ValueError(f"{file}: expected {name!r} of shape (n, N, 3), found {array.shape}")
        points = torch.as_tensor(array)
        if n != points.shape[1]:
            pick = torch.stack([_draw(points.shape[1], n, _rng(seed, i)) for i in range(len(points))])
            points = points.gather(1, pick[..., None].expand(-1, -1, 3))
        drawn.append(points)
        names += [f"{name}_{i:04d}" for i in range(len(points))]
    return _named(file, CloudSet, torch.cat(drawn)[:limit], tuple(names[:limit]), 2)


@contextlib.contextmanager
def _reading(file: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong with a file that is truncated, empty or something else is told with its name.

    Not in the words of numpy, which for arrays of objects are the advice to load them unsafely.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of files without a line; we tell
            yield
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as err:
        where = f" ({err})" if " at row " in str(err) else ""
        raise ValueError(f"{file}: expected {what}, found something else or a truncated file{where}") from err


def _named(file: Path, make: Callable[..., CloudSet], *args: Any) -> CloudSet:
    """Complaints about the content are told with the file's name."""
    try:
        return make(*args)
    except ValueError as err:
        raise ValueError(f"{file}: {err}") from err


def _shapenet_part(root: Path, category: str, split: str, n: int, seed: int, limit: int | None) -> CloudSet:
    lines = read_text(root / "synsetoffset2category.txt").split("\n")
    ids = {words[0].lower(): words[1] for line in lines if len(words := line.split()) == 2}
    if category.lower() not in ids:
        raise ValueError(f"{root}: expected a category among {', '.join(sorted(ids))}, found {category!r}")
    synset = ids[category.lower()]
    listing = root / "train_test_split" / f"shuffled_{split}_file_list.json"
    if listing.is_file():
        entries = [Path(e).parts[-2:] for e in json.loads(read_text(listing))]
        files = [root / synset / f"{name}.txt" for folder, name in entries if folder == synset]
    else:
        files = _share(sorted((root / synset).glob("*.txt")), split)
    if not files:
        raise ValueError(f"{root / synset}: expected the {split} clouds of {category}, found none")
    files = sorted(files)[:limit]
    tables = [_text(f) for f in files]
    if any(t.shape[1] != 7 for t in tables):
        raise ValueError(f"{root / synset}: expected text of seven columns, x y z nx ny nz part")
    picks = [_draw(len(t), n, _rng(seed, i)) for i, t in enumerate(tables)]
    rows = torch.stack([t[p] for t, p in zip(tables, picks, strict=True)])
    return CloudSet(rows[..., :3].contiguous(), tuple(f.stem for f in files), 1, rows[..., 6].long())


def _text(file: Path) -> Tensor:
    """A table (N, C) of numbers; a first line that is one number, the count, is skipped."""
    with _reading(file, "lines of as many numbers each"):
        lines = read_text(file).split("\n")
        first = int(len(lines[0].replace(",", " ").split()) == 1)
        delimiter = "," if "," in "".join(lines[1:2]) else None
        data = np.loadtxt(lines[first:], dtype=np.float32, ndmin=2, delimiter=delimiter)
    if data.shape[0] == 0 or data.shape[1] < 3:
        raise ValueError(f"{file}: expected lines of at least three numbers, found shape {data.shape}")
    return torch.as_tensor(data)


def _dynamic_faust(
    root: Path, category: str, split: str, n: int, seed: int, limit: int | None, surfaces: bool
) -> CloudSet:
    h5py = require("h5py", extra="train")
    files = [root] if root.is_file() else sorted(root.glob("registrations_*.hdf5"))
    known: list[str] = []
    for file in files:
        with _reading(file, "an hdf5 file of registrations"), h5py.File(file, "r") as data:
            known += [k for k in data if k != "faces"]
            if category not in data:
                continue
            frames = torch.as_tensor(np.moveaxis(np.asarray(data[category], np.float32), 2, 0))
            faces = torch.as_tensor(np.asarray(data["faces"], np.int64))
        chosen = _share(range(len(frames)), split)[:limit]
        meshes = tuple(Mesh(frames[i], faces) for i in chosen)
        points = torch.stack([_sample(m, n, seed + i) for m, i in zip(meshes, chosen, strict=True)])
        names = tuple(f"{category}_{i:05d}" for i in chosen)
        return CloudSet(points, names, 1, surfaces=meshes if surfaces else None)
    raise ValueError(
        f"{root}: expected a sequence among {', '.join(sorted(known)[:8])}, ..., found {category!r}"
    )


def _share(items: Any, split: str) -> list[Any]:
    """Every seventh entry for the test (and for validation), the others to train; or all."""
    return [x for i, x in enumerate(items) if split == "all" or (i % 7 == 6) == (split != "train")]


def _folder(
    root: Path, category: str, split: str, n: int, seed: int, limit: int | None, surfaces: bool
) -> CloudSet:
    """Files below CATEGORY, or the folder's own where it holds no categories."""
    base = root / category
    if not base.is_dir():
        folders = [f.stem for f in sorted(root.iterdir()) if _is_category(f)]
        if folders or not (list_cloud_files(root) or any((root / s).is_dir() for s in _STORED)):
            there = ", ".join(folders[:12]) or "neither"
            raise ValueError(
                f"{root}: expected category {category!r} or files of meshes or clouds, found {there}"
            )
        base = root
    loose = list_cloud_files(base)
    if split == "all":
        files = [*loose, *(f for s in _STORED if (base / s).is_dir() for f in list_cloud_files(base / s))]
    else:
        files = list_cloud_files(base / split) if (base / split).is_dir() else _share(loose, split)
    if not files:
        hint = f" ({split!r} is every seventh of the {len(loose)} here; take split 'all')" if loose else ""
        known = ", ".join((*_MESHES, *_CLOUDS))
        raise ValueError(f"{base}: expected {split} files of meshes or clouds ({known}), found none{hint}")
    files = files[:limit]
    points, meshes = [], []
    for i, file in enumerate(files):
        cloud, mesh = _read_cloud(file, n, seed, i)
        points.append(cloud)
        if surfaces and mesh is not None:
            meshes.append(mesh)
    kept = tuple(meshes) if len(meshes) == len(files) else None
    names = tuple(f.stem for f in files)
    if len(set(names)) < len(names):
        names = tuple("_".join(f.relative_to(base).parts) for f in files)
    if len(set(names)) < len(names):
        names = tuple(f"{i:04d}_{name}" for i, name in enumerate(names))
    return CloudSet(torch.stack(points), names, 2, surfaces=kept)


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
    known = (*_MESHES, *_CLOUDS)
    files = [f for f in Path(folder).iterdir() if f.is_file() and f.suffix.lower() in known]
    return sorted(f for f in files if not f.name.startswith(".") and not f.name.endswith(_PREDICTED))


def load_cloud(file: str | Path, *, n_points: int = 1024, seed: int = 0) -> Tensor:
    """(n_points, 3) float32 of one file: a mesh is sampled by area, a cloud drawn from, repeating what is short.

    Raises:
        ValueError: naming the file, for one that is missing or not what `load_clouds` reads.
    """
    file = Path(file)
    if file.suffix.lower() not in (*_MESHES, *_CLOUDS):
        known = ", ".join((*_MESHES, *_CLOUDS))
        raise ValueError(f"{file}: expected a mesh or cloud ({known}), found suffix {file.suffix!r}")
    return _read_cloud(file, check_int(n_points, "n_points", low=2), seed, 0)[0]


def _read_cloud(file: Path, n: int, seed: int, i: int) -> tuple[Tensor, Mesh | None]:
    """Points (n, 3) of a file, and its mesh if it is one."""
    if file.suffix.lower() in _MESHES:
        surface = load(file, dtype=torch.float64)
        try:
            if isinstance(surface, Mesh):
                return _sample(surface, n, seed + i).float(), surface
            points = surface.points.float()
        except ValueError as err:
            raise ValueError(f"{file}: {err}") from err
    elif file.suffix.lower() == ".npy":
        with _reading(file, "an array (N, 3) of numbers"):
            array = np.asarray(np.load(file, allow_pickle=False), np.float32)
        if array.ndim != 2 or array.shape[1] < 3:
            raise ValueError(f"{file}: expected an array (N, 3), found shape {array.shape}")
        points = torch.as_tensor(np.ascontiguousarray(array[:, :3]))
    else:
        points = _text(file)[:, :3].contiguous()
    if not bool(points.isfinite().all()):
        raise ValueError(f"{file}: expected finite numbers, found NaN or infinite coordinates")
    if len(points) < n:
        _log.info("%s has %d points, fewer than %d: some are repeated", file, len(points), n)
    return points[_draw(len(points), n, _rng(seed, i))], None


def _procedural(category: str, split: str, n: int, seed: int, limit: int | None, surfaces: bool) -> CloudSet:
    from geoframe.zoo import rigid
    from geoframe.zoo.template import draft

    check_choice(category, rigid.CATEGORIES, "category")
    check_int(seed, "seed", low=0, high=99)  # so that no seed to train reaches the numbers of the test
    first = {"train": (0, 256), "test": (100_000, 64), "val": (200_000, 64)}
    chosen = [first[s] for s in (_STORED if split == "all" else (split,))]
    numbers = [a + 1000 * seed + i for a, count in chosen for i in range(count)][:limit]
    made = [rigid.sample_points(category, i, n) for i in numbers]
    points, canonical, labels = (torch.stack(x) for x in zip(*made, strict=True))
    names = tuple(f"{category}_{i}" for i in numbers)
    meshes = tuple(draft(rigid.sample(category, i))[0] for i in numbers) if surfaces else None
    return CloudSet(points.float(), names, 1, labels, canonical.float(), meshes)
