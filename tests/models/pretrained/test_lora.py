"""What is learned beside the attention of a net is taken into it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="a net is built")
pytest.importorskip("transformers", reason="encoders need the extra `text`")
pytest.importorskip("tokenizers", reason="so does reading tokens")

from tests.models.pretrained.made import timm_or_skip
from tests.models.text.made import CLASSES, encoder

from tidemill.models.pretrained.architectures import IMAGES, OF_TIMM, TEXTS, Architecture
from tidemill.models.pretrained.lora import Adapted, adapt, attention_of, merge
from tidemill.models.text._net import opened


def test_what_is_learned_beside_the_attention_is_taken_into_it(tmp_path: Path) -> None:
    net = opened(str(encoder(tmp_path / "bert")), "mean", 64, CLASSES, None)[0]
    tokens = torch.tensor([[2, 5, 6, 3, -1], [2, 7, 8, 9, 3]])
    names = set(net.state_dict())
    with torch.no_grad():
        before = net(tokens)
        assert adapt(net.body.model, 4) == 4, "queries and values of two layers"
        assert torch.equal(net(tokens), before), "it begins at nothing"
        for part in net.modules():
            if isinstance(part, Adapted):
                part.up.normal_()
        changed = net(tokens)
        merge(net.body.model)
        assert torch.allclose(net(tokens), changed, atol=1e-5)
    assert not torch.allclose(changed, before, atol=1e-3)
    assert set(net.state_dict()) == names


@pytest.mark.parametrize("one", [*IMAGES, *TEXTS], ids=lambda one: one.name)
def test_the_table_says_which_nets_have_such_an_attention(one: Architecture) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(one.kind, **one.tiny)
    with torch.device("meta"):
        net = transformers.AutoModel.from_config(config)
    assert bool(attention_of(net)) == one.low_rank or one.refused


@pytest.mark.parametrize("one", OF_TIMM, ids=lambda one: one.name)
def test_the_table_says_it_of_nets_of_timm(one: Architecture) -> None:
    net = timm_or_skip().create_model(one.tiny["architecture"], **one.tiny["model_args"])
    assert bool(attention_of(net)) == one.low_rank


def test_an_attention_that_reads_the_map_rather_than_calls_it_sees_the_change() -> None:
    base = torch.nn.Linear(6, 9)
    beside = Adapted(base, 2)
    with torch.no_grad():
        beside.up.normal_()
    x = torch.randn(4, 6)
    assert torch.allclose(torch.nn.functional.linear(x, beside.weight, beside.bias), beside(x), atol=1e-5)
    assert not torch.allclose(base(x), beside(x), atol=1e-3)
