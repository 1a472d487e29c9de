"""Animals made of limbs: smooth closed surfaces with named landmarks, for demonstrations and templates.

An animal looks along +x, +y is up, so its left is at -z. Lengths are in units of about half its height.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geoframe._check import check_choice
from geoframe.surface.implicit import Field, Limb, body, girth, implicit_surface
from geoframe.surface.mesh import Mesh

Joint = tuple[float, float, float, float]  # x, y, z, radius


@dataclass(frozen=True)
class Part:
    """One limb of a blueprint; a part with `swing` exists twice, mirrored, the right one (+z) as written.

    Attributes:
        joints: (x, y, z, radius) of each. stretch, blend: as in `Limb`.
        swing: angles in degrees by which the (left, right) limb is turned about its first joint, toes
            forward positive; None for a limb that exists once.
    """

    joints: tuple[Joint, ...]
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blend: float = 0.05
    swing: tuple[float, float] | None = None


DOG: Mapping[str, Part] = {
    "torso": Part(
        ((-0.42, 0.66, 0, 0.135), (-0.18, 0.67, 0, 0.125), (0.08, 0.64, 0, 0.165), (0.28, 0.64, 0, 0.165)),
        stretch=(1, 1, 0.82),
    ),
    "neck": Part(((0.30, 0.70, 0, 0.12), (0.47, 0.90, 0, 0.09)), stretch=(1, 1, 0.85), blend=0.10),
    "head": Part(((0.50, 0.985, 0, 0.108), (0.57, 0.975, 0, 0.100)), stretch=(1, 1, 0.92), blend=0.06),
    "muzzle": Part(((0.62, 0.930, 0, 0.074), (0.78, 0.900, 0, 0.058)), stretch=(1, 0.95, 0.85), blend=0.04),
    "nose": Part(((0.80, 0.935, 0, 0.028), (0.835, 0.932, 0, 0.026)), blend=0.015),
    "ear": Part(
        ((0.47, 1.05, 0.062, 0.062), (0.455, 1.13, 0.082, 0.050), (0.450, 1.22, 0.098, 0.026)),
        stretch=(0.75, 1, 1),
        blend=0.02,
        swing=(0, 0),
    ),
    "foreleg": Part(
        (
            (0.27, 0.56, 0.085, 0.095),
            (0.20, 0.39, 0.11, 0.062),
            (0.22, 0.17, 0.11, 0.040),
            (0.22, 0.05, 0.11, 0.040),
            (0.28, 0.035, 0.11, 0.040),
        ),
        swing=(16, -8),
    ),
    "hindleg": Part(
        (
            (-0.42, 0.62, 0.07, 0.120),
            (-0.31, 0.40, 0.11, 0.078),
            (-0.49, 0.21, 0.11, 0.043),
            (-0.46, 0.05, 0.11, 0.038),
            (-0.39, 0.035, 0.11, 0.040),
        ),
        swing=(-12, 10),
    ),
    "tail": Part(
        (
            (-0.50, 0.73, 0, 0.055),
            (-0.63, 0.77, 0, 0.045),
            (-0.74, 0.87, 0, 0.040),
            (-0.79, 1.00, 0, 0.034),
            (-0.78, 1.12, 0, 0.020),
        ),
        blend=0.05,
    ),
}

GIRAFFE: Mapping[str, Part] = {
    "torso": Part(
        ((-0.30, 0.93, 0, 0.145), (-0.10, 0.97, 0, 0.185), (0.12, 1.02, 0, 0.195), (0.24, 1.06, 0, 0.165)),
        stretch=(1, 1, 0.8),
    ),
    "neck": Part(
        ((0.26, 1.12, 0, 0.135), (0.40, 1.42, 0, 0.095), (0.52, 1.72, 0, 0.075), (0.58, 1.88, 0, 0.07)),
        stretch=(1, 1, 0.85),
        blend=0.12,
    ),
    "head": Part(((0.60, 1.92, 0, 0.082), (0.70, 1.88, 0, 0.070)), stretch=(1, 1, 0.9), blend=0.06),
    "muzzle": Part(((0.72, 1.865, 0, 0.058), (0.90, 1.79, 0, 0.048)), stretch=(1, 1, 0.95), blend=0.04),
    "horn": Part(((0.60, 1.98, 0.035, 0.030), (0.575, 2.12, 0.050, 0.030)), blend=0.02, swing=(0, 0)),
    "ear": Part(
        ((0.55, 1.955, 0.065, 0.028), (0.52, 1.975, 0.14, 0.042), (0.50, 1.98, 0.215, 0.020)),
        stretch=(0.7, 1, 1),
        blend=0.02,
        swing=(0, 0),
    ),
    "foreleg": Part(
        (
            (0.22, 0.96, 0.085, 0.110),
            (0.20, 0.72, 0.115, 0.068),
            (0.22, 0.42, 0.115, 0.047),
            (0.21, 0.12, 0.115, 0.034),
            (0.22, 0.045, 0.115, 0.046),
            (0.25, 0.042, 0.115, 0.044),
        ),
        swing=(-10, 8),
    ),
    "hindleg": Part(
        (
            (-0.32, 0.90, 0.08, 0.130),
            (-0.25, 0.66, 0.11, 0.082),
            (-0.38, 0.42, 0.11, 0.046),
            (-0.36, 0.12, 0.11, 0.034),
            (-0.35, 0.045, 0.11, 0.046),
            (-0.32, 0.042, 0.11, 0.044),
        ),
        swing=(9, -7),
    ),
    "tail": Part(
        ((-0.42, 0.98, 0, 0.040), (-0.52, 0.86, 0, 0.028), (-0.55, 0.62, 0, 0.026), (-0.55, 0.50, 0, 0.040)),
        blend=0.04,
    ),
}
_BLUEPRINTS = {"dog": DOG, "giraffe": GIRAFFE}
# part, joint and the direction (x, y, z) in which the surface is met; z counts outwards for parts that exist twice
_LANDMARKS: Mapping[str, tuple[str, int, tuple[float, float, float]]] = {
    "nose": ("muzzle", -1, (1, 0, 0)),
    "forehead": ("head", 1, (0.3, 1, 0)),
    "throat": ("neck", 1, (0.8, -0.6, 0)),
    "chest": ("torso", -1, (1, -0.3, 0)),
    "withers": ("torso", -1, (-0.2, 1, 0)),
    "back": ("torso", 1, (0, 1, 0)),
    "belly": ("torso", 1, (0, -1, 0)),
    "rump": ("torso", 0, (-0.5, 1, 0)),
    "tail_tip": ("tail", -1, (0, 0, 0)),
    "ear": ("ear", -1, (0, 0, 0)),
    "shoulder": ("foreleg", 0, (0, 0, 1)),
    "elbow": ("foreleg", 1, (-1, 0, 0)),
    "front_paw": ("foreleg", -1, (1, 0, 0)),
    "hip": ("hindleg", 0, (0, 0, 1)),
    "hock": ("hindleg", 2, (-1, 0, 0)),
    "hind_paw": ("hindleg", -1, (1, 0, 0)),
}


def creature(name: str, n_verts: int = 3000, *, seed: int = 0) -> tuple[Mesh, dict[str, int]]:
    """An animal as a closed manifold mesh of about `n_verts` vertices (V, 3), and its named landmark vertices.

    Args:
        name: "dog" or "giraffe". seed: of the triangulation; other seeds share no connectivity.

    Raises:
        ValueError: unknown name, or too few vertices for the thinnest parts.
    """
    check_choice(name, tuple(_BLUEPRINTS), "name")
    limbs = _limbs(_BLUEPRINTS[name])
    field = body(list(limbs.values()))
    ends = torch.cat([limb.joints + s * limb.radii[:, None] for limb in limbs.values() for s in (1, -1)])
    margin = 0.05
    mesh = implicit_surface(
        field,
        ends.amin(0) - margin,
        ends.amax(0) + margin,
        n_verts,
        size=_edge_length(limbs),
        seed=seed,
    )
    landmarks = {}
    for landmark, (part, joint, direction) in _LANDMARKS.items():
        for side in ("",) if part in limbs else ("left_", "right_"):
            place = _landmark_place(
                field, limbs[side + part], joint, direction, -1.0 if side == "left_" else 1.0
            )
            landmarks[side + landmark] = int((mesh.verts - place).norm(dim=1).argmin())
    return mesh, landmarks


def _limbs(blueprint: Mapping[str, Part]) -> dict[str, Limb]:
    """Limbs by name, the mirrored ones as left_NAME and right_NAME."""
    limbs = {}
    for name, part in blueprint.items():
        table = torch.tensor(part.joints, dtype=torch.float64)
        limb = Limb(table[:, :3], table[:, 3], part.stretch, part.blend)
        if part.swing is None:
            limbs[name] = limb
            continue
        for side, sign, angle in (("left", -1.0, part.swing[0]), ("right", 1.0, part.swing[1])):
            mirrored = limb.joints * limb.joints.new_tensor([1, 1, sign])
            limbs[f"{side}_{name}"] = replace(limb, joints=_swing(mirrored, angle))
    return limbs


def _edge_length(limbs: Mapping[str, Limb]) -> Field:
    """(M, 3) points to (M,) relative edge length: shorter on thin limbs and on the head."""
    radius, head = girth(list(limbs.values())), limbs["head"].joints.mean(0)

    def size(points: Tensor) -> Tensor:
        near = torch.exp(-((points - head) ** 2).sum(-1) / 0.3**2)
        return radius(points).sqrt() * (1 - 0.35 * near)

    return size


def _swing(joints: Tensor, degrees: float) -> Tensor:
    """Turned about the z axis through the first joint; positive moves what hangs down forward (+x)."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=joints.dtype))
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(()).double(), torch.ones(()).double()
    turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, one]).view(3, 3)
    return joints[0] + (joints - joints[0]) @ turn.T


def _landmark_place(
    field: Field, limb: Limb, joint: int, direction: tuple[float, float, float], outward: float
) -> Tensor:
    """Where the ray from a joint leaves the surface; direction (0, 0, 0) continues the last bone."""
    ray = limb.joints.new_tensor(direction) * limb.joints.new_tensor([1, 1, outward])
    if not bool(ray.any()):
        ray = limb.joints[-1] - limb.joints[-2]
    ray = ray / ray.norm()
    reach = torch.linspace(0, 4, 2001, dtype=torch.float64)[:, None] * limb.radii[joint]
    path = limb.joints[joint] + reach * ray
    return path[int((field(path) > 0).double().argmax())]
