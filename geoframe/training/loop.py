"""One training loop, through Lightning Fabric: device, precision, several processes, checkpoints, resume, log.

A run without a budget of time is a pure function of its seed: what is random in epoch e is drawn from (seed, e). The
state is written after every epoch and, in long epochs, every few minutes, so that a run that was killed goes on to the
same result as one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.training._logs import append_logs, start_logs
from geoframe.training.checkpoints import STATE, read_state, restore_state, save_state
from geoframe.training.schedule import Schedule

_log = logging.getLogger(__name__)

Batches = Callable[[int, int, int], Iterable[Mapping[str, Tensor]]]
Losses = Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]]
_SAVE_SECONDS = 120.0  # how often the state is written inside an epoch, with one process
_BAD_STEPS_IN_A_ROW = 10  # so many are an error even where bad steps are skipped


@dataclass(frozen=True)
class Pictures:
    """A look at the model while it learns.

    Attributes:
        draw: called with the model, in evaluation mode and without gradients, and with {"epoch", "step", "seconds"}:
            how many are done. It is called in the first process only, may draw random numbers without a change to
            the run, and must not change the model.
        epochs: called after every so many epochs; None for never.
        minutes: called when so many minutes have passed since the last call; None for never.

    It is called once more at the end of a run, if it was not just called.
    """

    draw: Callable[[nn.Module, Mapping[str, float]], None]
    epochs: int | None = 1
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_int(self.epochs, "epochs", low=1)
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes: expected a positive number, found {self.minutes}")


def fit(
    model: nn.Module,
    batches: Batches,
    losses: Losses,
    *,
    out: str | Path,
    schedule: Schedule,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    bad_steps: str = "raise",
    run: Mapping[str, Any] | None = None,
    progress: Callable[[str, float], None] | None = None,
    pictures: Pictures | None = None,
) -> list[dict[str, float]]:
    """Train a model in place: minimise the sum of its losses over batches, by AdamW.

    A state in the folder is gone on from; it has to be of the same model, schedule, seed and `run`. The time that its
    run had spent counts. The length of a run may grow (not in epochs or steps with a cosine, whose rates depend on it).

    Args:
        model: left on the CPU and in evaluation mode.
        batches: ``batches(epoch, rank, world)`` gives the share of process `rank` of each batch of an epoch, all
            shares of one size. To be a pure function: a run that was stopped inside an epoch draws its batches again
            and passes over those it had. The epochs of a run measured in steps or minutes end where it ends.
        losses: ``losses(model, batch)`` gives named scalars, weights included. The model is to be called as
            ``model(...)``; what is computed outside of that is in full precision.
        out: folder of the logs, log.csv and one for TensorBoard, and of the state.
        schedule: length of the run, learning rate, weight decay, groups of parameters, clipping.
        seed: for what the model itself draws.
        accelerator: as in Lightning Fabric: "auto", "cpu", "cuda", "mps".
        devices: how many; more than one on the CPU means as many processes. Under torchrun, its processes are used.
        precision: as in Lightning Fabric: "32-true", "bf16-mixed", "16-mixed" (GPU), "64-true".
        bad_steps: what to do about a step whose loss or gradient is not finite: "raise", or "skip", which leaves
            weights, moments and buffers as they were, tells it in the log, and counts it as `skipped`.
        run: what else tells this run from others, such as its data; numbers, words and lists of them.
        progress: called with (text, share done) after every step (with one process).
        pictures: a look at the model now and then.

    Returns:
        One dict an epoch: epoch, step (how many were done at its end), lr (of its last step), seconds, loss and each
        part of it, averaged over its batches and over processes. The last epoch may be one that the run's length cut.

    Raises:
        ValueError: the state in `out` belongs to another run or is longer than this, `out` is a file, there is no
            such accelerator, a name in the schedule that no parameter has, no batches, a loss or gradient that is not
            finite (with "skip" several in a row).
    """
    import lightning_fabric as fabric_module

    check_int(devices, "devices", low=1)
    check_choice(bad_steps, ("raise", "skip"), "bad_steps")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder or a path where one can be made, found the file {out}")
    schedule.groups(model)  # told before any process is started
    identity = json.loads(json.dumps(schedule.identity() | {"seed": seed} | dict(run or {})))
    job = _Job(model, batches, losses, out, schedule, identity, bad_steps == "skip", pictures)
    strategy, nodes = ("ddp_spawn" if devices > 1 else "auto"), 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has started the processes
        strategy, devices = "ddp", int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.WARNING)  # it tells its settings on the screen
    try:
        fabric = fabric_module.Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    except (RuntimeError, ValueError, TypeError, ImportError) as err:
        raise ValueError(
            f"accelerator, devices, precision: expected what this machine has, found {accelerator!r}, {devices} "
            f"and {precision!r} ({str(err).splitlines()[0]}); try accelerator 'auto' or 'cpu'"
        ) from err
    finally:
        log.setLevel(level)
    if strategy != "ddp_spawn":
        fabric.launch()
        return _train(fabric, job, progress)
    try:
        # bound, as Fabric refuses arguments that are frozen dataclasses
        fabric.launch(partial(_train_copy, job=job))
    except Exception as err:  # of several kinds, by what cannot be sent
        if "pickle" not in str(err):
            raise
        raise ValueError(
            f"devices: expected 1, as this training cannot be sent to other processes ({err}), found {devices}; "
            f"start the processes yourself: torchrun --nproc-per-node {devices} -m -- geoframe ..."
        ) from err
    return _Progress.load(job, None).rows()  # what the processes trained is in the file


@dataclass(frozen=True)
class _Job:
    """What `fit` was asked to do."""

    model: nn.Module
    batches: Batches
    losses: Losses
    out: Path
    schedule: Schedule
    identity: dict[str, Any]
    skip: bool
    pictures: Pictures | None


@dataclass
class _Epoch:
    """An epoch in work: sums of losses over the steps learned from."""

    batches: int = 0  # drawn so far
    learned: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    sums: dict[str, Any] = field(default_factory=dict)  # tensors, or numbers as read from a state

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Count a step that was learned from."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.learned += 1

    def reduce(self, fabric: Any) -> None:
        """Turn the sums into numbers, averaged over the processes."""
        if not self.sums:
            return
        sums = torch.stack([torch.as_tensor(x, device=fabric.device) for x in self.sums.values()])
        numbers = fabric.all_reduce(sums).tolist()
        self.sums = dict(zip(self.sums, numbers, strict=True))


@dataclass
class _Progress:
    """How far a run has come."""

    history: list[dict[str, float]] = field(default_factory=list)  # of whole epochs
    step: int = 0
    seconds: float = 0.0
    epoch: _Epoch = field(default_factory=_Epoch)
    skip: bool = False
    scaler: dict[str, Any] = field(default_factory=dict)  # of mixed precision in 16 bits
    more: dict[str, Tensor] = field(default_factory=dict)  # states of generators

    @classmethod
    def load(cls, job: _Job, optimiser: torch.optim.Optimizer | None) -> _Progress:
        """Put what a run had left into model and optimiser, and tell how far it had come."""
        stored, file = read_state(job.out), job.out / STATE
        if stored is None:
            return cls(skip=job.skip)
        about, tensors = stored
        if about["run"] != job.identity:
            theirs = ", ".join(f"{k} {v}" for k, v in about["run"].items() if job.identity.get(k) != v)
            raise ValueError(
                f"{file}: belongs to another run ({theirs or 'less said'}); choose another folder or remove it"
            )
        more = restore_state(job.out, tensors, job.model, optimiser)
        for done, asked, what in (
            (len(about["history"]), job.schedule.epochs, "epochs"),
            (about["step"], job.schedule.steps, "steps"),
        ):
            if asked is not None and done > asked:
                raise ValueError(
                    f"{file}: has {done} {what}, more than the {asked} that are asked for; "
                    "choose another folder or remove it"
                )
        epoch = _Epoch(**about["epoch"])
        so_far = (about["history"], about["step"], about["seconds"])
        return cls(*so_far, epoch, job.skip, about["scaler"], more)

    def rows(self) -> list[dict[str, float]]:
        """One dict an epoch, the one in work included as far as it has come."""
        return [*self.history, self.row()] if self.epoch.learned else list(self.history)

    def row(self) -> dict[str, float]:
        """Of the epoch in work, whose sums are numbers."""
        e = self.epoch
        head = {"epoch": len(self.history), "step": self.step, "lr": e.lr, "seconds": e.seconds}
        told = {"skipped": float(e.batches - e.learned)} if self.skip else {}
        return head | told | {name: x / e.learned for name, x in e.sums.items()}


def _train_copy(fabric: Any, job: _Job) -> None:
    """`_train` in a process of its own: what was sent there shares its memory with the other processes."""
    _train(fabric, replace(job, model=copy.deepcopy(job.model)), None)


def _train(fabric: Any, job: _Job, progress: Callable[[str, float], None] | None) -> list[dict[str, float]]:
    """The loop of one process."""
    optimiser = torch.optim.AdamW(job.schedule.groups(job.model), lr=job.schedule.lr)
    wrapped, optimiser = fabric.setup(job.model, optimiser)
    # once the parameters are where they stay: moments go to the device and precision they find them in
    done = _Progress.load(job, optimiser)
    if done.scaler:
        fabric.strategy.precision.load_state_dict(done.scaler)
    rows = _Run(fabric, job, wrapped, optimiser, done, progress).all_epochs()
    job.model.to("cpu").eval()
    return rows


class _Run:
    """The steps of one process, from where a run stands to its end."""

    def __init__(
        self,
        fabric: Any,
        job: _Job,
        wrapped: nn.Module,
        optimiser: Any,
        done: _Progress,
        progress: Callable[[str, float], None] | None,
    ) -> None:
        self.fabric, self.job, self.wrapped, self.optimiser, self.done = fabric, job, wrapped, optimiser, done
        self.progress = progress
        self.began, self.before = time.perf_counter(), done.seconds  # this part of the run; all earlier ones
        self.first = (len(done.history), done.step)
        self.saved = self.drawn = self.before  # when
        self.seen = done.step  # the step at which pictures were drawn last
        self.bad_in_a_row = 0

    def all_epochs(self) -> list[dict[str, float]]:
        """Train to the end of the run; returns its rows."""
        over = self.over()  # asked by all processes, as they agree on the time
        if self.fabric.is_global_zero:
            start_logs(self.job.out, self.done.rows() if over else self.done.history)
        pictures = self.job.pictures
        while not self.over():
            epoch = len(self.done.history)
            with _seeded(self.fabric.device, self.job.identity["seed"] * 1_000_003 + epoch):
                self.restore_generators()
                whole = self.one_epoch(epoch)
                self.save(whole)
            if self.fabric.is_global_zero and self.done.step:
                append_logs(self.job.out, self.done.rows())
            if whole and pictures and pictures.epochs and (epoch + 1) % pictures.epochs == 0:
                self.draw()
            self.fabric.barrier()
        if self.seen != self.done.step:
            self.draw()
        return self.done.rows()

    def seconds(self) -> float:
        """Wall time spent on the run so far, the same in all processes."""
        spent = self.before + time.perf_counter() - self.began
        timed = self.job.schedule.minutes is not None
        return float(self.fabric.broadcast(spent)) if timed and self.fabric.world_size > 1 else spent

    def over(self) -> bool:
        """Whether the run has its length; at least one step is made."""
        epochs = len(self.done.history)
        share = self.job.schedule.share(epochs, self.done.step, self.seconds())
        return self.done.step > 0 and share >= 1

    def one_epoch(self, epoch: int) -> bool:
        """Go through the batches that are left of an epoch; returns whether it came to its end."""
        work, began = self.done.epoch, time.perf_counter()
        spent = work.seconds
        drawn = iter(self.job.batches(epoch, self.fabric.global_rank, self.fabric.world_size))
        drawn = itertools.islice(drawn, work.batches, None)
        self.wrapped.train()
        whole = False
        while not self.over():
            batch = next(drawn, None)
            if batch is None:
                whole = True
                break
            self.one_step(epoch, batch)
            work.seconds = spent + time.perf_counter() - began
            self.tell(epoch)
            self.now_and_then()
        if whole and not work.batches:
            raise ValueError("batches: expected at least one batch an epoch, found none")
        if whole and not work.learned:
            raise ValueError(f"loss: expected a finite number, found none in all of epoch {epoch}")
        work.seconds = spent + time.perf_counter() - began
        return whole

    def one_step(self, epoch: int, batch: Mapping[str, Tensor]) -> None:
        """Learn from one batch, or leave everything as it was if its loss or gradient is not finite."""
        work, job = self.done.epoch, self.job
        work.lr = job.schedule.rate(epoch, self.done.step, self.seconds())
        for group in self.optimiser.param_groups:
            group["lr"] = work.lr * group["factor"]
        buffers = [b.clone() for b in job.model.buffers()] if job.skip else []
        parts = dict(job.losses(self.wrapped, {name: x.to(self.fabric.device) for name, x in batch.items()}))
        total = torch.stack(list(parts.values())).sum()
        bad = "" if self.everywhere(bool(torch.isfinite(total))) else _numbers(parts)
        if not bad:
            self.optimiser.zero_grad()
            self.fabric.backward(total)
            norm = self.clip()
            bad = "" if norm is None or math.isfinite(norm) else f"a gradient of norm {norm}"
        work.batches += 1
        self.done.step += 1
        if not bad:
            self.optimiser.step()
            work.add({"loss": total, **parts})
            self.bad_in_a_row = 0
            return
        where = f"step {work.batches} of epoch {epoch}"
        self.bad_in_a_row += 1
        if not job.skip or self.bad_in_a_row >= _BAD_STEPS_IN_A_ROW:
            raise ValueError(
                f"loss: expected a finite number, found {bad} in {where}; lower the rate, clip the gradient or "
                "look at the batch"
            )
        _log.warning("%s is skipped: found %s", where, bad)
        self.optimiser.zero_grad()
        for buffer, old in zip(job.model.buffers(), buffers, strict=True):
            buffer.copy_(old)

    def everywhere(self, ok: bool) -> bool:
        """Whether all processes say so."""
        if self.fabric.world_size == 1:
            return ok
        return bool(self.fabric.all_reduce(torch.tensor(float(ok), device=self.fabric.device)) == 1)

    def clip(self) -> float | None:
        """Norm of the gradient before it is scaled down to the limit; None where Fabric's scaler looks after it."""
        limit = self.job.schedule.clip
        if limit is None and getattr(self.fabric.strategy.precision, "scaler", None) is not None:
            return None
        if limit is None:
            return float(
                torch.nn.utils.get_total_norm(
                    [p.grad for p in self.job.model.parameters() if p.grad is not None]
                )
            )
        norm = self.fabric.clip_gradients(
            self.wrapped, self.optimiser, max_norm=limit, error_if_nonfinite=False
        )
        return float(norm) if getattr(self.fabric.strategy.precision, "scaler", None) is None else None

    def now_and_then(self) -> None:
        """Inside an epoch: the state every few minutes, pictures as asked for."""
        now, pictures = self.before + time.perf_counter() - self.began, self.job.pictures
        if pictures and pictures.minutes and now - self.drawn >= 60 * pictures.minutes:
            self.draw()
        if self.fabric.world_size == 1 and now - self.saved >= _SAVE_SECONDS:
            self.save(False)

    def save(self, whole: bool) -> None:
        """Write the state; a whole epoch becomes a row of the history."""
        done = self.done
        done.epoch.reduce(self.fabric)
        done.seconds = self.seconds()
        if whole:
            done.history.append(done.row())
            done.epoch = _Epoch()
        self.saved = self.before + time.perf_counter() - self.began
        if not self.fabric.is_global_zero:
            return
        scaler = self.fabric.strategy.precision.state_dict()
        about = {
            "run": self.job.identity,
            "history": done.history,
            "step": done.step,
            "seconds": done.seconds,
        }
        about |= {"epoch": vars(done.epoch), "scaler": scaler}
        more = {} if whole else _generators(self.fabric.device)
        save_state(self.job.out, self.job.model, self.optimiser, about, more)

    def restore_generators(self) -> None:
        """Inside an epoch that was begun before, random numbers go on where they were."""
        more, self.done.more = self.done.more, {}
        if "cpu" in more:
            torch.set_rng_state(more["cpu"])
        if "cuda" in more and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(more["cuda"], self.fabric.device)

    def draw(self) -> None:
        """Call the pictures, if there are any."""
        self.seen = self.done.step
        self.drawn = self.before + time.perf_counter() - self.began
        if self.job.pictures is None or not self.fabric.is_global_zero:
            return
        about = {"epoch": len(self.done.history), "step": self.done.step, "seconds": self.drawn}
        on_cpu = self.fabric.device.type == "cpu"  # where the pictures are
        model = self.job.model if on_cpu else copy.deepcopy(self.job.model).cpu()
        training = model.training
        with torch.no_grad(), _seeded(self.fabric.device, self.job.identity["seed"]):
            self.job.pictures.draw(model.eval(), about)
        model.train(training)

    def tell(self, epoch: int) -> None:
        """Report the mean loss so far, and the time left once an epoch (or a step) has told how long one takes."""
        if self.progress is None:
            return
        done, schedule = self.done, self.job.schedule
        spent = self.seconds()
        share = schedule.share(epoch, done.step, spent)
        start = schedule.share(*self.first, self.before)
        left = ""
        if share > start:
            left = f", {_clock((spent - self.before) * max(1 - share, 0) / (share - start))} left"
        count = f"step {done.step}" + (f"/{schedule.steps}" if schedule.steps else "")
        if schedule.epochs:
            count = f"epoch {epoch + 1}/{schedule.epochs}"
        mean = float(done.epoch.sums["loss"]) / done.epoch.learned if done.epoch.learned else math.nan
        self.progress(f"{count}, loss {mean:.4f}{left}", min(share, 1.0))


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers of `device` and of the CPU come from `seed`; the caller's go on as before."""
    on_cpu = device.type == "cpu"
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else ()):
        # torch.manual_seed sets the generators of all devices
        (torch.default_generator if on_cpu else torch).manual_seed(seed)
        yield


def _generators(device: torch.device) -> dict[str, Tensor]:
    """States of the generators that a model draws from."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _numbers(parts: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{k} {v.item():.3g}" for k, v in parts.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
