"""Progress of long commands where nobody watches a terminal: a line now and then."""

from __future__ import annotations

from geoframe.cli import _common


def test_a_log_file_gets_a_line_now_and_then(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_common.time, "monotonic", lambda: now[0])
    with _common.progress_bar("chair, 889 clouds") as tell:
        for i in range(100):
            now[0] += 1
            tell(f"epoch {i}/100, loss 0.5", i / 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"chair, 889 clouds: {i}%, epoch {i}/100, loss 0.5" for i in (29, 59, 89)]
