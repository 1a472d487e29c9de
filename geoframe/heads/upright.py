"""Which way is up in an image: it is looked at as it is and turned, and what was seen tells which look to believe.

A network that was trained on upright pictures is not at a loss before one that lies on its side: it sees a back where
the picture is bright above. It is only less sure, its outline is less firm, and what it says of the heights of the
surface fits the rows of the image less well. The three together tell the right look from the others; by the first
alone, a third of the images that stood on their heads were taken as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geoframe.heads.masks import foreground
from geoframe.layers.logistic import fit_logistic

TURNS = (0, 90, 180, 270)  # degrees counterclockwise
AS_IT_IS = 0.7  # how many images are believed to be upright, before they were looked at
SURE = 0.85  # that a look has to be the right one, to be taken without a word
_NEVER = 0.995  # of the looks at pictures turned the wrong way have a score below what is enough
_PENALTY = 1e-3
LEAST_AREA = 0.005  # of the picture: a smaller foreground is none
_SOME = 400  # pixels of a look
_USUAL = (3.0, 2.0, 0.0)  # weights of a network that none were fitted for


class Glimpse(NamedTuple):
    """Some of the foreground pixels of a look, in the frame in which they were looked at.

    Attributes:
        embedding: (N, D), N above 0.
        mask: (N,) logits.
        confidence: (N,) in [0, 1].
        place: (N, 2) row, column.
    """

    embedding: Tensor
    mask: Tensor
    confidence: Tensor
    place: Tensor


class Upright(nn.Module):
    """What speaks for a look at an image, learned from pictures that were turned on purpose.

    Args:
        dim: D, numbers of an embedding.

    Attributes:
        rise: (D,) how embeddings change from below to above: their inner product with it rises with height.
        weight: (3,) of the clues.
        enough: of the score, above which an image is upright and not looked at turned.
    """

    rise: Tensor
    weight: Tensor
    enough: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("rise", torch.zeros(dim))
        self.register_buffer("weight", torch.tensor(_USUAL))
        self.register_buffer("enough", torch.tensor(torch.inf))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, value in self.state_dict().items():  # models written before this was learned have none
            state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def clues(self, seen: Glimpse) -> Tensor:
        """(3,) of one look: log odds of the mean confidence, mean logit of the mask, how well heights fit rows."""
        sure = seen.confidence.mean().clamp(0.02, 0.98).logit()
        height, up = _centred(seen.embedding @ self.rise), _centred(-seen.place[:, 0])
        fit = (height * up).mean() / (height.square().mean() * up.square().mean()).sqrt().clamp_min(1e-6)
        return torch.stack([sure, seen.mask.clamp(-8, 8).mean(), fit.clamp(-0.98, 0.98).atanh()])

    def score(self, seen: Glimpse | None) -> float:
        """How much speaks for a look; differences between looks are log odds. None, nothing seen, has -inf."""
        return -torch.inf if seen is None else float(self.clues(seen) @ self.weight)

    def choose(self, scores: Sequence[float]) -> int | None:
        """Which of the looks at an image turned by `TURNS` is right.

        Args:
            scores: of the four.

        Returns:
            Degrees; None where that is not clear.
        """
        if max(scores) == -torch.inf:
            return 0
        others = (1 - AS_IT_IS) / (len(TURNS) - 1)
        before = torch.tensor([AS_IT_IS, *[others] * (len(TURNS) - 1)]).log()
        chance, best = (torch.tensor(scores) + before).softmax(0).max(0)
        return TURNS[int(best)] if float(chance) >= SURE else None

    def fit(self, pictures: Sequence[Sequence[Glimpse | None]]) -> None:
        """Learn from pictures that are upright, each looked at turned by `TURNS`.

        Args:
            pictures: of each the four looks, None for one in which nothing was seen.
        """
        seen = [(first, [g for g in others if g is not None]) for first, *others in pictures]
        pairs = [(first, others) for first, others in seen if first is not None and others]
        if not pairs:
            return
        places = [_centred(first.place) for first, _ in pairs]
        up = torch.cat([-p[:, 0] / p.square().sum(1).mean().sqrt().clamp_min(1e-6) for p in places])
        x = torch.cat([first.embedding for first, _ in pairs])
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        self.rise.copy_(torch.linalg.lstsq(x.double(), up.double()[:, None]).solution[:-1, 0])
        right = torch.stack([self.clues(first) for first, others in pairs for _ in others])
        wrong = torch.stack([self.clues(other) for _, others in pairs for other in others])
        apart = right - wrong  # which of two looks is right depends on their difference alone
        both = torch.cat([apart, -apart])
        first_is_right = torch.arange(len(both), device=both.device) < len(apart)
        self.weight.copy_(fit_logistic(both, first_is_right, penalty=_PENALTY))
        self.enough.copy_((wrong @ self.weight).quantile(_NEVER))


def some_pixels(embedding: Tensor, mask: Tensor, turned: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Some foreground pixels of a look, spread evenly; None where there are next to none.

    Args:
        embedding: (D, h, w), in the frame of the image.
        mask: (h, w) logits.
        turned: degrees by which the image was turned counterclockwise to be looked at.

    Returns:
        (N, D) embeddings, (N,) logits, (N, 2) row and column in the frame that was looked at.
    """
    embedding, mask = (x.rot90(turned // 90, (-2, -1)) for x in (embedding, mask))
    place = torch.nonzero(foreground(mask))
    if len(place) < LEAST_AREA * mask.numel():
        return None
    rows, cols = place[torch.linspace(0, len(place) - 1, min(len(place), _SOME)).long()].T
    return embedding[:, rows, cols].T, mask[rows, cols], torch.stack([rows, cols], -1).to(embedding)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(0)
