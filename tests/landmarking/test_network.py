"""The network: probabilities that add up, mirror images, batches, weights that come back from their file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.landmarking.inputs import Inputs, network_inputs
from geoframe.landmarking.network import LandmarkNetwork
from geoframe.landmarking.predict import averaged, load_networks, save_networks
from geoframe.landmarking.sides import other

NAMES = ("nose", "left_eye", "right_eye", "left_knee", "right_knee")


@pytest.fixture(scope="module")
def network() -> LandmarkNetwork:
    torch.manual_seed(0)
    return LandmarkNetwork(len(NAMES), width=16, n_blocks=2).eval()


@pytest.fixture(scope="module")
def seen() -> Inputs:
    return network_inputs(Surface.of(zoo.animal("dog", 600, seed=3, pose=2).mesh))


def mirrored(x: Inputs) -> Inputs:
    """What the mirror image of a surface looks like."""
    return x._replace(odd=-x.odd, grad_y=-x.grad_y)


def test_density_and_absence_add_up_to_one(network, seen):
    out = network(seen)
    total = seen.mass @ out.log_density.exp() + out.log_absent.exp()
    torch.testing.assert_close(total, torch.ones(len(NAMES)), atol=1e-4, rtol=0)


def test_the_other_side_is_the_mirror_image(network, seen):
    for a, b in zip(network(seen, -1.0), network(mirrored(seen), 1.0), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert float((network(seen, 1.0).log_density - network(seen, -1.0).log_density).abs().max()) > 1e-3


def test_the_average_exchanges_left_and_right_on_a_mirror_image(network, seen):
    swap = [NAMES.index(other(n)) for n in NAMES]
    density, known = averaged([network], seen, NAMES)
    density_m, known_m = averaged([network], mirrored(seen), NAMES)
    torch.testing.assert_close(density_m, density[:, swap], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(known_m, known, atol=1e-5, rtol=1e-5)


def test_the_angle_about_the_normal_at_which_frames_lie_does_not_matter(network, seen):
    angle = torch.rand(len(seen.mass), 1, generator=torch.Generator().manual_seed(1)) * 2 * np.pi
    c, s = angle.cos(), angle.sin()
    turned = seen._replace(grad_x=c * seen.grad_x + s * seen.grad_y, grad_y=c * seen.grad_y - s * seen.grad_x)
    torch.testing.assert_close(network(turned).log_density, network(seen).log_density, atol=2e-4, rtol=1e-4)


def test_a_batch_gives_each_surface_its_own_result(network, seen):
    both = Inputs(*(torch.stack([a, b]) for a, b in zip(seen, mirrored(seen), strict=True)))
    out = network(both, torch.tensor([1.0, -1.0])[:, None, None])
    for i, alone in enumerate((network(seen), network(mirrored(seen), -1.0))):
        for a, b in zip(out, alone, strict=True):
            torch.testing.assert_close(a[i], b, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter(network, seen):
    out = network(seen)
    (out.log_density.square().mean() + out.log_absent.mean() + out.known).backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()) and bool(p.grad.any()), name


def test_networks_come_back_from_their_file_in_half_precision(network, seen, tmp_path):
    said = {"slope": 1.5, "shift": 0.1, "known_slope": 2.0, "known_shift": -0.3}
    save_networks(tmp_path / "w.safetensors", [network, network], NAMES, said)
    again = load_networks(tmp_path / "w.safetensors")
    assert again.names == NAMES and len(again.models) == 2
    assert {k: getattr(again, k) for k in said} == said
    torch.testing.assert_close(
        again.models[1](seen).log_density, network(seen).log_density, atol=0.05, rtol=0.02
    )


def test_names_and_their_mirror_images():
    assert other("left_eye") == "right_eye" and other("nose") == "nose"
    for name in zoo.landmark_names():
        assert other(other(name)) == name and other(name) in zoo.landmark_names()
