"""Folders with trained encoders: what they are told by, and hub names made into folders. Nothing here loads torch."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tidemill.core.errors import DataError, NotFoundError
from tidemill.models.pretrained.folders import (
    CONFIG,
    TENSORS,
    VOCABULARIES,
    fetched,
    has_vocabulary,
    has_weights,
    is_described,
    is_hub_name,
)
from tidemill.models.vision.weights import read_metadata

POOL = "pool"
"""Under this name weights of an encoder that Tidemill trained say how tokens become features."""
WANTED = (
    CONFIG, "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", TENSORS,
)  # fmt: skip
"""Files that are fetched."""
_BLOCK = 1 << 22


def is_text_encoder(place: str | Path) -> bool:
    """Say whether a folder holds a trained encoder of texts: a description of the net, and a vocabulary.

    Examples
    --------
    >>> is_text_encoder("no such place")
    False
    """
    return is_described(place) and has_vocabulary(place)


def is_whole(place: str | Path) -> bool:
    """Say whether a folder holds all of an encoder, its weights included."""
    return is_text_encoder(place) and has_weights(place)


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
        if is_hub_name(place):
            return find_encoder(str(fetched(place, WANTED, is_whole)))
        raise NotFoundError(
            f"There are no weights at {place!r}.",
            hint="Give a folder with config.json, tokenizer.json and model.safetensors, or a name of the Hugging Face "
            "hub such as sentence-transformers/all-MiniLM-L6-v2.",
        )
    if not is_text_encoder(folder):
        raise DataError(
            "This is no folder with a trained encoder of texts: it lacks "
            + ("config.json." if not is_described(folder) else "a vocabulary (tokenizer.json)."),
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


def pool_of(folder: str) -> str:
    """How tokens become features by an encoder that Tidemill trained, which says so; else by their mean."""
    told = (read_metadata(path) for path in _weights(Path(folder)))
    return next((each[POOL] for each in told if POOL in each), "mean")


def content_key(folder: str) -> str:
    """Hash of an encoder: of its description, its vocabulary and its weights."""
    root = Path(folder)
    digest = sha256()
    for path in sorted({*_weights(root), *(root / n for n in (CONFIG, *VOCABULARIES) if (root / n).is_file())}):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def find_encoders(weights: tuple[str, ...]) -> tuple[str, ...]:
    """Find all encoders that are named, each once."""
    found = {Path(folder).resolve(): folder for folder in map(find_encoder, weights)}
    return tuple(found.values())
