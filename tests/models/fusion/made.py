"""A small backbone, as a hub would give it."""

from __future__ import annotations

from pathlib import Path

import pytest


def vit(folder: Path) -> str:
    """Write a vision transformer of 16 numbers for images of 16 pixels in four patches; skips without transformers."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(folder)
    return str(folder)
