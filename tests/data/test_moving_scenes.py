"""Scenes of moving layers: the flow is the motion, hidden pixels are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geoframe.data.moving_scenes import Layer, moving_scene, random_motion, zoo_scene
from geoframe.flow import pixel_grid, warp_back
from geoframe.flow.descriptors import smooth

SIZE = (40, 56)
BENT = {"shift": 3.0, "turn": 5.0, "zoom": 0.05, "bend": 2.0}


def texture(seed: int, height: int = 40, width: int = 56) -> torch.Tensor:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return smooth(noise, 2.0)[0]


def test_a_motion_and_its_inverse_are_the_identity():
    grid = pixel_grid(*SIZE, like=torch.zeros(0, dtype=torch.float64))
    for seed in range(4):
        motion = random_motion(SIZE, **BENT, seed=seed)
        assert float((motion.inverse(motion(grid)) - grid).abs().max()) < 1e-4
        torch.testing.assert_close(motion(grid), random_motion(SIZE, **BENT, seed=seed)(grid), rtol=0, atol=0)


def test_image_1_at_the_end_of_the_flow_is_image_0():
    disc = (pixel_grid(*SIZE, like=torch.zeros(0)) - torch.tensor([25.0, 20.0])[:, None, None]).norm(
        dim=0
    ) < 11
    first, second = (random_motion(SIZE, **BENT, seed=s) for s in (3, 4))
    scene = moving_scene([Layer(texture(0), None, first), Layer(texture(1), disc.float(), second)], SIZE)
    back, inside = warp_back(scene.image1[None], scene.flow[None])
    seen = ~scene.occluded & inside[0]
    assert 0.5 < seen.float().mean() < 0.98
    assert float((back[0] - scene.image0).abs().mean(0)[seen].median()) < 0.01
    assert torch.equal(scene.layer == 1, disc)


def test_what_a_layer_covers_is_occluded():
    """A square moves right by 6 over a still background: the 6 columns before it are hidden, none behind it."""
    mask = torch.zeros(SIZE)
    mask[10:20, 10:20] = 1
    still = random_motion(SIZE, shift=0, turn=0, zoom=0, bend=0, seed=0)
    moved = replace(still, t=torch.tensor([6.0, 0.0]).double())
    layers = [Layer(texture(0), None, still), Layer(texture(1, 10, 10), None, moved, (10, 10))]
    scene = moving_scene(layers, SIZE)
    want = torch.zeros(SIZE, dtype=torch.bool)
    want[10:20, 20:26] = True
    assert torch.equal(scene.occluded, want)
    assert torch.equal(scene.flow[0], 6 * mask) and not scene.flow[1].any()


def test_a_scene_without_layers_is_told():
    with pytest.raises(ValueError, match="layers: expected at least a background, found none"):
        moving_scene([], SIZE)


def test_scenes_of_cut_outs_are_seeded_and_exact():
    pictures, masks = (
        torch.stack([texture(i, 32, 32) for i in range(3)]),
        torch.zeros(3, 32, 32, dtype=torch.bool),
    )
    masks[:, 4:28, 8:20] = True
    scene, again = (zoo_scene(pictures, masks, SIZE, seed=5) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(scene, again, strict=True))
    assert scene.layer.max() >= 1 and scene.image0.shape == (3, *SIZE)
    back, inside = warp_back(scene.image1[None], scene.flow[None])
    off = (back[0] - scene.image0).abs().mean(0)
    assert float(off[~scene.occluded & inside[0]].median()) < 0.03
    with pytest.raises(ValueError, match="masks: expected shape"):
        zoo_scene(pictures, masks[:2], SIZE)


def test_a_photograph_can_be_the_background():
    pictures, none = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool)
    photograph = torch.stack([torch.full((50, 70), value) for value in (0.2, 0.5, 0.7)])
    scene = zoo_scene(pictures, none, SIZE, backdrop=photograph, seed=2)
    for image in (scene.image0, scene.image1):
        torch.testing.assert_close(image, photograph[:, :1, :1].expand_as(image))
    with pytest.raises(ValueError, match=r"backdrop: expected shape \(3, h, w\)"):
        zoo_scene(pictures, none, SIZE, backdrop=photograph[0])
