"""Every test session has a disk cache of its own, so that nothing is left behind and nothing is inherited."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    before = os.environ.get("GEOFRAME_CACHE")
    os.environ["GEOFRAME_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["GEOFRAME_CACHE"]
    else:
        os.environ["GEOFRAME_CACHE"] = before
