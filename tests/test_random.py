"""Seeds for code that draws from torch's own generator."""

import torch

from geoframe._random import seeded


def test_the_same_inside_and_untouched_outside():
    torch.default_generator.manual_seed(5)
    expected = torch.rand(4)
    torch.default_generator.manual_seed(5)
    draws = []
    for seed in (1, 1, 2):
        with seeded(seed):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.rand(4), expected)
