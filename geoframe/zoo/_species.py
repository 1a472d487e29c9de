"""The animals by name."""

from __future__ import annotations

from dataclasses import replace

from geoframe.zoo._blueprint import Blueprint
from geoframe.zoo._hoofed import COW, ELEPHANT, GIRAFFE, HORSE, SHEEP, ZEBRA
from geoframe.zoo._pawed import BEAR, CAT, DOG, LION
from geoframe.zoo._upright import BIRD, CHIMP, HUMAN
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

TRUNKED: Limits = {
    **QUADRUPED,
    "muzzle": (STILL, (-8, 8), (-12, 15)),
    "upper_trunk": (STILL, (-12, 12), (-18, 25)),
    "lower_trunk": (STILL, (-12, 12), (-20, 40)),
    "neck": (STILL, (-10, 10), (-8, 8)),
    "upper_neck": (STILL, (-8, 8), (-6, 6)),
    "head": ((-4, 4), (-6, 6), (-6, 6)),
}
BIPED: Limits = {
    "pelvis": (STILL, STILL, STILL),
    "spine": ((-4, 4), (-8, 8), (-8, 4)),
    "chest": ((-4, 4), (-8, 8), (-6, 4)),
    "neck": (STILL, (-15, 15), (-8, 8)),
    "upper_neck": (STILL, (-12, 12), (-6, 6)),
    "head": ((-8, 8), (-12, 12), (-8, 8)),
    "foreleg": ((-25, 15), (-10, 10), (-20, 40)),
    "forearm": (STILL, (-10, 25), (-2, 45)),
    "forefoot": ((-8, 8), STILL, (-12, 12)),
    "fingers": (STILL, STILL, (-8, 8)),
    "thigh": ((-14, 1), STILL, (-18, 35)),
    "shank": (STILL, STILL, (-45, 0)),
    "hindfoot": (STILL, STILL, (-10, 12)),
    "toes": (STILL, STILL, (-3, 8)),
}
WINGED: Limits = {
    **BIPED,
    "neck": (STILL, (-18, 18), (-15, 12)),
    "foreleg": ((-22, 14), (-8, 8), STILL),
    "forearm": ((-12, 8), (-14, 10), STILL),
    "forefoot": ((-10, 8), (-12, 10), STILL),
    "fingers": (STILL, STILL, STILL),
    "thigh": ((-4, 1), STILL, (-18, 22)),
    "shank": (STILL, STILL, (-15, 15)),
    "hindfoot": (STILL, STILL, (-15, 15)),
    "toes": (STILL, STILL, (-4, 8)),
    "tail": (STILL, (-12, 12), (-12, 12)),
}

SPECIES: dict[str, Blueprint] = {
    "bear": replace(BEAR, limits=QUADRUPED),
    "bird": replace(BIRD, limits=WINGED),
    "cat": replace(CAT, limits=QUADRUPED),
    "chimp": replace(CHIMP, limits=BIPED),
    "cow": replace(COW, limits=QUADRUPED),
    "dog": replace(DOG, limits=QUADRUPED),
    "elephant": replace(ELEPHANT, limits=TRUNKED),
    "giraffe": replace(GIRAFFE, limits=QUADRUPED),
    "horse": replace(HORSE, limits=QUADRUPED),
    "human": replace(HUMAN, limits=BIPED),
    "lion": replace(LION, limits=QUADRUPED),
    "sheep": replace(SHEEP, limits=QUADRUPED),
    "zebra": replace(ZEBRA, limits=QUADRUPED),
}
