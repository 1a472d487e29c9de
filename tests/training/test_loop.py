"""The training loop: exact resume, killed runs, two processes, the schedule, what it refuses."""

from __future__ import annotations

import csv
import math
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric")

from geoframe.layers import BatchNorm
from geoframe.training._tfevents import crc32c
from geoframe.training.loop import Schedule, fit

SCRIPT = """
import sys, time, torch
sys.path.insert(0, {here!r})
from test_loop import Line, batches, losses, model
from geoframe.training.loop import Schedule, fit

def slow(epoch, rank, world):
    time.sleep(0.05)
    yield from batches(epoch, rank, world)

fit(model(), slow, losses, out={out!r}, schedule=Schedule(epochs=200, every=50), accelerator="cpu")
"""


class Line(torch.nn.Module):
    """A small network with batch statistics and noise of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = (
            torch.nn.Linear(3, 8, bias=False),
            BatchNorm(8),
            torch.nn.Linear(8, 1),
        )

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


class Noisy(Line):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


def model(kind=Line):
    torch.manual_seed(0)
    return kind()


def batches(epoch, rank, world):
    g = torch.Generator().manual_seed(epoch)
    for _ in range(3):
        x = torch.randn(8, 3, generator=g)
        batch = {"x": x, "y": x.sum(1, keepdim=True).sin()}
        yield {k: v[rank::world] for k, v in batch.items()}


def losses(net, batch):
    error = net(batch["x"]) - batch["y"]
    return {"squared": error.square().mean(), "absolute": 0.1 * error.abs().mean()}


def _fit(net, out, epochs=6, **more):
    return fit(
        net, batches, losses, out=out, schedule=Schedule(epochs=epochs, every=2), accelerator="cpu", **more
    )


def _same(a, b, **tolerance):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(
            x, y, msg=lambda m, name=name: f"{name}: {m}", **(tolerance or {"rtol": 0, "atol": 0})
        )


def test_it_learns_and_logs(tmp_path):
    seen = []
    net = model()
    history = fit(
        net,
        batches,
        losses,
        out=tmp_path,
        schedule=Schedule(epochs=30, lr=0.02),
        accelerator="cpu",
        progress=lambda text, share: seen.append((text, share)),
    )
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[0]["loss"] == pytest.approx(history[0]["squared"] + history[0]["absolute"], rel=1e-5)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert len(rows) == 30 and float(rows[4]["loss"]) == pytest.approx(history[4]["loss"])
    assert rows[0].keys() == {"epoch", "lr", "seconds", "loss", "squared", "absolute"}
    assert "left" in seen[-1][0] and "epoch 30/30" in seen[-1][0] and 0 < seen[-1][1] < 1
    assert not net.training


def test_a_run_in_two_parts_is_the_whole_run(tmp_path):
    whole, parts = model(Noisy), model(Noisy)
    _fit(whole, tmp_path / "a", 6)
    _fit(parts, tmp_path / "b", 2)
    resumed = model(Noisy)
    history = _fit(resumed, tmp_path / "b", 6)
    assert [r["epoch"] for r in history] == list(range(6))
    _same(whole, resumed)


def test_moments_follow_the_parameters_to_where_they_are_trained(tmp_path):
    """As they do to a GPU: in double precision Adam's moments are doubles, to the last bit."""
    whole, parts = model(), model()
    _fit(whole, tmp_path / "a", 4, precision="64-true")
    _fit(model(), tmp_path / "b", 2, precision="64-true")
    _fit(parts, tmp_path / "b", 4, precision="64-true")
    assert parts.first.weight.dtype == torch.float64
    _same(whole, parts)


def test_a_log_that_a_kill_left_an_epoch_short_is_made_whole(tmp_path):
    _fit(model(), tmp_path, 3)
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    _fit(model(), tmp_path, 3)
    assert (tmp_path / "log.csv").read_text() == whole


