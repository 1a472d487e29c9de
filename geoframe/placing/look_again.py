"""Clouds whose score is low, looked at again: from other turns about the vertical, and lying on their other sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoframe.placing.locate import Located
from geoframe.transforms import Similarity, rotation_about_axis

WIDEST_START = math.radians(60)  # of the angles that a model searches: with wider ones a start is none
_SURE = 0.95  # least score in another turn or on another side: of several tries one may look right by chance
_UPRIGHT = 0.85  # where another axis is up: common in files, while things upside down are rare
_AT_ONCE = 64  # clouds that are looked at in all frames together, which takes less time than one frame after the other
_COMMON = 0.5  # least mean score of clouds along the axis that all of them are taken to stand along
_MORE = 0.25  # and by how much it has to be above that along the axis that was expected
_LEAD = 3.0  # of its log-odds over those of the side that was given, which is the right one most of the time


class Seen(NamedTuple):
    """Clouds in one orientation: where they are, what the network says there, how sure that is."""

    located: Located
    found: Any
    score: Tensor
    uncertainty: Tensor


class LookAgain(NamedTuple):
    """How doubtful clouds are looked at again.

    Attributes:
        look: clouds (B, N, 3), rotations (B, 3, 3) of frames, and `any_turn` and `quick` as of
            `geoframe.placing.locate.locate`, to `Seen`.
        up: the vertical axis, 0 to 2.
        limit: the score below which a cloud is doubtful.
    """

    look: Callable[..., Seen]
    up: int
    limit: float

    def other_turns(self, clouds: Tensor, seen: Seen) -> Seen:
        """What is found of doubtful clouds (B, N, 3) a quarter or half a turn off, where that is sure."""
        rows = (seen.score < self.limit).nonzero()[:, 0]
        if not len(rows):
            return seen
        R, a, b = seen.located.motion.R[rows], (self.up + 1) % 3, (self.up + 2) % 3
        angle = torch.atan2(R[:, b, a] - R[:, a, b], R[:, a, a] + R[:, b, b])
        quarters = torch.arange(1, 4, device=angle.device)[:, None] * (math.pi / 2)
        turns = rotation_about_axis(angle + quarters, self.up)
        least = seen.score[rows].clamp(min=max(_SURE, self.limit))
        return self._try(clouds, seen, rows, turns, least, any_turn=False)[0]

    def other_sides(self, clouds: Tensor, seen: Seen) -> tuple[Seen, Tensor]:
        """What is found of doubtful clouds (B, N, 3) on each of the five other sides, where it is sure.

        The second answer are rotations (B, 3, 3) of the clouds to the sides that were taken.
        """
        rows = (seen.score < self.limit).nonzero()[:, 0]
        taken = torch.eye(3, dtype=torch.float64).repeat(len(clouds), 1, 1)
        if not len(rows):
            return seen, taken
        sides = torch.stack(sides_of_box(self.up))
        turns = sides.mT[:, None].expand(-1, len(rows), 3, 3).to(clouds.device)
        ahead = (torch.logit(seen.score[rows], eps=1e-6) + _LEAD).sigmoid()
        sure = torch.tensor([_UPRIGHT] * 2 + [_SURE] * 3).clamp(min=self.limit)
        least = torch.maximum(ahead, sure[:, None].to(ahead))
        seen, which = self._try(clouds, seen, rows, turns, least, any_turn=True)
        found = (which >= 0).cpu()
        taken[rows.cpu()[found]] = sides[which.cpu()[found]]
        return seen, taken

    def common_axis(self, clouds: Tensor) -> tuple[int, Tensor]:
        """The axis that clouds of one folder stand along: the model's, unless they make far more sense along another.

        Args:
            clouds: (B, N, 3), all with the same vertical axis.

        Returns:
            The axis, 0 to 2, and the mean score along each axis (3,).
        """
        sides = torch.stack([torch.eye(3, dtype=torch.float64), *sides_of_box(self.up)[:2]])
        turns = sides.mT[:, None].expand(-1, len(clouds), 3, 3).to(clouds.device)
        told = self.look(clouds.repeat(3, 1, 1), turns.flatten(0, 1), quick=True).score.view(3, -1).mean(1)
        told = told.nan_to_num()
        axes = sides[:, self.up].argmax(1)
        best = int(told.argmax())
        right = told[best] >= _COMMON and told[best] >= told[0] + _MORE
        mean = torch.empty(3).index_put((axes,), told.cpu())
        return int(axes[best]) if right else self.up, mean

    def _try(
        self, clouds: Tensor, seen: Seen, rows: Tensor, turns: Tensor, least: Tensor, *, any_turn: bool
    ) -> tuple[Seen, Tensor]:
        """Look at some clouds in other frames: quickly in each, then well in the best.

        Args:
            clouds: (B, N, 3).
            seen: what was found of them.
            rows: (n,) which clouds.
            turns: (T, n, 3, 3) rotations of the frames.
            least: (n,) or (T, n) scores to be surpassed.
            any_turn: as of `locate`.

        Returns:
            What was found, with what is better; and in which frame that was, -1 in none.
        """
        scores = [
            self.look(
                clouds[some].repeat(len(turns), 1, 1), turn.flatten(0, 1), any_turn=any_turn, quick=True
            ).score.view(len(turns), -1)
            for some, turn in zip(rows.split(_AT_ONCE), turns.split(_AT_ONCE, dim=1), strict=True)
        ]
        told = torch.cat(scores, 1)
        least = least.expand_as(told)
        best, which = told.max(0)
        which = torch.where(best > least.gather(0, which[None])[0], which, -1)
        some = (which >= 0).nonzero()[:, 0]
        if len(some):
            again = self.look(clouds[rows[some]], turns[which[some], some], any_turn=any_turn)
            better = again.score > least[which[some], some]
            which[some[~better]] = -1
            seen = _replaced(seen, again, rows[some[better]], better)
        return seen, which


def on_side(clouds: Tensor, side: Tensor) -> Tensor:
    """Clouds (B, N, 3) rotated by (B, 3, 3) in double precision; exact, as these only exchange axes."""
    return clouds.double() @ side.mT.to(clouds.device)


def sides_of_box(up: int) -> list[Tensor]:
    """The rotations (3, 3), float64, that make each of the five other sides of a box the one that it stands on."""
    e = torch.eye(3, dtype=torch.float64)
    a, b, c = e[(up + 1) % 3], e[(up + 2) % 3], e[up]
    made = []
    for rows in (  # what becomes the axes after `up`, and `up`
        (b, c, a),
        (c, a, b),
        (-b, c, -a),
        (-c, a, -b),
        (a, -b, -c),
    ):
        R = torch.empty(3, 3, dtype=torch.float64)
        R[(up + 1) % 3], R[(up + 2) % 3], R[up] = rows
        made.append(R)
    return made


def _replaced(seen: Seen, again: Seen, rows: Tensor, better: Tensor) -> Seen:
    """The first with some rows of the second."""

    def put(x: Tensor, y: Tensor) -> Tensor:
        out = x.clone()
        out[rows] = y[better].to(x)
        return out

    old, new = seen.located, again.located
    located = Located(
        put(old.points, new.points),
        Similarity(*(put(x, y) for x, y in zip(old.motion, new.motion, strict=True))),
        *(put(x, y) for x, y in zip(old[2:], new[2:], strict=True)),
    )
    found = type(seen.found)(*(put(x, y) for x, y in zip(seen.found, again.found, strict=True)))
    return Seen(located, found, put(seen.score, again.score), put(seen.uncertainty, again.uncertainty))
