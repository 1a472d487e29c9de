"""The rules of the house: who may import whom, what loads lazily, what every public name owes its reader."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import geoframe

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "geoframe").rglob("*.py"))
NAMES = {p: ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in MODULES}
FLOORS = {  # whole numbers, from the real imports: a module imports only from lower floors
    **dict.fromkeys(
        ("_check", "_compiled", "_optional", "_files", "_precision", "_random", "_threads", "_types"), 0
    ),
    **dict.fromkeys(("_cache", "_places", "linalg", "transforms", "nearest", "warps"), 1),
    **dict.fromkeys(("camera", "surface"), 2),
    **dict.fromkeys(("_templates", "spectral"), 3),
    **dict.fromkeys(("canonical", "zoo"), 4),
    "landmarking": 5,
    "maps": 6,
    **dict.fromkeys(("flow", "layers", "metrics", "pixels", "render", "solve"), 7),
    **dict.fromkeys(("data", "fitting", "losses", "training"), 8),
    **dict.fromkeys(("heads", "placing"), 9),
    "models": 10,
    "viz": 11,
    "batch": 11,
    "cli": 12,
    "__main__": 13,
}
SLOW = (
    *(
        "trimesh",
        "torch_geometric",
        "potpourri3d",
        "robust_laplacian",
        "cholespy",
        "igl",
        "pygeodesic",
        "roma",
    ),
    *(
        "matplotlib",
        "PIL",
        "tyro",
        "rich",
        "joblib",
        "numba",
        "distributed",
        "ray",
        "networkx",
        "sklearn",
        "pyFM",
    ),
)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file."""
    return list(ast.walk(_tree(path)))


@functools.cache
def _geoframe_imports(path: Path) -> frozenset[str]:
    """Modules of geoframe that a file imports, anywhere in it but under TYPE_CHECKING."""
    for_types: set[ast.AST] = set()
    for node in _nodes(path):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for_types.update(inner for statement in node.body for inner in ast.walk(statement))
    found: set[str] = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import) and node not in for_types:
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node not in for_types:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return frozenset(f for f in found if f.startswith("geoframe."))


def _owner(dotted: str) -> str:
    return dotted.split(".")[1]


def test_every_module_has_a_floor():
    owners = {_owner(n) for n in NAMES.values() if n != "geoframe"}
    assert owners <= FLOORS.keys(), f"new top-level modules: {owners - FLOORS.keys()}; give them a floor"


@pytest.mark.parametrize("path", [p for p in MODULES if NAMES[p] != "geoframe"], ids=lambda p: NAMES[p])
def test_a_module_imports_only_from_lower_floors(path):
    mine = _owner(NAMES[path])
    for name in _geoframe_imports(path):
        theirs = _owner(name)
        if theirs != mine and theirs != "__version__":
            assert FLOORS[theirs] < FLOORS[mine], f"{NAMES[path]} (floor {FLOORS[mine]}) imports {name}"


def _modules_imported(path: Path) -> set[str]:
    """Names of geoframe's files that a file imports: of ``from geoframe.a.b import c`` a.b.c, or a.b that has c."""
    files = set(NAMES.values())
    found = _geoframe_imports(path)
    return {name if name in files else name.rpartition(".")[0] for name in found} & files - {NAMES[path]}


def test_the_files_of_a_package_have_an_order():
    """No two files of one package import each other, not even around a corner or inside a function."""
    for package in {_owner(n) for n in NAMES.values() if n != "geoframe"}:
        inside = {n: p for p, n in NAMES.items() if n != "geoframe" and _owner(n) == package}
        graph = {n: {m for m in _modules_imported(p) if m in inside} for n, p in inside.items()}
        list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_what_is_private_stays_in_its_package():
    """A name with a leading underscore below the top level is used by its own package only."""
    for path in MODULES:
        mine = NAMES[path].split(".")[1:2]
        for name in _geoframe_imports(path):
            parts = name.split(".")
            private = [x for x in parts[2:] if x.startswith("_") and not x.startswith("__")]
            assert parts[1:2] == mine or not private, f"{NAMES[path]} imports {name}"
        borrowed = {
            a.asname or a.name
            for node in _nodes(path)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geoframe")
            for a in node.names
            if f"{node.module}.{a.name}" in NAMES.values()
            and f"{node.module}.{a.name}".split(".")[1:2] != mine
        }
        for node in _nodes(path):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in borrowed
            ):
                assert not node.attr.startswith("_"), f"{NAMES[path]} uses {node.value.id}.{node.attr}"


