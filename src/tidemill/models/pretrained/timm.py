"""The library timm, which knows a thousand more backbones: whether it is here, and whether it can be loaded.

It needs torchvision, whose compiled part fits one build of torch alone, and raises whatever it meets beside another.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tidemill.core.errors import MissingExtraError

EXTRA = "deep,timm"
_NEEDED = ("timm", "torchvision")
_WHY = "to open backbones of timm"


def refuse_without_timm() -> None:
    """Refuse where timm is not installed; loads nothing, so one that is installed may still not load.

    Raises
    ------
    MissingExtraError
        With the extra that brings it.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError.of(package, _WHY, extra=EXTRA)


def load_timm() -> Any:
    """The library, loaded when a net is built: it is an extra, and slow to load.

    Raises
    ------
    MissingExtraError
        Where it is not installed, with the extra that brings it; where it can't be loaded, with the reason.
    """
    refuse_without_timm()
    found, why = _loaded()
    if found is None:
        raise MissingExtraError(
            f"The package 'timm' is installed, but can't be loaded: {why}.",
            hint="It needs the torchvision that was made for the torch that is here: install both from the same index, "
            "both for the CPU or both for CUDA.",
        )
    return found


@cache  # a second try of what failed half-way fails in another place, and says something else
def _loaded() -> tuple[Any, str]:
    try:
        return import_module("timm"), ""
    except Exception as error:  # noqa: BLE001  torchvision beside another torch raises what its compiled part meets
        line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        return None, line.rstrip(".")
