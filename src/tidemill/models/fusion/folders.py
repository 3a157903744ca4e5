"""Which folders with weights hold an encoder that a column can be embedded by. Nothing here loads torch."""

from __future__ import annotations

from pathlib import Path

from tidemill.core.errors import DataError, NotFoundError
from tidemill.models.pretrained.folders import (
    describe,
    fetched,
    has_vocabulary,
    has_weights,
    is_described,
    is_hub_name,
    is_of_timm,
)
from tidemill.models.pretrained.sight import Sight
from tidemill.models.text.folders import WANTED as OF_TEXTS
from tidemill.models.text.folders import is_text_encoder
from tidemill.models.vision.weights import WANTED as OF_IMAGES
from tidemill.models.vision.weights import origin_of

PATCHES = "patches"
"""Name of the encoder of images that is there where no weights are: patches drawn from the images themselves."""
_PIXELS = "preprocessor_config.json"


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
    return (is_described(place) and has_weights(place) and not has_vocabulary(place)) or is_own_net(place)


def side_of_images(place: str) -> int | None:
    """Side of the images that a folder's backbone was made for, in pixels; None for what is no backbone.

    Examples
    --------
    >>> side_of_images("no such place") is None
    True
    """
    if not is_described(place) or not is_image_encoder(place):
        return None
    try:
        return Sight.of(describe(place)).whole
    except (DataError, ValueError, TypeError, AttributeError, LookupError):  # whoever opens it says what is wrong
        return None


def is_encoder(place: str) -> bool:
    """Say whether a folder holds an encoder of texts or of images, or a word may be a name of one on the hub."""
    return is_text_encoder(place) or is_image_encoder(place) or is_hub_name(place)


def find_folder(place: str) -> str:
    """Find the folder of an encoder that is named as on the Hugging Face hub; what is a place here stays as it is.

    What it reads is known from the folder: `is_text_encoder`, `is_image_encoder`.

    Raises
    ------
    NotFoundError
        Where it can't be fetched.
    """
    if not is_hub_name(place):
        return place
    wanted = tuple(dict.fromkeys((*OF_TEXTS, *OF_IMAGES)))
    return str(fetched(place, wanted, _is_whole))


def _is_whole(folder: Path) -> bool:
    """Whether a folder says what it reads, and holds all weights."""
    told = has_vocabulary(folder) or (folder / _PIXELS).is_file() or is_of_timm(folder)
    return is_described(folder) and has_weights(folder) and told
