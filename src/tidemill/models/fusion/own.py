"""From a net that Tidemill trained to a folder that holds it as an encoder of columns. Nothing here loads torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.core.errors import DataError
from tidemill.models.pretrained.folders import CONFIG, TOKENIZER
from tidemill.models.text.folders import POOL
from tidemill.models.vision.weights import FILE, write_safetensors, write_weights

NO_ENCODER = ("probe", "discriminant", "ngrams")
"""Families that look at drawn patches, through the net of another study, which is nearer at hand, or count words."""
_BODY = "body.model."


def write_encoder(state: Mapping[str, Any], folder: Path) -> None:
    """Write what a checkpoint keeps of a net, without its head, as `open_texts` or `open_images` takes it.

    Encoders of texts and backbones become what ``save_pretrained`` writes. The weights come last: a folder that holds
    them is whole.

    Parameters
    ----------
    state : mapping
        The checkpoint of one net for images or texts.
    folder : Path
        Made where it is not there.

    Raises
    ------
    DataError
        For a model without an encoder, or where the disk refuses.
    """
    family = str(state["family"])
    if family in NO_ENCODER:
        raise DataError(f"A model of the family {family!r} has no encoder that could read a column.")
    if "tokenizer" in state:
        _write(state, folder, {TOKENIZER: str(state["tokenizer"])}, {POOL: str(state["pool"])})
    elif "description" in state:
        scale = {f"image_{name}": [value / 255 for value in state[name]] for name in ("mean", "std")}
        _write(state, folder, {"preprocessor_config.json": json.dumps(scale)}, {})
    else:
        write_weights(state, folder)


def _write(state: Mapping[str, Any], folder: Path, files: Mapping[str, str], told: Mapping[str, str]) -> None:
    tensors = {n.removeprefix(_BODY): np.asarray(v) for n, v in state["state"].items() if n.startswith(_BODY)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {CONFIG: str(state["description"]), **files}.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"The folder can't be written ({error.strerror or error}).", where=str(folder)) from error
    write_safetensors(tensors, folder / FILE, {"format": "pt", **told})
