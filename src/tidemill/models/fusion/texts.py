"""From a folder with an encoder of texts to the embedding of a column. Loads torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tidemill.bundle.fusion.embedding import INPUT, Embedding
from tidemill.bundle.splice import bare
from tidemill.bundle.texts.readers import Reader
from tidemill.core.errors import TrialError
from tidemill.models.export import to_onnx
from tidemill.models.text.nets import Body, load, padding_of, positions_of, tokenizer_of
from tidemill.models.training.trained import operations

_NEAR = 1e-3
"""Features of a text by the graph and by torch differ by less than this share of the largest feature."""
_COUNTED = (2, 4, 6)
"""Tokens of the texts that operations are counted for: attention looks at pairs of tokens, so that three tell all."""
_TEXTS = ("a text", "another text, somewhat longer than the first")


class _Cells(torch.nn.Module):
    """The encoder with its one argument under the name of an embedding's input."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """From tokens (B, L) to features (B, F)."""
        out: torch.Tensor = self.body(cells)
        return out


def open_texts(column: str, folder: str, length: int, pool: str = "mean") -> Embedding:
    """Open an encoder as ``save_pretrained`` writes it, and export it.

    Parameters
    ----------
    column : str
        Whose texts it shall read.
    folder : str
        With ``config.json``, ``model.safetensors`` and a vocabulary.
    length : int
        Tokens after which a text is cut.
    pool : str
        How tokens become features, one of `tidemill.models.text.nets.POOLS`.

    Returns
    -------
    Embedding
        That keeps all features.

    Raises
    ------
    DataError
        Where the folder can't be opened.
    TrialError
        Where PyTorch can't export the encoder, or the graph answers otherwise than it.
    """
    model, description = load(folder)
    body = Body(model, pool, padding_of(description)).eval()
    reader = Reader.of_tokens(tokenizer_of(folder), min(length, positions_of(description)))
    example = torch.zeros(2, min(8, reader.length), dtype=torch.int64)
    example[1, -2:] = -1  # a shorter text
    written = to_onnx(_Cells(body).eval(), {INPUT: example}, {INPUT: (0, 1)}, noun="encoder", extra="text")
    made = Embedding(
        column, Path(folder).name, bare(written), body.width, reader=reader,
        params=sum(each.numel() for each in body.parameters()), work=_work(body), tokens=reader.length,
    )  # fmt: skip
    _check(made, body)
    return made


def _work(body: Body) -> tuple[float, ...]:
    """Operations for a text, as coefficients of a polynomial in its tokens."""
    counted = [operations(body, torch.ones(1, length, dtype=torch.int64)) for length in _COUNTED]
    return tuple(np.polynomial.polynomial.polyfit(_COUNTED, counted, 2).tolist())


def _check(embedding: Embedding, body: Body) -> None:
    """Hold the graph against torch."""
    feed = embedding.feed(np.array(_TEXTS, dtype=object))
    with torch.inference_mode():
        wanted = body(torch.from_numpy(feed[INPUT])).numpy()
    got = embedding.bare.run(None, feed)[0]
    if not np.abs(got - wanted).max() <= _NEAR * max(1.0, float(np.abs(wanted).max())):
        raise TrialError(f"The exported encoder {embedding.encoder!r} gives other features than PyTorch does.")
