"""What is kept of a net brings it back."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="nets are built with torch")

from tidemill.models.training.trained import cost_of, fill, in_order, operations, state_of


def net() -> Any:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())


def test_a_state_brings_back_the_same_answers_whatever_the_order_in_memory() -> None:
    first, x = net().eval(), torch.rand(2, 3, 5, 5)
    kept = state_of(in_order(first, torch.channels_last))
    again = fill(net(), kept)
    assert not again.training
    with torch.inference_mode():
        assert torch.allclose(first(x), again(x), atol=1e-6)
    assert set(kept) == set(first.state_dict())


def test_operations_are_counted_without_changing_the_net_and_without_memory() -> None:
    with torch.device("meta"):
        empty, x = net().train(), torch.zeros(1, 3, 5, 5)
    flops = operations(empty, x)
    assert flops == 2 * 9 * (4 * 3 * 3 * 3), "two for every weight at nine places"
    assert empty.training
    cost = cost_of(empty, flops, 1000)
    assert cost.params == 4 * 27 + 4 + 8
    assert cost.size_bytes == 4 * (4 * 27 + 4 + 16) + 8 + 1000
