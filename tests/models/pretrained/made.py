"""Folders as timm writes them for its hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidemill.core.errors import MissingExtraError
from tidemill.models.pretrained.timm import load_timm

SIDE = 32
TINY_VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def timm_or_skip() -> Any:
    """The library; skips with the reason where it is not here, or can't be loaded."""
    try:
        return load_timm()
    except MissingExtraError as error:
        pytest.skip(f"what timm's nets give is held against timm itself. {error}")


def saved(folder: Path, architecture: str, classes: int = 5, data: dict[str, Any] | None = None, **args: Any) -> Any:
    """Write a net by timm's own hands; gives it."""
    timm = timm_or_skip()
    import torch
    from timm.models._hub import save_for_hf

    torch.manual_seed(0)
    net = timm.create_model(architecture, num_classes=classes, **args).eval()
    save_for_hf(net, folder, safe_serialization=True, data_config=data)
    return net


def described(folder: Path, **more: Any) -> str:
    """A folder that says that its net is one of timm, with weights that nobody opens."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "architecture": "resnet18", "num_classes": 10,
        "pretrained_cfg": {
            "input_size": [3, 96, 96], "crop_pct": 0.75, "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.4], **more,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"0" * 16)
    return str(folder)
