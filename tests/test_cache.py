"""The disk cache: content decides the key, and a file that does not prove itself is never used."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from geoframe import _cache
from geoframe._cache import cache_folder, cache_key, cached_arrays, clear_cache, load_arrays, store_arrays

ARRAYS = {
    "a": np.arange(40.0).reshape(8, 5),
    "b": np.array([3, 1], dtype=np.int32),
    "empty": np.zeros((0, 3)),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFRAME_CACHE", str(tmp_path))
    return tmp_path


def assert_same(found, expected=ARRAYS):
    assert found is not None
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)


def test_round_trip_and_absence(folder):
    key = cache_key("round trip")
    assert load_arrays(key) is None
    store_arrays(key, ARRAYS)
    assert_same(load_arrays(key))
    assert [p.name for p in folder.iterdir()] == [f"{key}.npz"]


def test_key_depends_on_every_bit_of_content():
    a = np.arange(6.0)
    different = [
        (a,),
        (a.reshape(2, 3),),
        (a.reshape(3, 2),),
        (a.astype(np.float32),),
        (np.nextafter(a, 9.0),),
        (a, 1),
        (a, 1.0),
        (a, True),
        (a, "1"),
        (a, None),
        (a, ("1",)),
        (a, "1", "1"),
        (a, "11"),
        (a, ("1", "1")),
        (),
    ]
    keys = {cache_key(*parts) for parts in different}
    assert len(keys) == len(different)
    assert cache_key(a, 2) == cache_key(a.copy(), np.int64(2)) == cache_key(torch.arange(6.0).double(), 2)
    strided = np.stack([a, -a], axis=1)[:, 0]
    assert cache_key(strided) == cache_key(a)


def test_key_is_the_same_in_another_process_and_carries_the_version(monkeypatch):
    code = (
        "import numpy as np; from geoframe._cache import cache_key; print(cache_key(np.arange(3.0), 'x', 7))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert out == cache_key(np.arange(3.0), "x", 7)
    monkeypatch.setattr(_cache, "VERSION", _cache.VERSION + 1)
    assert out != cache_key(np.arange(3.0), "x", 7)


def test_key_refuses_what_it_cannot_read():
    with pytest.raises(TypeError, match=r"parts: expected arrays.*found dict"):
        cache_key({"a": 1})
    with pytest.raises(TypeError, match="found ndarray"):
        cache_key(np.array([object()]))


def test_truncated_at_any_length_is_absent(folder, caplog):
    key = cache_key("truncated")
    store_arrays(key, ARRAYS)
    path = folder / f"{key}.npz"
    whole = path.read_bytes()
    for n in range(0, len(whole), 37):
        path.write_bytes(whole[:n])
        caplog.clear()
        assert load_arrays(key) is None
        assert "cannot be trusted" in caplog.text


def test_one_flipped_byte_is_never_trusted(folder):
    key = cache_key("flipped")
    store_arrays(key, ARRAYS)
    path = folder / f"{key}.npz"
    whole = path.read_bytes()
    refused = 0
    for n in range(0, len(whole), 3):
        path.write_bytes(whole[:n] + bytes([whole[n] ^ 0xFF]) + whole[n + 1 :])
        found = load_arrays(key)
        if found is None:
            refused += 1
        else:  # bytes of the archive that carry nothing, such as time stamps
            assert_same(found)
    assert refused > len(whole) / 6


def test_foreign_files_are_absent(folder):
    key, other = cache_key("mine"), cache_key("another mesh")
    path = folder / f"{key}.npz"
    store_arrays(other, ARRAYS)
    shutil.copy(folder / f"{other}.npz", path)  # a sound file of another mesh under this name
    assert load_arrays(key) is None
    np.savez(path, **ARRAYS)  # nobody's file
    assert load_arrays(key) is None
    np.savez(path, __key__=np.array(key), __digest__=np.array("0" * 40), **ARRAYS)  # right key, other content
    assert load_arrays(key) is None
    np.savez(path, a=np.array([object()]))  # a pickle inside
    assert load_arrays(key) is None
    path.write_bytes(b"not a zip at all")
    assert load_arrays(key) is None
    path.unlink()
    path.mkdir()
    assert load_arrays(key) is None


def test_cached_arrays_computes_once_and_replaces_a_bad_file(folder):
    calls = []

    def compute():
        calls.append(1)
        return ARRAYS

    parts = ("job", np.arange(3))
    for _ in range(3):
        assert_same(cached_arrays(parts, compute))
    assert len(calls) == 1
    path = folder / f"{cache_key(*parts)}.npz"
    path.write_bytes(path.read_bytes()[:100])
    for _ in range(3):
        assert_same(cached_arrays(parts, compute))
    assert len(calls) == 2
    assert_same(cached_arrays(("job", np.arange(4)), compute))
    assert len(calls) == 3


def test_off_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFRAME_CACHE", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() is None
    assert_same(cached_arrays(("x",), lambda: ARRAYS))
    store_arrays(cache_key("x"), ARRAYS)
    assert load_arrays(cache_key("x")) is None
    assert clear_cache() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the default folder differs by platform")
def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("GEOFRAME_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "geoframe"


def test_unwritable_folder_costs_a_warning_only(tmp_path, monkeypatch, caplog):
    blocker = tmp_path / "file"
    blocker.write_text("a file where the folder should be")
    monkeypatch.setenv("GEOFRAME_CACHE", str(blocker / "cache"))
    with caplog.at_level(logging.WARNING):
        assert_same(cached_arrays(("x",), lambda: ARRAYS))
    assert "cannot use the cache folder" in caplog.text
    assert clear_cache() == 0


def test_objects_are_refused(folder):
    with pytest.raises(TypeError, match=r"'bad'.*Python objects"):
        store_arrays(cache_key("x"), {"bad": np.array([None])})
    assert list(folder.iterdir()) == []


def test_clear_leaves_other_files_alone(folder):
    (folder / "mine.npz").write_text("keep")
    (folder / "notes.txt").write_text("keep")
    for i in range(3):
        store_arrays(cache_key(i), ARRAYS)
    assert clear_cache() == 3
    assert sorted(p.name for p in folder.iterdir()) == ["mine.npz", "notes.txt"]


def test_above_the_cap_the_longest_unused_go(folder, monkeypatch):
    keys = [cache_key("cap", i) for i in range(4)]
    for age, key in zip((400, 300, 200), keys, strict=False):
        store_arrays(key, ARRAYS)
        past = time.time() - age
        os.utime(folder / f"{key}.npz", (past, past))
    assert load_arrays(keys[0]) is not None  # use makes it young again
    size = (folder / f"{keys[0]}.npz").stat().st_size
    monkeypatch.setattr(_cache, "MAX_BYTES", 2 * size)
    leftover = folder / f".{keys[3]}-abc_12.npz"
    leftover.write_text("of a killed process")
    os.utime(leftover, (0, 0))
    store_arrays(keys[3], ARRAYS)
    assert [load_arrays(k) is not None for k in keys] == [True, False, False, True]
    assert not leftover.exists()


def test_concurrent_writers_and_readers(folder):
    key = cache_key("shared")
    big = {"x": np.arange(200_000.0)}

    def work(i):
        if i % 2:
            store_arrays(key, big)
            return True
        found = load_arrays(key)
        return found is None or np.array_equal(found["x"], big["x"])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert_same(load_arrays(key), big)
    assert [p.name for p in folder.iterdir()] == [f"{key}.npz"]
