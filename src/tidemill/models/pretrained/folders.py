"""What folders with encoders hold, and names of the Hugging Face hub made into folders. Nothing here loads torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
VOCABULARIES = (TOKENIZER, "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "vocab.json")
_INDEX = "*.safetensors.index.json"
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TENSORS = "*.safetensors*"
"""Weights, whole or in parts; no other form of them is ever fetched."""
TIMM = "timm_wrapper"
"""The ``model_type`` that transformers gives to nets of timm, whose own descriptions name none."""


def is_described(place: str | Path) -> bool:
    """Say whether a folder holds the description of a net of transformers."""
    return (Path(place).expanduser() / CONFIG).is_file()


def has_vocabulary(place: str | Path) -> bool:
    """Say whether a folder holds a vocabulary: its net reads texts."""
    return any((Path(place).expanduser() / name).is_file() for name in VOCABULARIES)


def has_weights(place: str | Path) -> bool:
    """Say whether a folder holds weights in the form of safetensors, and every part of those that come in parts."""
    folder = Path(place).expanduser()
    try:
        parts = {
            part
            for index in folder.glob(_INDEX)
            for part in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # whoever opens it says what is wrong
        parts = set()
    return any(folder.glob("*.safetensors")) and all((folder / str(part)).is_file() for part in parts)


def describe(folder: str | Path) -> dict[str, Any]:
    """Read the description of the net; one of timm says so in its ``model_type``.

    Raises
    ------
    DataError
        Where it can't be read.
    """
    path = Path(folder).expanduser() / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and "model_type" not in found and {"architecture", "pretrained_cfg"} <= set(found):
            found["model_type"] = TIMM
        if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
            raise ValueError("it names no model_type")
    except (OSError, ValueError) as error:
        raise DataError(f"The description of the encoder can't be read ({error}).", where=str(path)) from error
    return found


def is_of_timm(place: str | Path) -> bool:
    """Say whether a folder holds the description of a net of timm, as its hub has them.

    Examples
    --------
    >>> is_of_timm("no such place")
    False
    """
    try:
        return is_described(place) and describe(place)["model_type"] == TIMM
    except DataError:  # whoever opens it says what is wrong
        return False


def is_hub_name(place: str) -> bool:
    """Say whether a word is no place here, and may be a name of the Hugging Face hub.

    Examples
    --------
    >>> is_hub_name("facebook/dinov2-small"), is_hub_name("photos/"), is_hub_name("../dinov2")
    (True, False, False)
    """
    return _HUB.fullmatch(place) is not None and not Path(place).expanduser().exists()


def fetched(name: str, wanted: Sequence[str], whole: Callable[[Path], bool], noun: str = "encoder") -> Path:
    """Find the folder of a name of the hub: in its cache, or fetched.

    Parameters
    ----------
    name : str
        Such as ``"facebook/dinov2-small"``.
    wanted : sequence of str
        Patterns of the files.
    whole : callable
        Says whether a folder holds all that is needed; what the cache holds a part of is fetched.
    noun : str
        What it is, for messages.

    Raises
    ------
    NotFoundError
        Where it can't be fetched.
    MissingExtraError
        Without the package that fetches.
    """
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError.of("huggingface_hub", "to fetch encoders", extra="text")
    from huggingface_hub import snapshot_download  # type: ignore[import-not-found,unused-ignore]  # comes with the extra

    try:
        kept = Path(snapshot_download(name, allow_patterns=list(wanted), local_files_only=True))
        if whole(kept):
            return kept
    except (OSError, ValueError):  # not in the cache
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted)))
    except Exception as error:  # a network fails in more ways than can be listed
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotFoundError(
            f"The {noun} {name!r} is no folder here, and could not be fetched from the Hugging Face hub: {line[:200]}",
            hint="Give a folder as `save_pretrained` of transformers writes it.",
        ) from error
