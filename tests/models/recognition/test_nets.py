"""Nets that read compute the same in every precision, but for rounding."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the nets are torch's")

from tidemill.models.recognition.nets.parts import dropped
from tidemill.models.recognition.nets.svtr import Mixing


def test_attention_is_the_same_in_few_digits_where_it_takes_another_way() -> None:
    torch.manual_seed(0)
    block = Mixing(96).eval()
    columns = torch.randn(2, 36, 96)
    with torch.no_grad():
        plain = block(columns)
        with torch.autocast("cpu", torch.bfloat16):
            short = block(columns)
    assert short.shape == plain.shape
    assert (short - plain).abs().max() < 0.05 * plain.abs().max()  # bf16 has 8 binary digits
    assert (short - plain).abs().max() > 0, "it was computed in fp32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tenth_is_dropped_and_the_mean_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(7, 33, 96, dtype=dtype, requires_grad=True)
    out = dropped(x, training=True)
    assert out.dtype is dtype
    gone = out == 0
    assert 0.09 < float(gone.float().mean()) < 0.115
    assert float(out.detach().float().mean()) == pytest.approx(1.0, abs=0.01)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, gone)
    assert 0.05 < float((gone[0] & gone[1]).float().mean() / gone[0].float().mean()) < 0.15, "draws are apart"
    torch.manual_seed(0)
    assert torch.equal(dropped(x, training=True), out)
    assert torch.equal(dropped(x, training=False), x)
