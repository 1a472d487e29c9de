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

from geoframe.layers import BatchNorm
from geoframe.training import Pictures, Schedule, fit, loop
from geoframe.training._tfevents import crc32c

SCRIPT = """
import sys, time, torch
sys.path.insert(0, {here!r})
from test_loop import Line, batches, losses, model
from geoframe.training import Schedule, fit

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


ONE = {"schedule": Schedule(epochs=1), "accelerator": "cpu"}


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
    assert rows[0].keys() == {"epoch", "step", "lr", "seconds", "loss", "squared", "absolute"}
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


@pytest.mark.slow
def test_two_processes_agree_on_the_time(tmp_path):
    net = model()
    schedule = Schedule(minutes=0.02, lr=0.01, decay="none")
    history = fit(net, batches, losses, out=tmp_path, schedule=schedule, accelerator="cpu", devices=2)
    assert history[-1]["step"] > 0 and history[-1]["seconds"] > 0


def test_what_cannot_be_sent_to_other_processes_is_told(tmp_path):
    with pytest.raises(
        ValueError, match=r"devices: expected 1, as .* found 2; start .* torchrun --nproc-per-node 2"
    ):
        fit(
            model(),
            lambda epoch, rank, world: batches(epoch, rank, world),
            losses,
            out=tmp_path,
            schedule=Schedule(epochs=1),
            accelerator="cpu",
            devices=2,
        )


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
        fit(model(), batches, lambda m, b: {"bad": m(b["x"]).sum() * math.nan}, out=tmp_path / "nan", **ONE)
    with pytest.raises(ValueError, match="at least one batch"):
        fit(model(), lambda *_: iter(()), losses, out=tmp_path / "none", **ONE)
    with pytest.raises(ValueError, match="bad_steps: expected one of 'raise', 'skip'"):
        fit(model(), batches, losses, out=tmp_path / "none", bad_steps="ignore", **ONE)


STEPS = {"decay": "cosine", "warmup": 3, "lr": 0.01, "floor": 1e-4, "weight_decay": 0.01, "clip": 0.5}


def _by_steps(net, out, steps=8, **more):
    """Epochs have three steps: eight end inside the third."""
    schedule = Schedule(steps=steps, **{**STEPS, **more.pop("plan", {})})
    return fit(net, batches, losses, out=out, schedule=schedule, accelerator="cpu", **more)


def test_a_run_measured_in_steps_ends_inside_an_epoch(tmp_path):
    net = model()
    history = _by_steps(net, tmp_path)
    assert [(r["epoch"], r["step"]) for r in history] == [(0, 3), (1, 6), (2, 8)]
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(r["loss"]) for r in rows] == pytest.approx([r["loss"] for r in history])
    before = (tmp_path / "log.csv").read_text()
    again = model()
    assert _by_steps(again, tmp_path) == history  # nothing is left to do
    assert (tmp_path / "log.csv").read_text() == before
    _same(net, again)


@pytest.mark.parametrize("at", [1, 3, 4, 7])
def test_a_run_measured_in_steps_that_was_stopped_anywhere_goes_on_to_the_same_result(
    at, tmp_path, monkeypatch
):
    """Also inside an epoch, with noise that the model draws itself."""
    whole, parts = model(Noisy), model(Noisy)
    expected = _by_steps(whole, tmp_path / "whole")
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)

    def stop(text, _share):
        if text.startswith(f"step {at + 1}/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _by_steps(model(Noisy), tmp_path / "parts", progress=stop)
    found = _by_steps(parts, tmp_path / "parts")
    _same(whole, parts)
    for a, b in zip(expected, found, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_more_steps_than_before_are_those_of_the_longer_run(tmp_path):
    plan = {"decay": "step", "every": 3}
    whole, longer = model(Noisy), model(Noisy)
    _by_steps(whole, tmp_path / "whole", 10, plan=plan)
    _by_steps(model(Noisy), tmp_path / "parts", 5, plan=plan)
    history = _by_steps(longer, tmp_path / "parts", 10, plan=plan)
    assert [r["step"] for r in history] == [3, 6, 9, 10]
    _same(whole, longer)
    with pytest.raises(ValueError, match="has 10 steps, more than the 5"):
        _by_steps(model(Noisy), tmp_path / "parts", 5, plan=plan)
    _by_steps(model(), tmp_path / "cosine", 5)
    with pytest.raises(ValueError, match=r"belongs to another run \(steps 5\)"):
        _by_steps(model(), tmp_path / "cosine", 10)


def test_the_steps_are_those_of_adamw_with_its_groups_and_limit(tmp_path):
    """Against torch's own optimiser, written out."""
    plan = {"lr_factors": {"first": 0.1}}
    net, twin = model(), model()
    _by_steps(net, tmp_path, 6, plan=plan)
    schedule = Schedule(steps=6, **STEPS, **plan)
    matrices, vectors = [twin.last.weight], [twin.norm.weight, twin.norm.bias, twin.last.bias]
    groups = [
        {"params": [twin.first.weight], "weight_decay": 0.01},
        {"params": matrices, "weight_decay": 0.01},
    ]
    optimiser = torch.optim.AdamW([*groups, {"params": vectors, "weight_decay": 0.0}])
    twin.train()
    for step in range(6):
        batch = list(batches(step // 3, 0, 1))[step % 3]
        for group, factor in zip(optimiser.param_groups, (0.1, 1, 1), strict=True):
            group["lr"] = factor * schedule.rate(step // 3, step)
        optimiser.zero_grad()
        sum(losses(twin, batch).values()).backward()
        assert float(torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)) > 0.5  # the limit has a say
        optimiser.step()
    _same(net, twin, rtol=1e-5, atol=1e-7)


def test_a_frozen_part_stays_as_it_is(tmp_path):
    net, before = model(), model()
    _by_steps(net, tmp_path, 4, plan={"lr_factors": {"first": 0.0}})
    assert torch.equal(net.first.weight, before.first.weight)
    assert not torch.equal(net.last.weight, before.last.weight)


def test_a_budget_ends_the_run_and_counts_what_was_spent_before(tmp_path, monkeypatch):
    """On a clock of our own: every step takes ten seconds, the budget is one minute."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def slow(net, batch):
        now[0] += 10
        return losses(net, batch)

    def spend(out, minutes=1.0, **more):
        net = model()
        schedule = Schedule(minutes=minutes, decay="cosine", lr=0.01, floor=0.0)
        return fit(net, batches, slow, out=out, schedule=schedule, accelerator="cpu", **more), net

    rows, net = spend(tmp_path / "whole")
    assert [r["step"] for r in rows] == [3, 6] and [r["seconds"] for r in rows] == [30, 30]
    rates = [0.01 * (1 + math.cos(math.pi * s / 6)) / 2 for s in (2, 5)]  # of the third and sixth step
    assert [r["lr"] for r in rows] == pytest.approx(rates)

    def stop(text, _share):
        if text.startswith("step 5"):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_SAVE_SECONDS", 20.0)
    with pytest.raises(KeyboardInterrupt):
        spend(tmp_path / "parts", progress=stop)
    found, parts = spend(tmp_path / "parts")  # from step 4, after 40 seconds
    assert [r["step"] for r in found] == [3, 6]
    _same(net, parts)
    assert [r["step"] for r in spend(tmp_path / "parts", 1.5)[0]] == [3, 6, 9]  # a budget may grow
    texts = []
    spend(tmp_path / "told", progress=lambda text, share: texts.append((text, share)))
    assert texts[1][0].startswith("step 2, loss") and texts[1][0].endswith("0:00:40 left")
    assert texts[1][1] == pytest.approx(1 / 3)


def test_steps_that_are_not_finite_are_told_and_skipped(tmp_path, caplog):
    """As if their batches had not been there: weights, moments, statistics."""
    poison = torch.full((8, 3), math.nan)

    def some_bad(epoch, rank, world):
        for i, batch in enumerate(batches(epoch, rank, world)):
            yield batch
            if i == 1:
                yield {**batch, "x": poison}

    with pytest.raises(ValueError, match="found squared nan, absolute nan in step 3 of epoch 0"):
        fit(model(), some_bad, losses, out=tmp_path / "raise", **ONE)
    skipping, clean = model(), model()
    rows = fit(skipping, some_bad, losses, out=tmp_path / "skip", bad_steps="skip", **ONE)
    fit(clean, batches, losses, out=tmp_path / "clean", **ONE)
    _same(skipping, clean)
    assert rows[0]["skipped"] == 1 and rows[0]["step"] == 4 and math.isfinite(rows[0]["loss"])
    assert "step 3 of epoch 0 is skipped: found squared nan" in caplog.text


def test_a_gradient_that_is_not_finite_is_no_step(tmp_path):
    def at_zero(net, batch):
        return {"root": (net(batch["x"]) * 0).abs().sum().sqrt()}  # 0, and its derivative 0 / 0

    with pytest.raises(ValueError, match="found a gradient of norm nan in step 1"):
        fit(model(), batches, at_zero, out=tmp_path / "raise", **ONE)
    with pytest.raises(ValueError, match="expected a finite number, found none in all of epoch 0"):
        fit(model(), batches, at_zero, out=tmp_path / "short", bad_steps="skip", **ONE)

    def long(epoch, rank, world):
        return (batch for _ in range(5) for batch in batches(epoch, rank, world))

    with pytest.raises(ValueError, match="found a gradient of norm nan in step 10 of epoch 0"):
        fit(model(), long, at_zero, out=tmp_path / "long", bad_steps="skip", **ONE)  # too many in a row


def test_pictures_are_asked_for_and_change_nothing(tmp_path):
    seen = []

    def draw(net, at):
        assert not net.training and not torch.is_grad_enabled()
        torch.rand(3)
        seen.append((at["epoch"], at["step"]))

    looked, plain = model(Noisy), model(Noisy)
    _fit(looked, tmp_path / "a", 5, pictures=Pictures(draw, epochs=2))
    _fit(plain, tmp_path / "b", 5)
    assert seen == [(2, 6), (4, 12), (5, 15)]
    _same(looked, plain)
    seen.clear()
    _fit(model(), tmp_path / "a2", 1, pictures=Pictures(draw, epochs=None, minutes=1e-9))
    assert seen == [(0, 1), (0, 2), (0, 3)]
    with pytest.raises(ValueError, match="minutes: expected a positive number, found 0"):
        Pictures(draw, minutes=0)


def test_mixed_precision_trains_what_full_precision_does(tmp_path):
    full, mixed = model(), model()
    a = _by_steps(full, tmp_path / "full", 12)
    b = _by_steps(mixed, tmp_path / "mixed", 12, precision="bf16-mixed")
    assert mixed.first.weight.dtype == torch.float32
    assert b[-1]["loss"] == pytest.approx(a[-1]["loss"], rel=0.05) and b[-1]["loss"] != a[-1]["loss"]
