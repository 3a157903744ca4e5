"""Encoders of the transformers library with a linear head, and how they are opened. Loads torch.

Shapes: ``B`` texts, ``L`` tokens of the longest, ``H`` numbers of a token, ``F`` features of a text.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from tidemill.core.errors import DataError
from tidemill.models.pretrained import opening
from tidemill.models.pretrained.folders import TOKENIZER
from tidemill.models.pretrained.opening import TOKENS, open_folder

POOLS = ("mean", "first", "both")
"""How tokens become features: the mean of all, the first one, which speaks for the whole in some encoders, or both."""
_GROUP = 8
"""Texts that go through the encoder together while it is trained: of about one length, so that little is filled up."""
_MOST_POSITIONS = 512
_ATTENTION = "eager"
"""The form of attention that is exported with a mask for filling."""


class Body(nn.Module):
    """From tokens to features of a text.

    Parameters
    ----------
    model : nn.Module
        An encoder of transformers without a head.
    pool : str
        One of `POOLS`.
    padding : int
        Token that the encoder knows as filling.
    """

    def __init__(self, model: nn.Module, pool: str, padding: int) -> None:
        super().__init__()
        self.model = model
        self.pool = pool
        self.padding = padding

    @property
    def width(self) -> int:
        """Number of features."""
        hidden = int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]  # a config of transformers
        return 2 * hidden if self.pool == "both" else hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """From int64 (B, L), -1 behind the end of a text, to features (B, F)."""
        known = tokens >= 0
        ids = torch.where(known, tokens, torch.full_like(tokens, self.padding))
        hidden: Tensor = self.model(input_ids=ids, attention_mask=known.to(torch.int64)).last_hidden_state
        if self.pool == "first":
            return hidden[:, 0]
        share = known.to(hidden.dtype).unsqueeze(-1)
        mean = (hidden * share).sum(dim=1) / share.sum(dim=1)
        return mean if self.pool == "mean" else torch.cat([hidden[:, 0], mean], dim=1)


class TextNet(nn.Module):
    """An encoder with a linear head.

    Parameters
    ----------
    body : Body
        The encoder.
    outputs : int
        Number of classes, or 1.
    """

    def __init__(self, body: Body, outputs: int) -> None:
        super().__init__()
        self.body = body
        self.linear = nn.Linear(body.width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """From tokens to logits (B, K), or values (B, 1)."""
        features = self._in_groups(tokens) if self.training and len(tokens) > _GROUP else self.body(tokens)
        out: Tensor = self.linear(features)
        return out

    def _in_groups(self, tokens: Tensor) -> Tensor:
        """Texts of about one length together; what a text gives does not depend on those beside it."""
        lengths = (tokens >= 0).sum(dim=1)
        order = torch.argsort(lengths)
        parts = [self.body(tokens[some, : int(lengths[some].max())]) for some in torch.split(order, _GROUP)]
        return torch.cat(parts)[torch.argsort(order)]


class ValueNet(TextNet):
    """The same for one value, in units of the target.

    Parameters
    ----------
    body : Body
        The encoder.
    shift, scale : float
        Mean and spread of the target.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, body: Body, shift: float, scale: float) -> None:
        super().__init__(body, 1)
        self.register_buffer("shift", torch.tensor(float(shift)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, tokens: Tensor) -> Tensor:
        """From tokens to values (B, 1)."""
        return super().forward(tokens) * self.scale + self.shift


class LabelNet(TextNet):
    """The same where several labels may stand at a text: every output speaks for itself."""


class Answer(nn.Module):
    """A net with what makes its outputs answers: probabilities, which sum to 1 for classes, or the value as it is.

    Parameters
    ----------
    net : TextNet
        The net.
    """

    def __init__(self, net: TextNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Tensor:
        """From tokens to probabilities (B, K) or values (B, 1)."""
        out: Tensor = self.net(tokens)
        if isinstance(self.net, LabelNet):
            return torch.sigmoid(out)
        return out if isinstance(self.net, ValueNet) else torch.softmax(out, dim=1)


def load(folder: str, *, weights: bool = True) -> tuple[nn.Module, str]:
    """Open a folder as ``save_pretrained`` writes it; gives the encoder and its description as JSON.

    Parameters
    ----------
    folder : str
        With ``config.json`` and ``model.safetensors``.
    weights : bool
        Fill the encoder; else its numbers are drawn, which is enough to count what it costs.

    Raises
    ------
    DataError
        As `tidemill.models.pretrained.opening.open_folder`.
    """
    model, description = open_folder(folder, TOKENS, weights=weights, attn_implementation=_ATTENTION)
    return _without_pooler(model), description


def rebuild(description: str) -> nn.Module:
    """Make an encoder from its description; its numbers are drawn."""
    return _without_pooler(opening.rebuild(description, attn_implementation=_ATTENTION))


def _without_pooler(model: nn.Module) -> nn.Module:
    """The layer behind the first token, which some encoders have, is used by none of our heads."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # type: ignore[assignment]  # its forward asks whether there is one
    return model.eval()


def padding_of(description: str) -> int:
    """Token that an encoder knows as filling.

    Examples
    --------
    >>> padding_of('{"pad_token_id": 1}'), padding_of("{}")
    (1, 0)
    """
    return int(json.loads(description).get("pad_token_id") or 0)


def positions_of(description: str) -> int:
    """Most tokens of a text that an encoder takes.

    Examples
    --------
    >>> positions_of('{"max_position_embeddings": 128}')
    128
    """
    values = json.loads(description)
    most = int(values.get("max_position_embeddings") or _MOST_POSITIONS)
    if values.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
        most -= padding_of(description) + 1  # their places are counted from behind the filling
    return min(most, _MOST_POSITIONS)


def tokenizer_of(folder: str) -> str:
    """Text of the ``tokenizer.json`` of a folder; an older form of vocabulary is turned into one.

    Raises
    ------
    DataError
        Where there is none that can be read.
    """
    path = Path(folder) / TOKENIZER
    try:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
        else:
            slow = opening.load_transformers().AutoTokenizer.from_pretrained(
                folder, local_files_only=True, use_fast=True
            )
            text = str(slow.backend_tokenizer.to_str())
        from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]  # comes with the extra

        Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises plain exceptions
        line = next(iter(str(error).strip().splitlines()), repr(error))
        raise DataError(f"The tokenizer can't be read: {line[:200]}", where=str(path)) from error
    return text


def layers_of(net: nn.Module) -> tuple[str, int]:
    """Name of the list of an encoder's layers, and their number; the name is empty where there is none.

    Examples
    --------
    >>> layers_of(nn.ModuleDict({"layer": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])}))
    ('layer', 2)
    """
    lists = [(name, len(part)) for name, part in net.named_modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=lambda found: found[1], default=("", 0))
