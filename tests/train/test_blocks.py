"""Repeated blocks, and what recomputing them changes: nothing but memory."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import Cloud, NormNet, loss, net
from torch import nn

from tidemill.train.blocks import recomputing, repeated_blocks


def test_blocks_are_repeated_and_have_parts() -> None:
    assert list(repeated_blocks(net())) == ["blocks.0", "blocks.1"]
    assert repeated_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == {}


def test_of_stages_the_layers_count() -> None:
    def layer() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    stages = nn.ModuleDict({"stages": nn.ModuleList(nn.Sequential(layer(), layer()) for _ in range(2))})
    assert list(repeated_blocks(stages)) == ["stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1"]


def test_a_transformer_has_its_layers() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert list(repeated_blocks(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))) == [
        "layers.0", "layers.1", "layers.2",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [net, NormNet])
def test_recomputing_gives_the_same_gradients_and_statistics(make) -> None:
    torch.manual_seed(0)
    plain = make()
    twice = make()
    twice.load_state_dict(plain.state_dict())
    inputs, targets = Cloud(20).batch(torch.arange(20).numpy(), train=False, rng=None)
    loss(plain(**inputs), targets).mean().backward()
    with recomputing(twice, "blocks"):
        loss(twice(**inputs), targets).mean().backward()
    for (name, one), two in zip(plain.named_parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, msg=name)
    for (name, one), two in zip(plain.named_buffers(), twice.buffers(), strict=True):
        torch.testing.assert_close(two, one, msg=name)


def test_recomputing_leaves_no_trace() -> None:
    module = net()
    names = list(module.state_dict())
    with recomputing(module, "blocks"):
        assert list(module.state_dict()) == names
        assert "forward" in vars(module.blocks[0])
    assert "forward" not in vars(module.blocks[0])