def test_every_system_has_the_same_four_files():
    """Whoever has read one system finds everything in the next."""
    four = {"network.py", "recipe.py", "predictor.py", "evaluate.py", "__init__.py"}
    systems = [f for f in (ROOT / "geoframe/models").iterdir() if f.is_dir() and f.name != "__pycache__"]
    assert systems
    for folder in systems:
        assert {f.name for f in folder.iterdir() if f.name != "__pycache__"} == four, folder.name
    loose = [f.name for f in (ROOT / "geoframe/models").iterdir() if f.is_file()]
    assert loose == ["__init__.py"]


def _loaded(code: str) -> set[str]:
    """Top-level packages in `sys.modules` after `code` ran in a fresh interpreter."""
    show = "import sys; print('\\n'.join({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines())


def test_import_geoframe_is_free():
    assert not _loaded("import geoframe") & {"torch", "numpy", "scipy", *SLOW}


def test_the_public_names_load_nothing_optional_or_slow():
    assert not _loaded("from geoframe import *") & set(SLOW)


def test_help_loads_little():
    """`geoframe --help` takes the time of Python's start and little more: 0.05 s of a core."""
    script = "from geoframe.cli import main\nassert main(['--help']) == 0"
    loaded = _loaded(script)
    assert not loaded & {"torch", "numpy", *SLOW}
    assert len(loaded - _loaded("pass")) < 60


def test_public_names_are_the_announced_ones():
    listed = """__version__ Eigenbasis Match Mesh Pinhole PointCloud Surface WeakPerspective arap_energy
        draw_match eigenbasis farthest_points fmap_to_p2p geodesic_distances health hks laplacian load
        load_mesh load_surface look_at make_canonical match p2p_to_fmap pair_landmarks rasterize
        read_landmarks repair sample_surface save soft_silhouette solve_pose template template_landmarks
        templates wks write_report zoomout"""
    assert geoframe.__all__ == listed.split()
    for name in geoframe.__all__:
        assert getattr(geoframe, name) is not None
        assert name in dir(geoframe)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        geoframe.nonsense  # noqa: B018


def test_lazy_names_and_type_checked_names_agree():
    block = next(n for n in _tree(ROOT / "geoframe/__init__.py").body if isinstance(n, ast.If))
    typed = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == geoframe._HOME


def _public_definitions(path: Path):
    """(dotted name, node) of the public functions, classes and methods of a module."""
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{NAMES[path]}.{node.name}", node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{NAMES[path]}.{node.name}.{inner.name}", inner


def test_every_public_name_has_a_docstring():
    bare = [NAMES[p] for p in MODULES if ast.get_docstring(_tree(p)) is None]
    bare += [
        name for p in MODULES for name, node in _public_definitions(p) if ast.get_docstring(node) is None
    ]
    assert not bare


def _arguments_told(doc: str) -> list[str] | None:
    """What stands before the colons of an "Args:" section, a line each; None without a section."""
    lines = iter(doc.splitlines())
    if not any(line == "Args:" for line in lines):
        return None
    section = []
    for line in lines:
        if line and not line.startswith(" "):
            break
        if re.match(r" {4}\S", line):
            section.append(line.strip().partition(":")[0].lstrip("*"))
    return section


