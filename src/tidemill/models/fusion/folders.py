"""Which folders with weights hold an encoder that a column can be embedded by. Nothing here loads torch."""

from __future__ import annotations

from pathlib import Path

from tidemill.models.text.folders import CONFIG, is_text_encoder


def is_image_encoder(place: str) -> bool:
    """Say whether a folder holds a backbone for images: a description of the net, weights, and no vocabulary.

    Examples
    --------
    >>> is_image_encoder("no such place")
    False
    """
    folder = Path(place).expanduser()
    return (folder / CONFIG).is_file() and any(folder.glob("*.safetensors")) and not is_text_encoder(folder)


def is_encoder(place: str) -> bool:
    """Say whether a folder holds an encoder of texts or of images."""
    return is_text_encoder(place) or is_image_encoder(place)
