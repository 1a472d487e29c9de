"""Models and runs on disk: weights as safetensors, what is said about them as JSON, nothing ever half-written.

A trained model is a folder with two files. `model.safetensors` holds the weights. `model.json` holds the kind of
model, the digest of the weights, and whatever the system wants to know when it loads them. A run keeps its state in
one file, `state.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoframe._files import atomic_path

WEIGHTS, ABOUT, STATE = "model.safetensors", "model.json", "state.safetensors"


def save_model(folder: str | Path, model: nn.Module, about: Mapping[str, Any], *, kind: str) -> None:
    """Write model.safetensors and model.json into a folder, each replaced as a whole.

    Args:
        folder: made if need be.
        model: its parameters and buffers are written, from whatever device.
        about: what is needed to build the model again and to use it: settings, names, how it was trained, the digest
            of its data (`geoframe._cache.cache_key`). Anything that JSON takes.
        kind: name of the kind of model, such as "category keypoints"; `load_model` asks for the same.

    Raises:
        TypeError: something in `about` that JSON does not take.
        ValueError: the folder cannot be written to.
    """
    from safetensors.torch import save

    folder = Path(folder)
    data = save(_plain(model.state_dict()))
    described = {"kind": kind, "weights": hashlib.sha256(data).hexdigest(), **about}
    text = json.dumps(described, indent=1) + "\n"  # before anything is written
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(data)
    with atomic_path(folder / ABOUT) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_model(
    folder: str | Path, build: Callable[[dict[str, Any]], nn.Module], *, kind: str
) -> tuple[Any, dict[str, Any]]:
    """Read what `save_model` wrote.

    Args:
        folder: that was given to `save_model`.
        build: makes the model, without its weights, from what was said about it.
        kind: as in `save_model`.

    Returns:
        model: what `build` made, with the weights, on the CPU and in evaluation mode.
        about: what was given to `save_model`.

    Raises:
        ValueError: a file is missing, is of another kind of model or broken, or the two do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    files = (folder / ABOUT, folder / WEIGHTS)
    if missing := [f.name for f in files if not f.is_file()]:
        raise ValueError(
            f"{folder}: expected {ABOUT} and {WEIGHTS} of a trained model, found no {' and no '.join(missing)}"
        )
    try:
        about = json.loads(files[0].read_text(encoding="utf-8"))
        if about.get("kind") != kind:
            raise ValueError(f"kind {about.get('kind')!r}")
        data = files[1].read_bytes()
        if hashlib.sha256(data).hexdigest() != about["weights"]:
            raise ValueError(f"{WEIGHTS} is not the one that {ABOUT} tells of")
        model = build(about)
        model.load_state_dict(load(data))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as err:
        first = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise ValueError(
            f"{folder}: expected a model of {kind}, found something else ({first}); "
            "if an earlier version of geoframe made it, train it again"
        ) from err
    return model.eval(), {k: v for k, v in about.items() if k not in ("kind", "weights")}


def save_state(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    about: Mapping[str, Any],
    more: Mapping[str, Tensor],
) -> None:
    """Write model, optimiser and what is said of a run into one file, so that all are of one moment.

    Args:
        folder: of the run.
        model: its parameters and buffers.
        optimiser: its moments.
        about: anything that JSON takes.
        more: other tensors, such as the states of generators.
    """
    from safetensors.torch import save

    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in entry.items()}
    tensors |= {f"more.{k}": v for k, v in more.items()}
    with atomic_path(folder / STATE) as temporary:
        temporary.write_bytes(save(_plain(tensors), {"about": json.dumps(about)}))


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """What is said of a run and its tensors, as `save_state` wrote them; None where there is no state.

    Raises:
        ValueError: the file is not the state of a run.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / STATE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads(stored.metadata()["about"])
            return about, {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as err:
        raise ValueError(f"{file}: expected the state of a run, found something else; remove it") from err


def restore_state(
    folder: Path, tensors: Mapping[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer | None
) -> dict[str, Tensor]:
    """Put the tensors of `read_state` into model and optimiser, and return the others.

    Raises:
        ValueError: they are of another model.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "more": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = value
    if {k: v.shape for k, v in parts["model"].items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise ValueError(f"{folder / STATE}: belongs to another model; choose another folder or remove it")
    model.load_state_dict(parts["model"])
    if optimiser is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimiser"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return parts["more"]


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors takes them."""
    return {
        k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()
    }  # tied weights are told apart
