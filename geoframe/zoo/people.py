"""Faces, hair and clothes for humans and chimpanzees: colours that tell the front from the back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from geoframe._types import Array
from geoframe.zoo.coats import Wardrobe, wardrobe
from geoframe.zoo.rig import Rig
from geoframe.zoo.textures import region_share

PEOPLE = ("human", "chimp")
_SKIN = np.array(
    [
        *((0.96, 0.80, 0.69), (0.90, 0.69, 0.56), (0.82, 0.60, 0.45), (0.67, 0.46, 0.33)),
        *((0.48, 0.31, 0.22), (0.33, 0.21, 0.15)),
    ]
)
_HAIR = np.array(
    [
        *((0.08, 0.06, 0.05), (0.16, 0.11, 0.08), (0.28, 0.18, 0.11), (0.45, 0.31, 0.18)),
        *((0.75, 0.60, 0.36), (0.50, 0.24, 0.11), (0.62, 0.61, 0.60), (0.88, 0.87, 0.85)),
    ]
)
_FUR = np.array([(0.07, 0.06, 0.06), (0.13, 0.10, 0.09), (0.22, 0.17, 0.14), (0.30, 0.25, 0.22)])


@dataclass(frozen=True, eq=False)
class _Body:
    """Where the vertices of a rig lie on the species' own form: see `Wardrobe` for the rings.

    Attributes:
        wear: the rings.
        height: (V,) y, a share of the whole height.
        side: (V,) z, in the same unit, without sign.
        ahead: (V,) x before the middle of the ears, in the same unit.
        head: (V,) 1 on the head, 0 elsewhere.
        arm: (V,) number of the ring of the arm, 0 elsewhere.
        leg: (V,) number of the ring of the leg, 0 elsewhere.
        trunk: (V,) number of the ring of the trunk, 30 on the head, -9 on the limbs.
        front: (V,) 0 on the back, 1 in front.
        face: bare skin of a chimpanzee, by region.
        marks: name -> height, side and ahead of landmarks of the face.
    """

    wear: Wardrobe
    height: Array
    side: Array
    ahead: Array
    head: Array
    arm: Array
    leg: Array
    trunk: Array
    front: Array
    face: Array
    marks: dict[str, Array]


@lru_cache(maxsize=16)
def _body(r: Rig) -> _Body:
    w = wardrobe(r)
    own = (r.smooth @ r.cage + r.relief).astype(np.float32)
    own[:, 1] -= own[:, 1].min()
    own /= own[:, 1].max()
    ears = own[r.landmarks["right_ear"], 0]
    place = np.stack([own[:, 1], abs(own[:, 2]), own[:, 0] - ears], 1)
    names = {"eye": "right_eye", "nose": "nose", "chin": "chin", "forehead": "forehead", "poll": "poll"}
    marks = {n: place[r.landmarks[v]] for n, v in names.items()}
    limb = w.limb > 0.6
    head = ((w.along > 15.3) & ~limb).astype(np.float32)
    trunk = np.where(limb, np.float32(-9), np.where(head > 0, np.float32(30), w.along))
    arm, leg = np.where(w.fore > 0, w.limb, 0), np.where(w.fore < 0, w.limb, 0)
    face = np.clip(region_share("face", r.smooth), 0, 1).astype(np.float32)
    height, side, ahead = place.T.copy()
    return _Body(w, height, side, ahead, head, arm, leg, trunk, w.around, face, marks)


def dressed(r: Rig, rng: np.random.Generator) -> Array:
    """(V, 3) float32 colours of a person with face, hair and clothes, or of a chimpanzee with face and fur.

    Args:
        r: of one of `PEOPLE`.
        rng: what is drawn comes from here.
    """
    b = _body(r)
    color = _ape(b, rng) if r.name == "chimp" else _person(b, rng)
    first = int(rng.integers(0, 16))
    tone = np.float32(rng.normal(0, 0.02, 8)) @ b.wear.fields[first : first + 8]
    return np.clip(color * (1 + tone[:, None]), 0.01, 1)


def _person(b: _Body, rng: np.random.Generator) -> Array:
    skin = skin_color(rng)
    color = np.tile(np.float32(skin), (len(b.height), 1))
    hair = hair_color(rng)
    if abs(hair.mean() - skin.mean()) < 0.18:  # told from the skin
        hair = hair * 0.3 if skin.mean() > 0.35 else np.clip(hair * 0.25, 0, 0.05)
    _trousers(b, color, rng)
    _top(b, color, skin, rng)
    _portrait(b, color, skin, hair, rng)
    _hairdo(b, color, hair, rng)
    return color


def _trousers(b: _Body, color: Array, rng: np.random.Generator) -> None:
    """Trousers, shorts or a skirt, and shoes."""
    cloth = _cloth(rng)
    waist = 3.0 + rng.normal(0, 0.5)
    ends = (8.3, 2.2, 3.6)[int(np.searchsorted((0.62, 0.85), rng.random()))] + rng.normal(0, 0.3)
    _paint(color, (b.trunk > -5) & (b.trunk < waist), cloth)
    _paint(color, (b.leg > 0) & (b.leg < ends), cloth)
    if rng.random() < 0.5:  # back pockets
        pocket = (b.front < 0.4) & (abs(b.trunk - 1.6) < 0.8) & (b.side > 0.018) & (b.side < 0.05)
        _paint(color, pocket, cloth * rng.uniform(0.6, 0.85))
    if rng.random() < 0.4:  # a fly
        _paint(color, (b.side < 0.008) & (b.front > 0.7) & (b.trunk < waist) & (b.trunk > 0), cloth * 0.7)
    if rng.random() < 0.35:
        _paint(color, abs(b.trunk - waist) < 0.5, _cloth(rng) * 0.5)
    if rng.random() < 0.85:
        _paint(color, b.leg > 7.3 + rng.uniform(-0.5, 0.6), _cloth(rng) * (1 if rng.random() < 0.5 else 0.4))


def _top(b: _Body, color: Array, skin: Array, rng: np.random.Generator) -> None:
    """A shirt, jacket or dress with what it has in front; now and then a print or a bag on the back."""
    cloth, second = _cloth(rng), _cloth(rng)
    waist, neck = 3.0 + rng.normal(-0.2, 0.7), 12.2 + rng.uniform(-0.5, 0.6)
    sleeve = (8.2, 3.0, 1.0)[int(np.searchsorted((0.45, 0.85), rng.random()))] + rng.normal(0, 0.3)
    trunk = (b.trunk > waist) & (b.trunk < neck)
    mine = trunk | ((b.arm > 0) & (b.arm < sleeve))
    if rng.random() < 0.05:  # none
        return
    _paint(color, mine, cloth)
    if rng.random() < 0.18:  # stripes around
        step = rng.uniform(0.03, 0.09)
        _paint(color, mine & ((b.height / step) % 1 < 0.45), second)
    elif rng.random() < 0.1:  # sleeves of another colour
        _paint(color, mine & (b.arm > 0.6), second)
    if rng.random() < 0.06:  # a dress
        _paint(color, (b.trunk > -5) & (b.trunk < waist + 1) | ((b.leg > 0) & (b.leg < 3.4)), cloth)
    front, kind = trunk & (b.front > 0.5), rng.random()
    if kind < 0.38:  # an open jacket, with or without a tie
        _paint(color, front & (b.side < rng.uniform(0.02, 0.05)), second)
        if rng.random() < 0.4:
            _paint(color, front & (b.side < 0.011), _cloth(rng))
    elif kind < 0.6:  # buttons or a zip
        _paint(color, front & (b.side < 0.009), cloth * 0.45 if rng.random() < 0.6 else second)
    elif kind < 0.85:  # a print
        y, high, wide = rng.uniform(0.70, 0.76), rng.uniform(0.015, 0.05), rng.uniform(0.03, 0.07)
        _paint(color, front & (((b.height - y) / high) ** 2 + (b.side / wide) ** 2 < 1), second)
    if rng.random() < 0.7:  # neckline
        deep = rng.uniform(0.3, 2.2)
        bare = front & (b.front > 0.75) & (neck - b.trunk < deep * (1 - b.side / rng.uniform(0.04, 0.07)))
        _paint(color, bare, skin)
    back, kind = trunk & (b.front < 0.5), rng.random()
    if kind < 0.1:  # a print or number on the back
        _paint(color, back & (abs(b.height - 0.73) < 0.05) & (b.side < rng.uniform(0.02, 0.05)), second)
    elif kind < 0.2:  # a bag and its straps
        bag = _cloth(rng)
        _paint(color, back & (b.trunk > 5) & (b.trunk < 11.2) & (b.side < 0.085), bag)
        _paint(color, front & (abs(b.side - 0.065) < 0.011) & (b.trunk > 7), bag)
    if rng.random() < 0.04:
        _paint(color, b.arm > 6.5, _cloth(rng))


def _portrait(b: _Body, color: Array, skin: Array, hair: Array, rng: np.random.Generator) -> None:
    """Eyes, brows, nose, mouth, beard; glasses now and then."""
    eye, nose, chin = (b.marks[n] for n in ("eye", "nose", "chin"))
    front = b.head * (b.ahead > 0.02)
    warm = skin * np.array([1.05, 0.88, 0.85])
    _paint(color, 0.8 * front * _near(b, nose, 0.014, 0.014), warm)
    cheek = np.array([nose[0], 0.55 * eye[1] + 0.012, 0])
    _paint(color, rng.uniform(0, 0.5) * front * _near(b, cheek, 0.012, 0.012), warm)
    if rng.random() < 0.22:
        beard = front * (b.height < nose[0] - 0.008) * (b.height > chin[0] - 0.03)
        _paint(color, rng.uniform(0.4, 1) * beard, hair)
    mouth = chin + 0.52 * (nose - chin)
    lips = skin * np.array([0.72, 0.45, 0.45]) if rng.random() < 0.7 else np.array([0.6, 0.12, 0.14])
    _paint(color, front * _near(b, (mouth[0], 0, 0), 0.0075, 0.017), lips)
    white = front * _near(b, (eye[0], eye[1], 0), 0.009, 0.013)
    _paint(color, 0.6 * white, np.array([0.92, 0.9, 0.88]))
    _paint(color, front * _near(b, (eye[0], eye[1], 0), 0.008, 0.0085), rng.uniform(0.03, 0.2, 3))
    brow = front * _near(b, (eye[0] + 0.014, eye[1], 0), 0.006, 0.014)
    _paint(color, rng.uniform(0, 0.7) * brow, hair * 0.7)
    if rng.random() < 0.1:
        dark = rng.uniform(0.02, 0.2, 3)
        _paint(color, front * _near(b, (eye[0], eye[1], 0), 0.013, 0.02) * rng.uniform(0.6, 1), dark)


def _hairdo(b: _Body, color: Array, hair: Array, rng: np.random.Generator) -> None:
    """Short hair, long hair, none, or a hat."""
    eye, forehead = (b.marks[n] for n in ("eye", "forehead"))
    line = 0.5 * (eye[0] + 0.02) + 0.5 * max(forehead[0], eye[0] + 0.03) + rng.uniform(-0.006, 0.014)
    behind, above = b.ahead < rng.uniform(-0.004, 0.012), b.height > line
    low = eye[0] - rng.uniform(0.02, 0.06)
    kind = rng.random()
    top = b.head * above
    if kind < 0.07:  # bald but for the sides
        _paint(color, b.head * behind * (b.height > low) * (b.height < line + 0.01), hair)
    else:
        _paint(color, np.maximum(top, b.head * behind * (b.height > low)), hair)
    if kind > 0.6:  # long: down the neck, and over the shoulders
        down = b.marks["chin"][0] - rng.uniform(0.0, 0.14)
        back = ((b.head > 0) & behind) | ((b.trunk > 8) & (b.trunk < 29) & (b.front < 0.42))
        _paint(color, back & (b.height > down) & (b.side < 0.075), hair)
        _paint(color, (b.head > 0) & (b.ahead < 0.03) & (b.side > 0.035) & (b.height > down), hair)
    if rng.random() < 0.14:  # a cap or hat
        hat = _cloth(rng)
        _paint(color, b.head * (b.height > line - 0.006), hat)
        if rng.random() < 0.5:
            peak = (abs(b.height - line) < 0.012) & (b.head > 0) & (b.ahead > 0.03)
            _paint(color, peak, hat * 0.5)


def _ape(b: _Body, rng: np.random.Generator) -> Array:
    fur = _mixed(_FUR, rng)
    color = np.tile(np.float32(fur), (len(b.height), 1))
    skin = _mixed(_SKIN, rng) * rng.uniform(0.5, 0.95)
    _paint(color, rng.uniform(0, 0.4) * (b.front > 0.6) * (b.trunk > 0) * (b.trunk < 13), skin)
    if rng.random() < 0.5:  # grey on the back of an old one
        _paint(
            color,
            rng.uniform(0.1, 0.6) * (b.front < 0.35) * (b.trunk < 8) * (b.trunk > -5),
            (0.5, 0.48, 0.46),
        )
    _paint(color, b.face * (b.ahead > 0), skin)
    _paint(color, b.wear.regions["ears"], skin)
    _paint(color, np.clip(np.maximum(b.arm - 7.5, b.leg - 7.5), 0, 1), skin * 0.7)
    eye, nose, chin = (b.marks[n] for n in ("eye", "nose", "chin"))
    front = b.head * (b.ahead > 0.02)
    _paint(color, front * _near(b, (eye[0], eye[1], 0), 0.013, 0.016), (0.04, 0.03, 0.03))
    _paint(color, front * _near(b, (eye[0] + 0.022, eye[1], 0), 0.009, 0.025), fur * 0.7)
    _paint(color, front * _near(b, nose, 0.014, 0.018), skin * 0.4)
    mouth = chin + rng.uniform(0.4, 0.6) * (nose - chin)
    _paint(color, front * _near(b, (mouth[0], 0, 0), 0.008, 0.045), skin * 0.45)
    if rng.random() < 0.3:
        _paint(color, front * (b.height < nose[0] - 0.02) * (b.side < 0.04), (0.75, 0.72, 0.68))
    return color


def _near(b: _Body, place: Array | tuple[float, float, float], high: float, wide: float) -> Array:
    """(V,) 1 near a place of the face and its mirror image, 0 from 1.6 times as far on."""
    gap = np.sqrt(((b.height - place[0]) / high) ** 2 + ((b.side - place[1]) / wide) ** 2)
    return np.clip((1.6 - gap) / 0.6, 0, 1).astype(np.float32)


def _paint(color: Array, share: Array, other: Array | tuple[float, float, float]) -> None:
    from geoframe.zoo._bend import blend

    blend(color, share.astype(np.float32), np.clip(np.asarray(other, np.float32), 0, 1))


def _cloth(rng: np.random.Generator) -> Array:
    """A colour of cloth: greys, blues and browns more often than vivid ones."""
    kind, light = rng.random(), rng.random()
    if kind < 0.3:
        color = np.full(3, 0.04 + 0.9 * light)
    elif kind < 0.5:
        color = np.array([0.16, 0.23, 0.42]) * (0.4 + 1.4 * light)
    elif kind < 0.62:
        color = np.array([0.55, 0.45, 0.33]) * (0.4 + 1.3 * light)
    else:
        color = rng.random(3)
    return np.clip(color + rng.normal(0, 0.03, 3), 0.02, 1)


def skin_color(rng: np.random.Generator) -> Array:
    """(3,) of a person."""
    return _mixed(_SKIN, rng)


def hair_color(rng: np.random.Generator) -> Array:
    """(3,) of a person."""
    return _mixed(_HAIR, rng)


def _mixed(table: Array, rng: np.random.Generator) -> Array:
    i, j = rng.integers(0, len(table), 2)
    t = rng.uniform(0, 0.4)
    return np.clip(((1 - t) * table[i] + t * table[j]) * rng.normal(1, 0.05), 0.02, 1)
