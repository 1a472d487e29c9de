"""`geoframe compile`: every compiled loop is used by one of its examples."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import geoframe
from geoframe.cli import compile as command
from geoframe.cli import main

PACKAGE = Path(geoframe.__file__).parent


def test_each_example_is_run_and_told(monkeypatch, capsys):
    monkeypatch.setattr(command, "EXAMPLES", {"one": os.getpid, "two": os.getpid})
    assert main(["compile", "--jobs", "2"]) == 0
    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} == {"one", "two"}


def test_no_processes(capsys):
    assert main(["compile", "--jobs", "0"]) == 2
    assert "--jobs: expected" in capsys.readouterr().err


@pytest.mark.slow
def test_every_loop_is_compiled(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "geoframe", "compile"],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        check=True,
    )
    made = {path.name.split("-")[0] for path in tmp_path.rglob("*.nbi")}
    loops = {
        f"{path.stem}.{name}"
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"^@compiled(?:_sums)?\ndef (\w+)", path.read_text(), re.M)
    }
    assert len(loops) > 80 and loops <= made, loops - made
