"""Small texts whose class can be told, and small encoders that nobody trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tidemill.core.task import Task, TaskKind
from tidemill.models.text._base import TextData, TextProfile

CLASSES = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
TWO = Task(TaskKind.BINARY, "y", ("bad", "good"))
VALUES = Task(TaskKind.REGRESSION, "y", label_type="number")
_TELLING = (("red", "fox", "den"), ("blue", "whale", "sea"), ("green", "frog", "pond"))
_FILLING = ("the", "a", "of", "sees", "near", "small", "old", "and", "then", "why")


def texts(count: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Words of no account around some that tell the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    out = np.empty(count, dtype=object)
    for i, label in enumerate(y):
        words = [*rng.choice(_FILLING, rng.integers(2, 14)), *rng.choice(_TELLING[label], 2)]
        out[i] = " ".join(rng.permutation(words).tolist())
    return out, y.astype(np.int64)


def data(count: int = 120, weights: tuple[str, ...] = ()) -> tuple[TextProfile, TextData, TextData]:
    """Profile, training texts, and others."""
    x, y = texts(count)
    cut = count * 3 // 4
    return (
        TextProfile.of(x, weights=weights),
        TextData(x, y, np.arange(cut)),
        TextData(x, y, np.arange(cut, count)),
    )


def tokenizer_json() -> str:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(w for group in _TELLING for w in group), *_FILLING]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(made.to_str())


def encoder(folder: Path, kind: str = "bert", **more: Any) -> Path:
    """Write an encoder of two small layers as ``save_pretrained`` does."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "max_position_embeddings": 64, "pad_token_id": 0}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, **{**sizes, **more})
    else:
        config = transformers.AutoConfig.for_model(
            kind, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **{**sizes, **more}
        )
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    return folder
