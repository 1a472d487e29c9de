"""A real browser for the pages, where Chromium is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader
    --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"""


@pytest.fixture
def browse(tmp_path):
    """A callable (page, width) -> the page as the browser has built it; complaints of its scripts fail the test."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")

    def run(page, width: int = 1280) -> str:
        command = [
            CHROMIUM,
            *FLAGS.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
        ]
        command += [f"--window-size={width},900", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        bad = [line for line in console if "Uncaught" in line or "Error" in line or "Failed" in line]
        assert not bad
        return done.stdout

    return run
