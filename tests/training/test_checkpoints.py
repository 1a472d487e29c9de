"""Models on disk: the same after a way there and back, and files that are missing, broken or of something else."""

from __future__ import annotations

import json

import pytest
import torch

from geoframe.training import load_model, save_model

KIND = "test nets"


class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width)
        self.tied = self.first.weight  # one parameter, two names


def build(about):
    return Net(about["width"])


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    net = Net(4)
    net.norm(net.first(torch.rand(5, 3)))  # which gives the norm its statistics
    save_model(tmp_path / "m", net, {"width": 4, "data": "a digest", "epochs": 3}, kind=KIND)
    return tmp_path / "m", net


def test_a_stored_model_is_the_same(folder):
    path, net = folder
    again, about = load_model(path, build, kind=KIND)
    assert about == {"width": 4, "data": "a digest", "epochs": 3} and not again.training
    for (name, a), b in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert sorted(f.name for f in path.iterdir()) == ["model.json", "model.safetensors"]


def test_nothing_is_written_where_something_cannot_be(folder):
    path, net = folder
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(path, net, {"width": torch.ones(2)}, kind=KIND)
    assert before == {f.name: f.read_bytes() for f in path.iterdir()}


def test_what_is_no_model_is_told(folder, tmp_path):
    path, _ = folder
    with pytest.raises(
        ValueError, match=r"expected model.json and model.safetensors .* found no model.json and no m"
    ):
        load_model(tmp_path, build, kind=KIND)
    with pytest.raises(
        ValueError, match=r"expected a model of other things, found something else \(kind 'test nets'"
    ):
        load_model(path, build, kind="other things")
    about = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps(about | {"width": 5}))
    with pytest.raises(
        ValueError, match=r"expected a model of test nets, found something else \(Error.* in loading"
    ):
        load_model(path, build, kind=KIND)
    (path / "model.json").write_text(json.dumps({k: v for k, v in about.items() if k != "width"}))
    with pytest.raises(ValueError, match=r"found something else \('width'"):
        load_model(path, build, kind=KIND)
    (path / "model.json").write_text("[1")
    with pytest.raises(ValueError, match="expected a model of test nets, found something else"):
        load_model(path, build, kind=KIND)
    (path / "model.json").write_text(json.dumps(about))
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.safetensors is not the one that model.json tells of"):
        load_model(path, build, kind=KIND)
    (path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"found no model\.safetensors"):
        load_model(path, build, kind=KIND)
