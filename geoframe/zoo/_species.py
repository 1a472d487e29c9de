"""The animals by name."""

from __future__ import annotations

from dataclasses import replace

from geoframe.zoo._blueprint import Blueprint
from geoframe.zoo._hoofed import GIRAFFE, HORSE
from geoframe.zoo._pawed import DOG
from geoframe.zoo.skeleton import Limits

STILL = (0.0, 0.0)
QUADRUPED: Limits = {
    "pelvis": (STILL, STILL, STILL),
    "spine": (STILL, (-6, 6), (-5, 5)),
    "chest": (STILL, (-6, 6), (-5, 5)),
    "neck": (STILL, (-18, 18), (-22, 10)),
    "upper_neck": (STILL, (-15, 15), (-12, 12)),
    "head": ((-8, 8), (-18, 18), (-15, 15)),
    "tail": (STILL, (-25, 25), (-15, 20)),
    "tail_middle": (STILL, (-18, 18), (-15, 15)),
    "tail_end": (STILL, (-18, 18), (-15, 15)),
    "foreleg": ((-3, 5), STILL, (-22, 24)),
    "forearm": (STILL, STILL, (-4, 26)),
    "forefoot": (STILL, STILL, (-30, 2)),
    "fingers": (STILL, STILL, (-6, 10)),
    "thigh": ((-3, 5), STILL, (-20, 22)),
    "shank": (STILL, STILL, (-22, 6)),
    "hindfoot": (STILL, STILL, (-6, 22)),
    "toes": (STILL, STILL, (-6, 10)),
    "ear": (STILL, (-12, 12), (-10, 10)),
}

SPECIES: dict[str, Blueprint] = {
    "dog": replace(DOG, limits=QUADRUPED),
    "giraffe": replace(GIRAFFE, limits=QUADRUPED),
    "horse": replace(HORSE, limits=QUADRUPED),
}
