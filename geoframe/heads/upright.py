"""Which way is up in an image: it is looked at as it is and turned, and what was seen tells which look to believe.

A network that was trained on upright pictures is not at a loss before one that lies on its side: it sees a back where
the picture is bright above. It is only less sure, its outline is less firm, and what it says of the heights of the
surface fits the rows of the image less well. The three together tell the right look from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geoframe.heads.masks import foreground
from geoframe.layers.logistic import fit_logistic

TURNS = (0, 90, 180, 270)  # degrees counterclockwise
AS_IT_IS = 0.6  # share of images that are believed to be upright, before they were looked at
SURE = 0.85  # chance of being the right one that a look needs to be taken without a word
LEAST_AREA = 0.005  # of the picture: a smaller foreground is none
_SOME = 400  # pixels of a look that are taken
_FEWEST = 30  # pictures from which anything is learned
_PENALTY = 1e-3
_USUAL = (3.0, 2.0, 0.0)  # weights where none were learned: heights do not count, as `rise` is not known
# clues of a look without foreground: log odds and logits are never lower, and heights tell nothing
_NOTHING = (-3.9, 0.0, 0.0)


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
        enough: no wrong look that was learned from had a score above it: such an image is not looked at turned.
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
        usual = Upright(len(self.rise)).state_dict()
        if not any(prefix + name in state_dict for name in usual):  # written before this was learned
            state_dict |= {prefix + name: value for name, value in usual.items()}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def clues(self, seen: Glimpse | None) -> Tensor:
        """(3,) of one look: log odds of the mean confidence, mean logit of the mask, how well heights fit rows."""
        if seen is None:
            return self.rise.new_tensor(_NOTHING)
        seen = Glimpse(*(x.to(self.rise) for x in seen))
        sure = seen.confidence.mean().clamp(0.02, 0.98).logit()
        height, up = _centred(seen.embedding @ self.rise), _centred(-seen.place[:, 0])
        fit = (height * up).mean() / (height.square().mean() * up.square().mean()).sqrt().clamp_min(1e-6)
        return torch.stack([sure, seen.mask.clamp(-8, 8).mean(), fit.clamp(-0.98, 0.98).atanh()])

    def score(self, seen: Glimpse | None) -> float:
        """How much speaks for a look; differences between looks are log odds."""
        return float(self.clues(seen) @ self.weight)

    def choose(self, scores: Sequence[float]) -> int | None:
        """Which of the looks at an image turned by `TURNS` is right.

        Args:
            scores: of the four.

        Returns:
            Degrees; None where that is not clear.
        """
        others = (1 - AS_IT_IS) / (len(TURNS) - 1)
        before = torch.tensor([AS_IT_IS, *[others] * (len(TURNS) - 1)]).log()
        chance, best = (torch.tensor(scores) + before).softmax(0).max(0)
        return TURNS[int(best)] if float(chance) >= SURE else None

    def fit(self, pictures: Sequence[Sequence[Glimpse | None]]) -> None:
        """Learn from different pictures that are upright, each looked at turned by `TURNS`; not from fewer than 30.

        Args:
            pictures: of each the four looks, None for one in which nothing was seen. Those in which nothing was seen
                upright are left out.
        """
        seen = [(first, others) for first, *others in pictures if first is not None]
        if len(seen) < _FEWEST:
            return
        places = [_centred(first.place) for first, _ in seen]
        up = torch.cat([-p[:, 0] / p.square().sum(1).mean().sqrt().clamp_min(1e-6) for p in places])
        x = torch.cat([_centred(first.embedding) for first, _ in seen])
        self.rise.copy_(torch.linalg.lstsq(x.double(), up.double()[:, None]).solution[:, 0])
        right = torch.stack([self.clues(first) for first, others in seen for _ in others])
        wrong = torch.stack([self.clues(other) for _, others in seen for other in others])
        apart = right - wrong  # which of two looks is right depends on their difference alone
        both = torch.cat([apart, -apart])
        first_is_right = torch.arange(len(both), device=both.device) < len(apart)
        self.weight.copy_(fit_logistic(both, first_is_right, penalty=_PENALTY).clamp_min(0))
        self.enough.copy_((wrong @ self.weight).max())


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
