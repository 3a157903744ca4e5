"""Nets that read compute the same in every precision, but for rounding."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the nets are torch's")

from tidemill.models.recognition.nets.svtr import Mixing  # noqa: E402


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
