"""Folders with trained encoders: what they are told by, and hub names made into folders. Nothing here loads torch."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from tidemill.core.errors import DataError, NotFoundError
from tidemill.models.text.extra import need_text
from tidemill.models.vision.weights import read_metadata

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
POOL = "pool"
"""Under this name weights of an encoder that Tidemill trained say how tokens become features."""
_VOCABULARIES = (TOKENIZER, "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "vocab.json")
_HUB = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
_WANTED = (CONFIG, "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "spiece.model", "*.safetensors*",
           "preprocessor_config.json")  # fmt: skip
_BLOCK = 1 << 22


def is_text_encoder(place: str | Path) -> bool:
    """Say whether a folder holds a trained encoder of texts: a description of the net, and a vocabulary.

    Examples
    --------
    >>> is_text_encoder("no such place")
    False
    """
    folder = Path(place).expanduser()
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in _VOCABULARIES)


def looks_like_hub(place: str) -> bool:
    """Say whether a word that is no folder here looks like a name of the Hugging Face hub.

    Examples
    --------
    >>> looks_like_hub("sentence-transformers/all-MiniLM-L6-v2"), looks_like_hub("minilm")
    (True, False)
    """
    return "/" in place and _HUB.fullmatch(place) is not None and not Path(place).expanduser().exists()


def find_encoder(place: str) -> str:
    """Find the folder of an encoder; what is no folder but looks like a name of the Hugging Face hub is fetched.

    The cache of the hub is looked at first, so that nothing is fetched twice.

    Parameters
    ----------
    place : str
        A folder as ``save_pretrained`` writes it, or a name such as ``"sentence-transformers/all-MiniLM-L6-v2"``.

    Returns
    -------
    str
        The folder.

    Raises
    ------
    NotFoundError
        Where there is nothing; it says what to do.
    DataError
        Where the folder lacks something.
    """
    folder = Path(place).expanduser()
    if not folder.exists():
        if looks_like_hub(place):
            return find_encoder(fetched(place))
        raise NotFoundError(
            f"There are no weights at {place!r}.",
            hint="Give a folder with config.json, tokenizer.json and model.safetensors, or a name of the Hugging Face "
            "hub such as sentence-transformers/all-MiniLM-L6-v2.",
        )
    if not is_text_encoder(folder):
        raise DataError(
            "This is no folder with a trained encoder of texts: it lacks "
            + ("config.json." if not (folder / CONFIG).is_file() else "a vocabulary (tokenizer.json)."),
            where=str(folder),
            hint="Give a folder as `save_pretrained` writes it, with the tokenizer.",
        )
    if not _weights(folder):
        raise DataError(
            "The folder holds no weights in the form of safetensors; other forms can run code when they are opened.",
            where=str(folder),
            hint="Convert them: AutoModel.from_pretrained(FOLDER).save_pretrained(OTHER).",
        )
    return str(folder)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def fetched(name: str) -> str:
    """Folder of what a name of the Hugging Face hub stands for; the cache of the hub is looked at first.

    Raises
    ------
    NotFoundError
        Where it is not there, or can't be fetched.
    MissingExtraError
        Without what fetches.
    """
    need_text("to fetch encoders")
    from huggingface_hub import snapshot_download  # type: ignore[import-not-found,unused-ignore]  # comes with the extra

    try:
        try:
            found = snapshot_download(name, allow_patterns=list(_WANTED), local_files_only=True)
        except (OSError, ValueError):  # not in the cache
            found = snapshot_download(name, allow_patterns=list(_WANTED))
    except Exception as error:  # a network fails in more ways than can be listed
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotFoundError(
            f"The encoder {name!r} is no folder here, and could not be fetched from the Hugging Face hub: {line[:200]}",
            hint="Give a folder with config.json, tokenizer.json and model.safetensors.",
        ) from error
    return str(found)


def describe(folder: str) -> dict[str, Any]:
    """Read the description of the net.

    Raises
    ------
    DataError
        Where it can't be read.
    """
    path = Path(folder) / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
            raise ValueError("it names no model_type")
    except (OSError, ValueError) as error:
        raise DataError(f"The description of the encoder can't be read ({error}).", where=str(path)) from error
    return found


def pool_of(folder: str) -> str:
    """How tokens become features by an encoder that Tidemill trained, which says so; else by their mean."""
    told = (read_metadata(path) for path in _weights(Path(folder)))
    return next((each[POOL] for each in told if POOL in each), "mean")


def content_key(folder: str) -> str:
    """Hash of an encoder: of its description, its vocabulary and its weights."""
    root = Path(folder)
    digest = sha256()
    for path in sorted({*_weights(root), *(root / n for n in (CONFIG, *_VOCABULARIES) if (root / n).is_file())}):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def find_encoders(weights: tuple[str, ...]) -> tuple[str, ...]:
    """Find all encoders that are named, each once."""
    found = {Path(folder).resolve(): folder for folder in map(find_encoder, weights)}
    return tuple(found.values())
