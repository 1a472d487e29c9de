"""Trained heads as ONNX files, to run where there is no torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import nn

from geoframe._check import check_int
from geoframe._files import atomic_path
from geoframe._optional import require


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own progress and of packages that it would have looked at."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def export_onnx(head: nn.Module, path: str | Path, *, size: tuple[int, int]) -> None:
    """Write a head as an ONNX file with one input, `image`, and the outputs of the head under their names.

    Args:
        head: takes images (1, 3, H, W) in [0, 1] and gives a NamedTuple of tensors.
        path: the file.
        size: (H, W) of the images.

    Raises:
        ImportError: onnxscript is missing.
        ValueError: a size that is not positive, a folder that cannot be written to.
    """
    require("onnxscript", extra="image")
    for n in size:
        check_int(n, "size", low=1)
    image = torch.zeros(1, 3, *size)
    head = head.eval()
    with torch.no_grad():
        names = list(head(image)._fields)
    with atomic_path(Path(path)) as temporary, _quiet():
        program = torch.onnx.export(
            head, (image,), input_names=["image"], output_names=names, dynamo=True, verbose=False
        )
        assert program is not None
        program.save(str(temporary))
