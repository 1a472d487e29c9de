"""The networks of category keypoints: from clouds to ordered, symmetric keypoints.

Two networks with one answer. `PaperKeypoints` is the published one. `CategoryKeypoints` keeps its core, nodes that
guide a symmetric low-rank shape model, and looks at a cloud differently: it finds the rotation of the cloud first
(`geoframe.layers.HarmonicPose`), undoes it, folds the cloud at the plane of symmetry, and only then predicts
coefficients and nodes.

Source: Fernandez-Labrador et al. 2020, "Unsupervised learning of category-specific symmetric 3D keypoints from point
sets".
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.layers import (
    GlobalBranch,
    HarmonicPose,
    KeypointBasis,
    NodeBranch,
    PoseCoefficientBranch,
    farthest_nodes,
    symmetry_frame,
)
from geoframe.surface.clouds import box, check_clouds, thinned
from geoframe.transforms import rotation_from_direction

_CONTEXT = 32  # features of the whole cloud that the node branch gets; our choice, as are the widths
_WALLS = 6  # coordinates of the walls of an axis-aligned box
_SMALLEST_ANGLE = (
    1.0  # degrees: `HarmonicPose` searches an interval of positive length, also for aligned clouds
)


class Keypoints(NamedTuple):
    """What a network says about clouds (B, N, 3).

    Attributes:
        keypoints: (B, K, 3) ordered, in the frame of the cloud.
        canonical: (B, K, 3) the same in the common frame; ``keypoints = canonical @ rotation.mT``.
        nodes: (B, M, 3) unordered, in the frame of the cloud.
        rotation: (B, 3, 3) from the canonical frame to that of the cloud.
        coefficients: (B, C) of the shape basis.
    """

    keypoints: Tensor
    canonical: Tensor
    nodes: Tensor
    rotation: Tensor
    coefficients: Tensor


class PaperKeypoints(nn.Module):
    """The network of the paper, with the widths of its released code, but for a gradient of the angle, missing there.

    Args:
        n_keypoints: K, the number of keypoints and of nodes; at least 3, even with symmetry.
        n_basis: basis shapes.
        mode: "symmetric", "deformation" or "plain", see `KeypointBasis`.
        plane: "vertical" or "any", see `KeypointBasis`.
        rotation: "vertical", about axis `up`, or "any".
        up: the vertical axis, 0 to 2.
    """

    def __init__(
        self,
        n_keypoints: int = 14,
        n_basis: int = 10,
        *,
        mode: str = "symmetric",
        plane: str = "vertical",
        rotation: str = "vertical",
        up: int = 2,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "n_keypoints": n_keypoints,
            "n_basis": n_basis,
            "mode": mode,
            "plane": plane,
            "rotation": rotation,
            "up": up,
        }
        check_int(n_keypoints, "n_keypoints", low=3)
        self.up = check_int(up, "up", low=0, high=2)
        self.axis = None if rotation == "any" else up  # that clouds are rotated about; None for any
        self.basis = KeypointBasis(n_keypoints, n_basis, mode=mode, plane=plane, up=up)
        self.branch = PoseCoefficientBranch(self.basis.n_coefficients, rotation=rotation, up=up)
        self.nodes = NodeBranch(n_keypoints)

    @staticmethod
    def settings_of_data(*, up: int, degrees: float) -> dict[str, Any]:
        """The arguments of the constructor that the clouds decide.

        Args:
            up: their vertical axis.
            degrees: the largest angle by which they are rotated.
        """
        return {"up": up}

    def rotation(self, points: Tensor) -> Tensor:
        """Rotations (B, 3, 3) from the canonical frame to that of clouds (B, N, 3), without the rest of the network."""
        return self.branch(points)[1]

    def forward(self, points: Tensor) -> Keypoints:
        """Keypoints and nodes of clouds (B, N, 3), normalised to scale 2."""
        coefficients, R = self.branch(points)
        canonical = self.basis(coefficients)
        return Keypoints(canonical @ R.mT, canonical, self.nodes(points), R, coefficients)


class CategoryKeypoints(nn.Module):
    """Our network: the rotation first, then coefficients and nodes from the cloud in the canonical frame.

    `prepare` is to be called once with the training clouds before anything else.

    Args:
        n_keypoints: K, the number of keypoints and of nodes; with symmetry even and at least 6, else at least 3.
        n_basis: basis shapes, besides a mean shape.
        mode: "symmetric", "deformation" or "plain", see `KeypointBasis`; "plain" uses no symmetry for the rotation
            either.
        max_angle: degrees by which clouds may be rotated about the vertical; 180 for any.
        up: the vertical axis, 0 to 2.
    """

    def __init__(
        self,
        n_keypoints: int = 12,
        n_basis: int = 10,
        *,
        mode: str = "symmetric",
        max_angle: float = 45.0,
        up: int = 2,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "n_keypoints": n_keypoints,
            "n_basis": n_basis,
            "mode": mode,
            "max_angle": max_angle,
            "up": up,
        }
        self.up = check_int(up, "up", low=0, high=2)
        self.axis: int | None = self.up  # that clouds are rotated about
        self.fold = mode == "symmetric"
        check_int(n_keypoints, "n_keypoints", low=6 if self.fold else 3)  # three nodes a side
        self.pose = HarmonicPose(up=up, max_angle=max_angle, symmetric=mode != "plain")
        self.basis = KeypointBasis(n_keypoints, n_basis, mode=mode, up=up, mean=True)
        self.global_branch = GlobalBranch(
            self.basis.n_coefficients + _CONTEXT, n_extra=_WALLS, hidden=(64, 128)
        )
        # Shapes start near the mean: coefficients of a hundredth of their usual size.
        nn.init.normal_(self.global_branch.head[-1].weight, std=1e-2)  # type: ignore[arg-type]
        self.stretch = nn.Linear(_WALLS, self.basis.n_coefficients, bias=False)  # from the walls of the box
        nn.init.zeros_(self.stretch.weight)
        nodes = n_keypoints // 2 if self.fold else n_keypoints  # with symmetry one half, then mirrored
        self.nodes = NodeBranch(nodes, n_extra=3 + _CONTEXT + _WALLS, width=32)

    @staticmethod
    def settings_of_data(*, up: int, degrees: float) -> dict[str, Any]:
        """The arguments of the constructor that the clouds decide.

        Args:
            up: their vertical axis.
            degrees: the largest angle by which they are rotated.
        """
        return {"up": up, "max_angle": max(degrees, _SMALLEST_ANGLE)}

    def prepare(self, points: Tensor, *, seed: int = 0) -> float:
        """Learn the rotations of the clouds of a category and their plane of symmetry, without labels.

        The mean shape starts as farthest points of the most typical cloud.

        Args:
            points: (n, N, 3) training clouds, normalised to scale 2.
            seed: of the random choices of `HarmonicPose.learn`.

        Returns:
            How well the clouds fit the template of the pose, on average; at most 1.
        """
        fit = self.pose.learn(points, seed=seed)
        fits = torch.cat([self.pose.fit(p) for p in points.split(64)])
        typical = points[fits.argmax()][None]
        with torch.no_grad():
            self.basis.plane_parameter.copy_(self.pose.normal)
            frame = symmetry_frame(self.basis)
            local = typical @ self.rotation(typical) @ frame.mT
            if self.basis.mode != "plain":
                local[..., 0].abs_()
            assert self.basis.mean is not None
            chosen = local[0, farthest_nodes(local, len(self.basis.mean))[0]]
            self.basis.mean.copy_(chosen @ frame)
        self.basis.plane_parameter.requires_grad_(False)
        return fit

    def rotation(self, points: Tensor, *, any_turn: bool = False) -> Tensor:
        """Rotations (B, 3, 3) from the canonical frame to that of clouds (B, N, 3), without the rest of the network.

        Args:
            points: (B, N, 3) as of `forward`.
            any_turn: look for the angle everywhere, whatever `max_angle` is.
        """
        return rotation_from_direction(self.pose(points, any_turn=any_turn), self.up)

    def forward(
        self, points: Tensor, rotation: Tensor | None = None, *, node_points: int | None = None
    ) -> Keypoints:
        """Keypoints and nodes of clouds.

        Args:
            points: (B, N, 3), normalised to scale 2 before they were rotated.
            rotation: (B, 3, 3) from the canonical frame to the clouds, if it is known.
            node_points: nodes are found from so many of the points; None for all.
        """
        check_clouds(points, self.nodes.n_nodes)
        R = self.rotation(points) if rotation is None else rotation
        straight = points @ R
        frame = symmetry_frame(self.basis)
        local = straight @ frame.mT  # across the plane of symmetry, along it, up
        if self.fold:
            local = torch.cat([local[..., :1].abs(), local[..., 1:]], dim=-1)
        walls = torch.cat(box(local), dim=-1)
        coefficients, context = self.global_branch(local, walls).tensor_split(
            [self.basis.n_coefficients], dim=-1
        )
        coefficients = coefficients + self.stretch(walls)
        canonical = self.basis(coefficients)
        some = local if node_points is None else thinned(local, node_points)
        nodes = self.nodes(some, torch.cat([context, walls], dim=-1)) @ frame
        if self.fold:
            nodes = torch.cat([nodes, self.basis.reflect(nodes)], dim=1)
        return Keypoints(canonical @ R.mT, canonical, nodes @ R.mT, R, coefficients)


Network = PaperKeypoints | CategoryKeypoints
NETWORKS: dict[str, type[PaperKeypoints] | type[CategoryKeypoints]] = {
    "paper": PaperKeypoints,
    "pose_first": CategoryKeypoints,
}


def build(network: str, settings: Mapping[str, Any]) -> Network:
    """A network without its weights.

    Args:
        network: "paper" or "pose_first".
        settings: arguments of its constructor.

    Raises:
        ValueError: another network, a setting that this one does not have, a value out of range.
    """
    kind = NETWORKS[check_choice(network, tuple(NETWORKS), "network")]
    known = tuple(inspect.signature(kind).parameters)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"settings: expected some of {', '.join(known)} for network {network!r}, found {', '.join(unknown)}"
        )
    return kind(**settings)