def _exported() -> set[str]:
    """Dotted names of what the packages' __init__ files pass on, and of the modules that are their own door."""
    found = set()
    for path in MODULES:
        if path.name == "__init__.py" and NAMES[path] not in ("geoframe", "geoframe.cli"):
            for node in _tree(path).body:
                if isinstance(node, ast.ImportFrom):
                    found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def test_every_argument_is_explained_on_a_line_of_its_own():
    """Where there is an "Args:" section; and one there is where a package passes on a function of two arguments."""
    wrong, exported = [], _exported()
    for path in MODULES:
        for name, node in _public_definitions(path):
            if not isinstance(node, ast.FunctionDef):
                continue
            a = node.args
            taken = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs) if x.arg not in ("self", "cls")]
            taken += [x.arg for x in (a.vararg, a.kwarg) if x is not None]
            told = _arguments_told(ast.get_docstring(node) or "")
            if told is None:
                owed = name in exported or NAMES[path] in ("geoframe.transforms", "geoframe.batch")
                wrong += [f"{name}: no Args"] if owed and len(taken) >= 2 else []
            elif sorted(told) != sorted(taken):
                wrong.append(f"{name}{tuple(taken)}: told are {told}")
    assert not wrong, "\n".join(wrong)


def test_array_types_are_named_once():
    """`Floats`, `Ints`, `Bools` and `Array` stand in geoframe/_types.py and nowhere else."""
    again = [NAMES[p] for p in MODULES if "NDArray" in p.read_text(encoding="utf-8") and p.stem != "_types"]
    assert not again


def test_sizes_stay_readable():
    long_modules = {NAMES[p]: n for p in MODULES if (n := len(p.read_text().splitlines())) > 500}
    long_functions = {
        f"{NAMES[p]}.{node.name}": n
        for p in MODULES
        for node in _nodes(p)
        if isinstance(node, ast.FunctionDef) and (n := _code_lines(node)) > 70
    }
    assert not long_modules and not long_functions


def _code_lines(node: ast.FunctionDef) -> int:
    """Lines of a function, less its docstring."""
    last = node.end_lineno or node.lineno
    doc = node.body[0] if ast.get_docstring(node) else None
    return last - node.lineno + 1 - ((doc.end_lineno or 0) - doc.lineno + 1 if doc else 0)


def test_nothing_unsafe_is_loaded():
    for path in MODULES:
        text = path.read_text()
        assert "allow_pickle=True" not in text, path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs the git checkout")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_machine_is_named():
    pattern = re.compile(r"(?<![\w.])/(work|home|Users|mnt|root|nfs)/|\.\./shared")
    for path in _tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".html", ".json", ""} and path != Path(
            __file__
        ):
            if path.relative_to(ROOT).as_posix() == ".ci/run":
                continue  # the one place that knows where the data lies
            assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "bench"):
        assert re.search(rf"^{target}:", makefile, re.M), target
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("\nmake test")
    assert os.access(ROOT / ".ci/run", os.X_OK)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_PAGES = """
import json, os, sys, traceback
asked = json.load(sys.stdin)

class Core:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in asked["absent"] else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        hidden = (context.name or "").lower().replace("-", "_") in asked["absent"]
        known = getattr(self.finder, "find_distributions", None)
        return () if hidden or known is None else known(context)

sys.meta_path[:] = [Core(finder) for finder in sys.meta_path]
told = {}
for name, code in asked["code"].items():
    os.mkdir(name)
    os.chdir(name)
    try:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
        told[name] = ""
    except BaseException:
        told[name] = traceback.format_exc()
    os.chdir("..")
with open("told.json", "w") as file:
    json.dump(told, file)
"""
COMMANDS = """
import json
from pathlib import Path
import numpy as np
from geoframe import save, zoo
from geoframe.cli import main
for name, seed in (("cat", 1), ("lion", 2)):
    made = zoo.animal(name, 500, seed=seed)
    save(made.mesh, f"{name}.off")
    Path(f"{name}.json").write_text(json.dumps(made.landmarks))
truth = zoo.correspondence(zoo.animal("cat", 500, seed=1), zoo.animal("lion", 500, seed=2)).p2p_21
pairs = {int(truth[v]): v for v in range(0, 400, 9)}  # each vertex once
Path("pairs.txt").write_text("".join(f"{a} {b}\\n" for a, b in pairs.items()))
Path("clouds").mkdir()
for i in range(2):
    np.save(f"clouds/{i}.npy", zoo.sample_points("chair", i, 256)[0].numpy())
for command in '''
    info cat.off
    match cat.off lion.off --landmarks . --k 20 --out cat-lion
    match-all . --jobs 1 --k 12 --out all
    canonical cat.off --landmarks cat.json --vertices 400 --out my-cat
    canonical lion.off --landmarks lion.json --vertices 400 --out my-lion
    match my-cat my-lion --k 20 --out mine
    keypoints train --data procedural --category chair --limit 4 --points 256 --epochs 1 --out chair
    keypoints predict chair --data clouds --out predicted
    keypoints register chair clouds/0.npy clouds/1.npy --out registered
'''.strip().splitlines():
    assert main(command.split()) == 0, command
assert main("match cat.off lion.off --ground-truth pairs.txt --out lost".split()) == 2  # an extra, told at once
"""


