"""Nets of known architectures: small ones to check with, usual ones to count. Loads torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tidemill.models.pretrained.architectures import IMAGE, Architecture
from tidemill.models.pretrained.folders import TOKENIZER
from tidemill.models.pretrained.opening import load_transformers
from tidemill.models.training.trained import operations

COUNTED_TOKENS = 128
"""Of the text that operations are counted for."""


def write_tiny(architecture: Architecture, folder: Path, words: tuple[str, ...] = ()) -> Path:
    """Write a small net that nobody trained, as ``save_pretrained`` does.

    Parameters
    ----------
    architecture : Architecture
        What it is.
    folder : Path
        Made where it is not there.
    words : tuple of str
        That the tokenizer knows, where it reads texts.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        models = load_transformers()
        config = models.AutoConfig.for_model(architecture.kind, **architecture.tiny)
        net = models.AutoModel.from_config(config, dtype=torch.float32)
        for parameter in net.parameters():  # as wide as trained ones: behind many narrow layers all inputs look alike
            if parameter.ndim > 1 and parameter.numel():
                nn.init.kaiming_normal_(parameter)
        net.save_pretrained(folder)
    if architecture.modality != IMAGE:
        (folder / TOKENIZER).write_text(_tokenizer(words, int(architecture.tiny["vocab_size"])), encoding="utf-8")
    return folder


def count_usual(architecture: Architecture) -> tuple[int, int]:
    """Parameters and operations of the usual net, for an image, or a text of `COUNTED_TOKENS`.

    Returns
    -------
    tuple of int
        Counted on a net without memory.
    """
    models = load_transformers()
    config = models.AutoConfig.for_model(architecture.kind, **architecture.usual)
    with torch.device("meta"):
        net = models.AutoModel.from_config(config, dtype=torch.float32).eval()
        if architecture.modality == IMAGE:
            work = operations(_Named(net, "pixel_values"), torch.zeros(1, 3, architecture.side, architecture.side))
        else:  # embedded before, which costs nothing: some nets look at the tokens, of which there are none here
            tokens = torch.ones(1, COUNTED_TOKENS, dtype=torch.int64)
            work = operations(_Named(net, "inputs_embeds"), net.get_input_embeddings()(tokens))
    return sum(p.numel() for p in net.parameters()), work


class _Named(nn.Module):
    """A net that is called with its one argument by place."""

    def __init__(self, net: nn.Module, argument: str) -> None:
        super().__init__()
        self.net, self.argument = net, argument

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(**{self.argument: x}).last_hidden_state
        return out


def _tokenizer(words: tuple[str, ...], most: int) -> str:
    """A tokenizer of whole words, as JSON."""
    from tokenizers import (  # type: ignore[import-not-found,unused-ignore]  # comes with the extra
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words][:most]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(known)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(made.to_str())