def test_tensorboard_reads_the_log_of_a_run_in_two_parts(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _fit(model(), tmp_path, 2)
    history = _fit(model(), tmp_path, 5)
    read = loader.EventAccumulator(str(tmp_path))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"lr", "loss", "squared", "absolute"}
    events = read.Scalars("loss")
    assert [e.step for e in events] == list(range(5))
    assert [e.value for e in events] == pytest.approx([row["loss"] for row in history], rel=1e-6)


def test_event_files_have_their_checksums(tmp_path):
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its definition
    _fit(model(), tmp_path, 2)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    data, records = file.read_bytes(), []
    while data:
        (n,) = struct.unpack("<Q", data[:8])
        for part, crc in ((data[:8], data[8:12]), (data[12 : 12 + n], data[12 + n : 16 + n])):
            turned = struct.unpack("<I", crc)[0] - 0xA282EAD8 & 0xFFFFFFFF
            assert (turned << 15 | turned >> 17) & 0xFFFFFFFF == crc32c(part)
        records.append(data[12 : 12 + n])
        data = data[16 + n :]
    assert len(records) == 3 and records[0].endswith(b"brain.Event:2")
    assert all(name in records[2] for name in (b"loss", b"squared", b"absolute", b"lr"))


def test_a_killed_run_goes_on_to_the_same_result(tmp_path):
    out = tmp_path / "killed"
    code = SCRIPT.format(here=str(Path(__file__).parent), out=str(out))
    run = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / "state.safetensors").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = len(list(csv.DictReader((out / "log.csv").open())))
    assert 1 <= done < 200
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        resumed, whole = model(), model()
        for net, folder in ((resumed, out), (whole, tmp_path / "whole")):
            fit(
                net,
                batches,
                losses,
                out=folder,
                schedule=Schedule(epochs=done + 5, every=50),
                accelerator="cpu",
            )
    finally:
        torch.set_num_threads(threads)
    _same(resumed, whole)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    one, two = model(), model()
    history = _fit(one, tmp_path / "one")
    shared = _fit(two, tmp_path / "two", devices=2)
    _same(one, two, rtol=1e-4, atol=1e-5)
    assert [r["loss"] for r in shared] == pytest.approx([r["loss"] for r in history], rel=1e-4)


def test_the_caller_s_random_state_is_left_alone(tmp_path, monkeypatch):
    net = model(Noisy)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.cuda, "manual_seed_all", lambda seed: pytest.fail("training on the CPU seeds CUDA")
        )
        _fit(net, tmp_path, 1)
    assert torch.equal(torch.rand(3), expected)
    other = model(Noisy)
    _fit(other, tmp_path / "other", 1, seed=1)
    assert not torch.equal(other.first.weight, net.first.weight)


def test_the_rate_is_halved_and_has_a_floor():
    schedule = Schedule(epochs=280)
    assert [schedule.rate(e) for e in (0, 39, 40, 80)] == [1e-3, 1e-3, 5e-4, 2.5e-4]
    assert Schedule(epochs=1000).rate(999) == 1e-5
    with pytest.raises(ValueError, match="lr, decay"):
        Schedule(lr=0)


def test_what_does_not_fit_is_refused(tmp_path):
    _fit(model(), tmp_path, 2)
    with pytest.raises(ValueError, match=r"belongs to another run \(seed 0\)"):
        _fit(model(), tmp_path, 2, seed=3)
    with pytest.raises(ValueError, match="belongs to another run"):
        _fit(model(), tmp_path, 2, run={"category": "chair"})
    with pytest.raises(ValueError, match="belongs to another model"):
        _fit(torch.nn.Linear(3, 1), tmp_path, 2)
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="expected the state of a run"):
        _fit(model(), tmp_path, 2)
    with pytest.raises(ValueError, match="expected a finite number, found bad nan"):
        fit(model(), batches, lambda m, b: {"bad": m(b["x"]).sum() * math.nan}, out=tmp_path / "nan")
    with pytest.raises(ValueError, match="at least one batch"):
        fit(model(), lambda *_: iter(()), losses, out=tmp_path / "none")
