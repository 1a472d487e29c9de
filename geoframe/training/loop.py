"""One training loop, through Lightning Fabric: device, precision, several processes, checkpoints, resume, log.

A run is a pure function of its seed: what is random in epoch e is drawn from (seed, e), and the state is written
after every epoch, so that a run that was killed goes on to the same result as one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoframe._check import check_int
from geoframe._files import atomic_path
from geoframe._optional import require
from geoframe.training import _tfevents

Batches = Callable[[int, int, int], Iterable[Mapping[str, Tensor]]]
Losses = Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]]
_STATE, _LOG, _EVENTS = "state.safetensors", "log.csv", "events.out.tfevents.0.geoframe"


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam at `lr`, multiplied by `decay` every `every` epochs, never below `floor`."""

    epochs: int = 200
    lr: float = 1e-3
    decay: float = 0.5
    every: int = 40
    floor: float = 1e-5

    def __post_init__(self) -> None:
        check_int(self.epochs, "epochs", low=1)
        check_int(self.every, "every", low=1)
        if not self.lr > 0 or not 0 < self.decay <= 1:
            raise ValueError(
                f"lr, decay: expected lr > 0 and decay in (0, 1], found {self.lr} and {self.decay}"
            )

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return max(self.lr * self.decay ** (epoch // self.every), min(self.floor, self.lr))


def fit(
    model: nn.Module,
    batches: Batches,
    losses: Losses,
    *,
    out: str | Path,
    schedule: Schedule | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    run: Mapping[str, Any] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place: minimise the sum of `losses` over the batches, by Adam.

    Args:
        batches: ``batches(epoch, rank, world)`` gives the share of process `rank` of each batch of an epoch,
            all shares of one size.
        losses: ``losses(model, batch)`` gives named scalars, weights included.
        out: folder of the logs, log.csv and one for TensorBoard, and of the state after the last epoch. A state
            that is there is gone on from; it has to be of the same model, schedule, seed and `run`.
        seed: for what the model itself draws. accelerator, devices, precision: as in Lightning Fabric; more
            than one device on the CPU means as many processes. Under torchrun, its processes are used.
        run: what else tells this run from others, such as its data; numbers, words and lists of them.
        progress: called with (text, share done) after every batch (with one process).

    Returns:
        One dict an epoch: epoch, lr, seconds, loss and each part of it, averaged over batches and processes.

    Raises:
        ValueError: the state in `out` belongs to another run or has more epochs, `out` is a file, there is no such
            accelerator, or the loss is no longer finite.
    """
    fabric_module = require("lightning_fabric", extra="train")
    schedule = schedule or Schedule()
    out = Path(out)
    check_int(devices, "devices", low=1)
    identity = _identity(schedule, seed, run)
    strategy = "ddp_spawn" if devices > 1 else "auto"
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has started the processes
        strategy, devices = "ddp", int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder or a path where one can be made, found the file {out}")
    try:
        fabric = fabric_module.Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision
        )
    except (RuntimeError, ValueError, TypeError, ImportError) as err:
        raise ValueError(
            f"accelerator, devices, precision: expected what this machine has, found {accelerator!r}, {devices} "
            f"and {precision!r} ({str(err).splitlines()[0]}); try accelerator 'auto' or 'cpu'"
        ) from err
    if strategy != "ddp_spawn":
        fabric.launch()
        return _train(fabric, model, batches, losses, out, schedule, identity, progress)
    # Bound beforehand, as Fabric refuses arguments that are frozen dataclasses.
    fabric.launch(partial(_train_copy, model=model, args=(batches, losses, out, schedule, identity, None)))
    return _read_state(out, model, None, schedule, identity)  # what the processes trained is in the file


def _train_copy(fabric: Any, model: nn.Module, args: tuple[Any, ...]) -> None:
    """`_train` in a process of its own: what was sent there shares its memory with the other processes."""
    _train(fabric, copy.deepcopy(model), *args)


def _train(
    fabric: Any,
    model: nn.Module,
    batches: Batches,
    losses: Losses,
    out: Path,
    schedule: Schedule,
    identity: dict[str, Any],
    progress: Callable[[str, float], None] | None,
) -> list[dict[str, float]]:
    """The loop of one process."""
    optimiser = torch.optim.Adam(model.parameters(), lr=schedule.lr)
    wrapped, optimiser = fabric.setup(model, optimiser)
    # once the parameters are where they stay: Adam's moments go to the device and precision they find them in
    history = _read_state(out, model, optimiser, schedule, identity)
    start, first = time.perf_counter(), len(history)
    if fabric.is_global_zero:
        _start_logs(out, history)
    for epoch in range(first, schedule.epochs):
        began = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(epoch)
        wrapped.train()
        with _seeded(fabric.device, identity["seed"] * 1_000_003 + epoch):  # what the model draws
            tell = _teller(progress, schedule, epoch, start, first)
            means = _epoch(fabric, wrapped, optimiser, batches, losses, epoch, tell)
        row = {"epoch": epoch, "lr": schedule.rate(epoch), "seconds": time.perf_counter() - began, **means}
        history.append(row)
        if fabric.is_global_zero:
            _write_state(out, model, optimiser, identity, history)
        fabric.barrier()
    model.to("cpu").eval()
    return history


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers of `device` and of the CPU come from `seed`; the caller's go on as before."""
    on_cpu = device.type == "cpu"
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else ()):
        # torch.manual_seed sets the generators of all devices
        (torch.default_generator if on_cpu else torch).manual_seed(seed)
        yield


def _epoch(
    fabric: Any,
    model: nn.Module,
    optimiser: Any,
    batches: Batches,
    losses: Losses,
    epoch: int,
    tell: Callable[[float], None],
) -> dict[str, float]:
    """One pass; returns the means of loss and parts over batches and processes."""
    sums: dict[str, Tensor] = {}
    count = 0
    for batch in batches(epoch, fabric.global_rank, fabric.world_size):
        moved = {name: x.to(fabric.device) for name, x in batch.items()}
        parts = dict(losses(model, moved))
        total = torch.stack(list(parts.values())).sum()
        if not bool(torch.isfinite(total)):
            found = ", ".join(f"{k} {v.item():.3g}" for k, v in parts.items())
            raise ValueError(
                f"loss: expected a finite number, found {found} in epoch {epoch}; lower the rate"
            )
        optimiser.zero_grad()
        fabric.backward(total)
        optimiser.step()
        count += 1
        for name, value in {"loss": total, **parts}.items():
            sums[name] = sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        tell(float(sums["loss"]) / count)
    if not count:
        raise ValueError("batches: expected at least one batch an epoch, found none")
    means = torch.stack(list(sums.values())) / count
    return dict(zip(sums, fabric.all_reduce(means).tolist(), strict=True))


def _teller(
    progress: Callable[[str, float], None] | None, schedule: Schedule, epoch: int, start: float, first: int
) -> Callable[[float], None]:
    """Turns the mean loss so far into a text with the time left, once an epoch has told how long one takes."""

    def tell(loss: float) -> None:
        if progress is None:
            return
        done = epoch - first
        seconds = time.perf_counter() - start
        left = f", {_clock(seconds / done * (schedule.epochs - epoch))} left" if done else ""
        progress(f"epoch {epoch + 1}/{schedule.epochs}, loss {loss:.4f}{left}", epoch / schedule.epochs)

    return tell


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _identity(schedule: Schedule, seed: int, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """What has to agree for a run to go on; the number of epochs may grow."""
    said = {k: v for k, v in asdict(schedule).items() if k != "epochs"} | {"seed": seed} | dict(run or {})
    return dict(json.loads(json.dumps(said)))


def _write_state(
    out: Path,
    model: nn.Module,
    optimiser: Any,
    identity: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Model, optimiser and history in one safetensors file, so that they are of one epoch; the log beside it."""
    from safetensors.torch import save

    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    for index, entry in optimiser.state_dict()["state"].items():
        for key, value in entry.items():
            tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    about = {"run": identity, "history": history}
    with atomic_path(out / _STATE) as temporary:
        temporary.write_bytes(save(tensors, {"about": json.dumps(about)}))
    with (out / _EVENTS).open("ab") as file:
        file.write(_event(history, len(history) - 1))
    _write_log(out, history)


def _write_log(out: Path, history: list[dict[str, float]]) -> None:
    with atomic_path(out / _LOG) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[-1]))
        writer.writeheader()
        writer.writerows(history)


def _start_logs(out: Path, history: list[dict[str, float]]) -> None:
    """The log and a new file for TensorBoard with what was done before, which a kill may have left an epoch short.

    Epochs are appended to the file for TensorBoard, so that it can be watched.
    """
    out.mkdir(parents=True, exist_ok=True)
    if history:
        _write_log(out, history)
    with atomic_path(out / _EVENTS) as temporary:
        temporary.write_bytes(_tfevents.header() + b"".join(_event(history, i) for i in range(len(history))))


def _event(history: list[dict[str, float]], i: int) -> bytes:
    values = {name: value for name, value in history[i].items() if name not in ("epoch", "seconds")}
    return _tfevents.scalars(values, step=i, seconds=sum(row["seconds"] for row in history[: i + 1]))


def _read_state(
    out: Path, model: nn.Module, optimiser: Any | None, schedule: Schedule, identity: dict[str, Any]
) -> list[dict[str, float]]:
    """Load what a killed run left into model and optimiser, and return its history ([] without one)."""
    from safetensors import SafetensorError, safe_open

    file = out / _STATE
    if not file.is_file():
        return []
    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads(stored.metadata()["about"])
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as err:
        raise ValueError(f"{file}: expected the state of a run, found something else; remove it") from err
    if about["run"] != identity:
        theirs = ", ".join(f"{k} {v}" for k, v in about["run"].items() if identity.get(k) != v) or "less said"
        raise ValueError(f"{file}: belongs to another run ({theirs}); choose another folder or remove it")
    if len(about["history"]) > schedule.epochs:
        raise ValueError(
            f"{file}: has {len(about['history'])} epochs, more than the {schedule.epochs} that are asked for; "
            "choose another folder or remove it"
        )
    own = {k: v for k, v in tensors.items() if k.startswith("model.")}
    want = {f"model.{k}": v.shape for k, v in model.state_dict().items()}
    if {k: v.shape for k, v in own.items()} != want:
        raise ValueError(f"{file}: belongs to another model; choose another folder or remove it")
    model.load_state_dict({k.removeprefix("model."): v for k, v in own.items()})
    if optimiser is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    history: list[dict[str, float]] = about["history"]
    return history
