"""Nets of known architectures: small ones to check with, usual ones to count. Loads torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tidemill.models.pretrained.architectures import IMAGE, Architecture
from tidemill.models.pretrained.folders import CONFIG, TIMM, TOKENIZER
from tidemill.models.pretrained.opening import load_transformers
from tidemill.models.pretrained.timm import load_timm
from tidemill.models.training.trained import operations

FILE = "model.safetensors"
_CLASSES = 2
COUNTED_TOKENS = 128
"""Of the text that operations are counted for."""


def write_tiny(architecture: Architecture, folder: Path, words: tuple[str, ...] = ()) -> Path:
    """Write a small net that nobody trained, as ``save_pretrained`` does, or as timm writes for its hub.

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
        if architecture.kind == TIMM:
            _write_timm(architecture, folder)
        else:
            models = load_transformers()
            config = models.AutoConfig.for_model(architecture.kind, **architecture.tiny)
            net = _drawn(models.AutoModel.from_config(config, dtype=torch.float32))
            if architecture.modality == IMAGE:
                for part in net.modules():
                    if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                        part.reset_parameters()  # MobileViT begins with factors of 0.02 in each
                _settle(net, [3, architecture.tiny["image_size"], architecture.tiny["image_size"]])
            net.save_pretrained(folder)
    if architecture.modality != IMAGE:
        (folder / TOKENIZER).write_text(_tokenizer(words, int(architecture.tiny["vocab_size"])), encoding="utf-8")
    return folder


def _drawn(net: Any) -> Any:
    """Draw numbers as wide as trained ones: behind many narrow layers all inputs look alike."""
    for parameter in net.parameters():
        if parameter.ndim > 1 and parameter.numel():
            nn.init.kaiming_normal_(parameter)
    return net


def _write_timm(architecture: Architecture, folder: Path) -> None:
    """With a head of some classes, as they are published."""
    from safetensors.torch import save_file

    described = {**architecture.tiny, "num_classes": _CLASSES}
    net = load_timm().create_model(described["architecture"], num_classes=_CLASSES, **described["model_args"])
    _settle(_drawn(net), described["pretrained_cfg"]["input_size"])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / FILE)
    (folder / CONFIG).write_text(json.dumps(described), encoding="utf-8")


def _settle(net: nn.Module, shape: list[int]) -> None:
    """Let batch normalisations see something: else signals grow or fade from layer to layer, and inputs look alike."""
    parts = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]
    usual = [part.momentum for part in parts]
    for part in parts:
        part.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(8, *shape))
    for part, momentum in zip(parts, usual, strict=True):
        part.momentum = momentum


def count_usual(architecture: Architecture) -> tuple[int, int]:
    """Parameters and operations of the usual net, for an image, or a text of `COUNTED_TOKENS`.

    Returns
    -------
    tuple of int
        Counted on a net without memory.

    Raises
    ------
    MissingExtraError
        For a net of timm, where that can't be loaded.
    """
    if architecture.kind == TIMM:
        load_timm()
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
