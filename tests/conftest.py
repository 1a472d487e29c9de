"""Every test session has a disk cache of its own, which its workers share, and starts what takes longest first."""

from __future__ import annotations

import gc
import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is left behind or inherited; what one worker has computed the other need not compute again."""
    before = os.environ.get("GEOFRAME_CACHE")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["GEOFRAME_CACHE"] = str(folder)
    yield
    if before is None:
        del os.environ["GEOFRAME_CACHE"]
    else:
        os.environ["GEOFRAME_CACHE"] = before


class _Backwards(pytest.Dir):
    def collect(self):
        return reversed(list(super().collect()))


def pytest_collect_directory(path, parent):
    """Every second worker reads the files from the last to the first. In a fresh clone reading them is mostly pytest's
    rewriting of their assertions, which is kept on disk: so each worker does half of it, not all."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    return _Backwards.from_parent(parent, path=path) if worker % 2 else None


def pytest_collection_modifyitems(items):
    """In one order for all workers. Those marked `long` come first, with their files: workers take whole files,
    as their tests share what is slow to make, and one that begins a long one last would end long after the others."""
    items.sort(key=lambda item: (item.get_closest_marker("long") is None, str(item.path)))


def pytest_collection_finish():
    """What the imports have made stays: without this every full collection looks through all of it again, which took
    a twelfth of the suite's time."""
    gc.freeze()
