"""Which folders with weights hold an encoder that a column can be embedded by. Nothing here loads torch."""

from __future__ import annotations

import json
from pathlib import Path

from tidemill.core.errors import DataError, NotFoundError
from tidemill.models.text.folders import CONFIG, is_text_encoder
from tidemill.models.vision.weights import origin_of

USUAL_SIDE = 224
"""Side of the images of a backbone that doesn't say it."""


def is_own_net(place: str) -> bool:
    """Say whether weights are those of a net for images that Tidemill built and trained.

    Examples
    --------
    >>> is_own_net("no such place")
    False
    """
    try:
        origin = origin_of(place)
    except (NotFoundError, DataError):
        return False
    return origin is not None and not origin.alphabet


def is_image_encoder(place: str) -> bool:
    """Say whether a folder holds an encoder of images.

    That is a backbone (a description of the net, weights, and no vocabulary), or a net that Tidemill trained.

    Examples
    --------
    >>> is_image_encoder("no such place")
    False
    """
    folder = Path(place).expanduser()
    backbone = (folder / CONFIG).is_file() and any(folder.glob("*.safetensors"))
    return (backbone and not is_text_encoder(folder)) or is_own_net(place)


def side_of_images(place: str) -> int | None:
    """Side of the images that a folder's backbone was made for, in pixels; None for what is no backbone.

    Examples
    --------
    >>> side_of_images("no such place") is None
    True
    """
    path = Path(place).expanduser() / CONFIG
    if not path.is_file() or not is_image_encoder(place):
        return None
    try:
        size = json.loads(path.read_text(encoding="utf-8")).get("image_size") or USUAL_SIDE
        return int(min(size) if isinstance(size, list) else size)
    except (OSError, ValueError, TypeError, AttributeError):  # whoever opens it says what is wrong
        return None


def is_encoder(place: str) -> bool:
    """Say whether a folder holds an encoder of texts or of images."""
    return is_text_encoder(place) or is_image_encoder(place)
