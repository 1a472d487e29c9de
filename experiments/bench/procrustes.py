"""Our nearest rotation and Procrustes beside roma's, at the sizes at which the library calls them; gradients, too.

Rotations: one in every step of `shell_refine`, one a vertex in every step of ARAP. Procrustes: templates of some
thousand vertices, clouds of 12 keypoints in batches. Forward, and forward with backward, in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.bench._harness import Row, compare, installed, main, peer_label
from geoframe.transforms import nearest_rotation, procrustes

N_ROTATIONS = (1, 162, 5_000)
CLOUDS = ((1, 12), (64, 12), (1, 5_000), (16, 5_000))


def _with_backward(fn: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        leaf = x.clone().requires_grad_()
        fn(leaf).square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    return call


def _gap(ours: Tensor, theirs: Tensor) -> str:
    return f"differ by {float((ours - theirs).abs().max()):.0e}"


def rotations() -> list[Row]:
    """Batches of 3 x 3 matrices."""
    import roma

    rows, g = [], torch.Generator().manual_seed(0)
    for n in N_ROTATIONS:
        M = torch.randn(n, 3, 3, generator=g, dtype=torch.float64)
        for what, ours, theirs in (
            ("", lambda M=M: nearest_rotation(M), lambda M=M: roma.special_procrustes(M)),
            (
                " with backward",
                _with_backward(lambda x: nearest_rotation(x)[..., 0], M),
                _with_backward(lambda x: roma.special_procrustes(x)[..., 0], M),
            ),
        ):
            rows.append(
                compare(
                    f"{n} rotations{what}", ours, theirs, peer_name=peer_label("roma"), check=_gap, repeats=9
                )
            )
    return rows


def clouds() -> list[Row]:
    """Rigid motions with scale between clouds of corresponding points."""
    import roma

    rows, g = [], torch.Generator().manual_seed(1)
    for batch, n in CLOUDS:
        x, y = (torch.randn(batch, n, 3, generator=g, dtype=torch.float64) for _ in range(2))
        rows.append(
            compare(
                f"{batch} clouds of {n}",
                lambda x=x, y=y: procrustes(x, y, scale=True),
                lambda x=x, y=y: roma.rigid_points_registration(x, y, compute_scaling=True),
                peer_name=peer_label("roma"),
                check=lambda a, b: _gap(a.R, b[0]),
                repeats=9,
            )
        )
    return rows


def degenerate() -> list[Row]:
    """Whether the gradient is finite where there are several nearest rotations; nothing is timed."""
    import roma

    rows = []
    kinds = {
        "zero": torch.zeros(3, 3),
        "rank 1": torch.diag(torch.tensor([1.0, 0, 0])),
        "mirrored, two equal": torch.diag(torch.tensor([2.0, 1, -1])),
        "half turn on a line": torch.diag(torch.tensor([-1.0, 0, 0])),
    }
    for name, M in kinds.items():
        told = []
        for who, fn in (("ours", nearest_rotation), ("roma", roma.special_procrustes)):
            slope = torch.linspace(-1, 1, 9).double().view(3, 3)
            leaf = M.double().requires_grad_()
            (fn(leaf) * slope).sum().backward()
            assert leaf.grad is not None
            told.append(f"{who} {float(leaf.grad.abs().max()):.1e}")
        rows.append(Row(f"gradient at {name}", None, peer=peer_label("roma"), note=", ".join(told)))
    return rows


CASES = {"rotations": rotations, "clouds": clouds, "degenerate": degenerate}

if __name__ == "__main__" and installed("roma"):
    main(__doc__, CASES)
