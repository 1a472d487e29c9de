"""Masks and the picture: outlines follow its edges, what is coloured alike belongs together, holes and specks go."""

from __future__ import annotations

import torch

from geoframe.heads.masks import EDGE_FLATNESS, foreground, with_colors, with_edges


def test_holes_and_specks_are_no_foreground_of_their_own():
    logits = torch.full((40, 40), -1.0)
    logits[5:25, 5:25] = 1.0
    logits[10:12, 10:12] = -1.0  # a hole of 4 pixels
    logits[30:32, 30:32] = 1.0  # a speck
    want = torch.zeros(40, 40, dtype=torch.bool)
    want[5:25, 5:25] = True
    assert torch.equal(foreground(logits), want)
    logits[8:20, 8:20] = -1.0  # a large hole stays
    assert not bool(foreground(logits)[8:20, 8:20].any())
    assert not bool(foreground(torch.full((8, 8), -1.0)).any())


def test_what_is_coloured_as_the_object_becomes_the_object():
    image = torch.zeros(3, 40, 40)
    image[1] = 0.8  # grass
    image[:, 10:30, 10:30] = torch.tensor([0.5, 0.3, 0.1])[:, None, None]
    logits = torch.full((40, 40), -2.0)
    logits[10:24, 10:30] = 2.0  # the lower third was missed
    want = torch.zeros(40, 40, dtype=torch.bool)
    want[10:30, 10:30] = True
    assert torch.equal(with_colors(logits, image) > 0, want)
    grey = torch.full((3, 40, 40), 0.5)
    torch.testing.assert_close(with_colors(logits, grey), logits, atol=0.05, rtol=0)  # colours tell nothing


def test_the_outline_of_a_mask_follows_the_edge_of_the_picture():
    image = torch.full((3, 40, 60), 0.2)
    image[:, :, 30:] = torch.tensor([0.6, 0.5, 0.3])[:, None, None]
    logits = 4 * torch.tanh((torch.arange(60) - 31.5) / 1.5).expand(40, 60)  # two pixels beyond the edge
    want = (torch.arange(60) >= 30).expand(40, 60)
    assert not torch.equal(logits > 0, want)
    found = with_edges(logits, image, 20)
    assert torch.equal(found > 0, want)
    torch.testing.assert_close(with_edges(logits.flip(1), image.flip(2), 20), found.flip(1))
    finer = [torch.nn.functional.interpolate(x[None], scale_factor=10.0)[0] for x in (logits[None], image)]
    large = with_edges(finer[0][0], finer[1], 20)  # 600 pixels: found on a smaller picture
    assert (torch.nonzero(large > 0)[:, 1].min() - 300).abs() <= 3 and bool((large[:, 310:] > 0).all())


def test_each_of_several_masks_is_filtered_on_its_own():
    torch.manual_seed(0)
    for size in ((20, 24), (170, 12)):  # the second on smaller pictures
        images, logits = torch.rand(2, 2, 3, *size), torch.randn(2, 2, *size)
        found = with_edges(logits, images, 10)
        for i in range(2):
            torch.testing.assert_close(found[i, 1], with_edges(logits[i, 1], images[i, 1], 10))


def test_logits_are_locally_linear_in_the_colours():
    """Of every square a least squares fit with a penalty on its slope, and of these fits their mean: by loops."""
    torch.manual_seed(0)
    image, logits, r = torch.rand(3, 13, 14, dtype=torch.float64), torch.randn(13, 14, dtype=torch.float64), 2
    found = with_edges(logits, image, 14 * 3 // 4)  # squares of 1.4 pixels: as far as 2 pixels
    fits = torch.zeros(13, 14, 4, dtype=torch.float64)
    for i in range(r, 13 - r):
        for j in range(r, 14 - r):
            window = (slice(i - r, i + r + 1), slice(j - r, j + r + 1))
            x, y = image[(slice(None), *window)].reshape(3, -1), logits[window].reshape(-1)
            centred = x - x.mean(1, keepdim=True)
            covariance = centred @ centred.T / len(y) + EDGE_FLATNESS * torch.eye(3, dtype=torch.float64)
            fits[i, j, :3] = torch.linalg.solve(covariance, centred @ (y - y.mean()) / len(y))
            fits[i, j, 3] = y.mean() - fits[i, j, :3] @ x.mean(1)
    for i in range(2 * r, 13 - 2 * r):
        for j in range(2 * r, 14 - 2 * r):
            mean = fits[i - r : i + r + 1, j - r : j + r + 1].mean((0, 1))
            torch.testing.assert_close(found[i, j], mean[:3] @ image[:, i, j] + mean[3], atol=1e-3, rtol=1e-3)
