"""Whether families still work: each is built, trained, exported, and its graph asked the same as it.

A family that begins from weights of others is tried with small nets of every architecture that it is known to work
with, which are drawn and written as those others write theirs; one that begins from a study's with a net that is
trained here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tidemill.core.errors import MissingExtraError, OptionError, TidemillError
from tidemill.models.pretrained.architectures import Architecture
from tidemill.sdk.pool import Entry, entries, find

BARS = {"table": 1e-5, "image": 1e-4, "text": 1e-4, "line": 1e-4}
"""How far graph and model may be apart, as for a bundle."""
_STUDYS = "discriminant"
"""The family that sees through a net of another."""


@dataclass(frozen=True)
class Check:
    """How the check of a family ended.

    Parameters
    ----------
    name, modality : str
        The family.
    ok : bool or None
        True where it was trained, exported, and its graph answers as it does; None where it was not tried.
    message : str
        What was wrong; or why it was not tried; else empty.
    max_abs_dp : float or None
        Largest difference between graph and model.
    seconds : float
        How long it took.
    architecture : str
        Of the net that it began from; empty where it begins from nothing, or from weights that were named.
    """

    name: str
    modality: str
    ok: bool | None
    message: str
    max_abs_dp: float | None
    seconds: float
    architecture: str = ""

    @property
    def title(self) -> str:
        """Family and architecture."""
        return f"{self.name}/{self.architecture}" if self.architecture else self.name

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**vars(self), "seconds": round(self.seconds, 2)}


def check_pool(names: tuple[str, ...] = (), weights: str | None = None) -> Iterator[Check]:
    """Build, train, export and compare every family, or those that are named, one after the other.

    Parameters
    ----------
    names : tuple of str
        Families, or architectures of one: ``"backbone/ViT"``.
    weights : str or None
        A folder or file with trained weights, or a name of the Hugging Face hub: the families that can begin from them
        are checked with them.

    Raises
    ------
    NotFoundError
        For a name that no family or architecture has, and weights that are not there.
    OptionError
        For weights that no family can begin from.
    """
    wanted = [find(name) for name in names] if names else [(entry, None) for entry in entries()]
    if weights is not None:
        yield from _with_weights([entry for entry, _ in wanted], weights)
        return
    for entry, one in wanted:
        if not entry.architectures or entry.absent is not None:
            yield _checked(entry, partial(_tried, entry))
            continue
        for each in entry.architectures if one is None else (one,):
            yield _of_architecture(entry, each)


def _of_architecture(entry: Entry, one: Architecture) -> Check:
    if one.refused:
        return Check(entry.name, entry.modality, None, f"not tried: {one.refused}", None, 0.0, one.name)

    def attempt() -> float | None:
        from tidemill.models.pretrained.nets import write_tiny
        from tidemill.sdk.pool_tries import TELLING

        with TemporaryDirectory() as folder:
            return _tried(entry, (str(write_tiny(one, Path(folder) / one.kind, TELLING)),))

    return _checked(entry, attempt, one.name)


def _with_weights(families: list[Entry], weights: str) -> Iterator[Check]:
    """Check the families that can begin from some weights."""
    from tidemill.models.fusion.folders import find_folder

    place, found = find_folder(weights), False
    _channels(place)  # says what is wrong where nothing is there
    for entry in families:
        if entry.modality == "table" or entry.absent is not None or not entry.weights:
            continue
        check = _checked(entry, partial(_tried, entry, (place,)))
        if check.message == _NO_WEIGHTS:
            continue
        found = True
        yield check
    if not found:
        raise OptionError(
            f"No family can begin from these weights: {weights}.",
            where="--weights",
            hint="See `tidemill pool list` for the weights that families take.",
        )


def _channels(place: str) -> int:
    """Of the images that weights are for."""
    from tidemill.models.vision.weights import origin_of

    origin = origin_of(place)
    return 3 if origin is None else origin.channels


def _tried(entry: Entry, weights: tuple[str, ...] = ()) -> float | None:
    """How far graph and model of a family are apart; None where it needs other weights."""
    from tidemill.sdk import pool_tries as tries

    if entry.modality == "table":
        return tries.try_table(entry.name)
    if entry.modality == "line":
        return tries.try_line(entry.name, weights)
    if entry.modality == "text":
        return tries.try_text(entry.name, weights)
    if entry.name == _STUDYS and not weights:
        with TemporaryDirectory() as folder:
            return tries.try_image(entry.name, (tries.write_study(Path(folder)),))
    return tries.try_image(entry.name, weights, _channels(weights[0]) if weights else 3)


_NO_WEIGHTS = "not tried: it needs weights, see --weights"


def _checked(entry: Entry, attempt: Callable[[], float | None], architecture: str = "") -> Check:
    def ended(ok: bool | None, message: str, apart: float | None = None) -> Check:
        return Check(entry.name, entry.modality, ok, message, apart, time.monotonic() - begun, architecture)

    begun = time.monotonic()
    if entry.absent is not None:
        return ended(None, f"not tried: {entry.absent}")
    try:
        apart = attempt()
    except MissingExtraError as error:  # of an architecture that comes with a package of its own
        return ended(None, f"not tried: {error}")
    except TidemillError as error:
        return ended(False, str(error))
    except ImportError as error:  # a library that is there, beside another that it can't be loaded with
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        return ended(False, f"a library can't be loaded: {root}")
    if apart is None:
        return ended(None, _NO_WEIGHTS)
    bar = BARS[entry.modality]
    close = apart <= bar
    return ended(close, "" if close else f"graph and model differ by {apart:.2g}, more than {bar:g}", apart)
