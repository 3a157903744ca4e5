"""How a backbone wants to see an image, as the folder with its weights says. Nothing here loads torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.models.pretrained.folders import TIMM

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and spread of the images that most published weights were trained on, in units of 1."""
USUAL_SIDE = 224
"""Side of the images of a backbone that doesn't say it."""
_PROCESSOR = "preprocessor_config.json"
_WAYS = ("bicubic", "bilinear", "nearest")
_BORDER = "border"
"""The way of timm's to crop that adds a border rather than takes one away."""


@dataclass(frozen=True)
class Sight:
    """Size, part and resizing of the images that a backbone was made for.

    Parameters
    ----------
    side : int
        Pixels of the squares that it takes.
    interpolation : str
        How others are resized to that: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``.
    crop : float
        Share of either side of an image that it looks at, around the middle.

    Examples
    --------
    >>> Sight(224, crop=0.875).whole
    256
    """

    side: int = USUAL_SIDE
    interpolation: str = "bilinear"
    crop: float = 1.0

    @property
    def whole(self) -> int:
        """Side of an image of which it looks at as many pixels as it takes."""
        return round(self.side / self.crop)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Sight:
        """Read it from the description of a net.

        Examples
        --------
        >>> Sight.of({"image_size": 32}).side, Sight.of({}).side
        (32, 224)
        >>> timm = {"model_type": "timm_wrapper", "pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 0.75}}
        >>> Sight.of(timm).whole
        128

        Raises
        ------
        ValueError, TypeError
            Where it says nonsense.
        """
        if described.get("model_type") == TIMM:
            return cls._of_timm(described.get("pretrained_cfg") or {})
        size = described.get("image_size")
        if isinstance(size, dict):
            size = size.get("height")
        return cls(int(min(size) if isinstance(size, list) else size or USUAL_SIDE))

    @classmethod
    def _of_timm(cls, told: Mapping[str, Any]) -> Sight:
        size = told.get("input_size") or [USUAL_SIDE]
        way = str(told.get("interpolation") or "")
        crop = 1.0 if told.get("crop_mode") == _BORDER else float(told.get("crop_pct") or 1.0)
        return cls(int(min(size[-2:])), way if way in _WAYS else "bilinear", min(1.0, crop))


def normalisation(folder: str, described: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of the pixels that a folder's weights expect, in units of 1.

    Parameters
    ----------
    folder : str
        With the weights.
    described : mapping
        The description of its net, which says it for nets of timm.
    """
    told = described.get("pretrained_cfg") if described.get("model_type") == TIMM else None
    try:
        if told is not None:
            return tuple(map(float, told["mean"])), tuple(map(float, told["std"]))
        found = json.loads((Path(folder) / _PROCESSOR).read_text(encoding="utf-8"))
        return tuple(map(float, found["image_mean"])), tuple(map(float, found["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):  # most weights expect what ImageNet looks like
        return IMAGENET