def _blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def _modules_of_extras() -> list[str]:
    """Top-level modules installed here that are no part of geoframe's core dependencies and what these need."""
    from packaging.requirements import Requirement

    def key(name: str) -> str:
        return name.lower().replace("_", "-").replace(".", "-")

    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    todo, needed = [Requirement(line) for line in core], set()
    while todo:
        wanted = todo.pop()
        for extra in ("", *wanted.extras):
            if (key(wanted.name), extra) in needed:
                continue
            needed.add((key(wanted.name), extra))
            try:
                lines = importlib.metadata.requires(wanted.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            next_ones = map(Requirement, lines)
            todo += [r for r in next_ones if r.marker is None or r.marker.evaluate({"extra": extra})]
    names = {name for name, _ in needed} | {"geoframe"}
    owners = importlib.metadata.packages_distributions()
    return sorted(module for module, owned in owners.items() if not names & {key(name) for name in owned})


def _wrong_in(code: dict[str, str], folder: Path) -> dict[str, str]:
    """What went wrong in pieces of code, all run in one new process, each in a folder and with names of its own.

    The process has core dependencies only, as after the README's `pip install .`: importing anything else fails.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    asked = json.dumps({"code": code, "absent": _modules_of_extras()})
    words = [sys.executable, "-c", RUN_PAGES]
    run = subprocess.run(words, input=asked, cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads((folder / "told.json").read_text())
    return {name: wrong + run.stderr[-2000:] for name, wrong in told.items() if wrong}


@pytest.mark.long
def test_code_of_the_pages_and_commands_of_the_readme_run_on_core_dependencies(tmp_path):
    code = {page.stem: "\n".join(_blocks(page)) for page in PAGES if _blocks(page)}
    assert code.keys() > {"README", "match"}
    assert not _wrong_in({**code, "commands": COMMANDS}, tmp_path)


def test_extras_are_told_from_core_dependencies():
    absent = set(_modules_of_extras())
    assert "pytest" in absent and not absent & {"torch", "numpy", "trimesh", "lightning_fabric", "tyro"}


def test_the_readme_has_short_code():
    blocks = _blocks(ROOT / "README.md")
    assert blocks and all(len(b.splitlines()) <= 25 for b in blocks)


def test_readme_pictures_are_here():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture


@pytest.mark.parametrize(
    "tool", ["ruff check .", "ruff format --check .", pytest.param("mypy", marks=pytest.mark.long)]
)
def test_linters(tool):
    pytest.importorskip(tool.split()[0])
    run = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_everything_is_installed():
    """Each package is listed, and so are the animals of meshes/ (a wheel has them in geoframe/meshes)."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {NAMES[p] for p in MODULES if p.name == "__init__.py"}
    assert set(settings["packages"]) == packages | {"geoframe.meshes"}
    assert (ROOT / settings["package-dir"]["geoframe.meshes"]).is_dir()
    kept = [pattern for patterns in settings["package-data"].values() for pattern in patterns]
    data = [p for folder in ("geoframe", "meshes") for p in (ROOT / folder).rglob("*.*") if p.suffix != ".py"]
    lost = [p for p in data if "__pycache__" not in p.parts and not any(p.match(k) for k in kept)]
    assert not lost
    assert len(geoframe.templates()) >= 2
