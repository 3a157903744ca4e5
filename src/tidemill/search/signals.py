"""What a search hears from its trainings while they run, and what it tells them: the search's side of the files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.models.training.signals import END, SAID, SUFFIX, Signals

_READ_BYTES = 2**18
"""So much of a trial's points is read at a time."""


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation of a training that is under way.

    Parameters
    ----------
    step : int
        Optimiser steps until here.
    epoch : float
        Passes over the rows until here, of this part of the training.
    value : float
        Validation loss or error; less is better.
    """

    step: int
    epoch: float
    value: float


@dataclass
class Switchboard:
    """A folder by which a search and its trainings speak to each other; emptied when it is opened.

    Parameters
    ----------
    folder : Path
        On a disk that the trainings see; made where it is not there.
    """

    folder: Path
    _read: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.iterdir():
            left.unlink()

    def line(self, trial: int) -> Signals:
        """Give the side of one trial's training."""
        return Signals(str(self.folder), trial)

    def ask_to_end(self) -> None:
        """Ask all trainings to end at their next step."""
        (self.folder / END).touch()

    def news(self, trial: int) -> list[CurvePoint]:
        """Points of a trial since the last call; what is no point is left out, and a line that has no end yet waits."""
        return [point for line in self._lines(f"{trial}{SUFFIX}") if (point := _point(line)) is not None]

    def said(self, trial: int) -> list[str]:
        """Sentences of a trial since the last call."""
        return [sentence for line in self._lines(f"{trial}{SAID}") if (sentence := _sentence(line)) is not None]

    def _lines(self, name: str) -> list[bytes]:
        begin = self._read.get(name, 0)
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(begin)
                data = file.read(_READ_BYTES)
        except OSError:
            return []
        whole = data.rpartition(b"\n")[0]
        taken = len(whole) + 1 if b"\n" in data else 0
        if not taken and len(data) == _READ_BYTES:  # a line of that length is none of ours
            taken = len(data)
        self._read[name] = begin + taken
        return whole.split(b"\n")


def _sentence(line: bytes) -> str | None:
    """Read a line as `Signals.say` writes it.

    Examples
    --------
    >>> _sentence(b'"It goes on."'), _sentence(b'"It goes'), _sentence(b"3")
    ('It goes on.', None, None)
    """
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _point(line: bytes) -> CurvePoint | None:
    """Read a line as `Signals.tell` writes it.

    Examples
    --------
    >>> _point(b"[120, 1.5, 0.25]")
    CurvePoint(step=120, epoch=1.5, value=0.25)
    >>> _point(b"[120, 1.5"), _point(b"{}"), _point(b'["a", 1, 2]'), _point(b"[1, 2, NaN]")
    (None, None, None, None)
    """
    try:
        found: Any = json.loads(line)
        step, epoch, value = found
        point = CurvePoint(int(step), float(epoch), float(value))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return point if math.isfinite(point.epoch) and math.isfinite(point.value) else None
