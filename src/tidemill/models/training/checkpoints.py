"""What a trial's training leaves on the disk while it is under way, so that it goes on after its search was killed.

Nothing here loads torch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from tidemill.core.errors import DataError, InputError, OptionError
from tidemill.train.saving import Saving
from tidemill.train.types import Event

EVERY_S = 60.0
"""A kill costs a training at most about so much; one that takes less leaves nothing."""
_SHARE = 0.01
"""No more than this share of a training goes into its checkpoints."""
_END_S = 15.0
"""The end of a part is kept, where another one follows and so much was trained since the last checkpoint."""
NET = "net"
"""Name of the part that all trainings have; some have others before it."""


class TrialCheckpoints:
    """The folder of one trial whose training comes to its end at once, rather than on rungs.

    Several trainings may follow one another in a trial, its parts, such as one on small images before that on large
    ones. Each has checkpoints of its own, and beside them stands what was decided before it began (how many epochs fit
    into the time, which precision is quicker), for that would be decided differently when it goes on.

    Parameters
    ----------
    folder : Path
        Of the trial; made with the first checkpoint. Who conducts the search removes it when the trial is over.
    say : callable
        Told, in a sentence, what people should know.
    every_s : float
        Seconds from one checkpoint to the next.
    clock : callable
        Gives seconds that only grow, the same as the training's.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        every_s: float = EVERY_S,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.before_s = 0.0
        """Seconds of the trainings that are gone on with, before they were broken off."""
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._since = clock()

    def holds(self, *parts: str) -> bool:
        """Whether one of these parts can go on; without names, any part."""
        pattern = "step-*"
        if not parts:
            return any(self.folder.glob(f"*/{pattern}"))
        return any(any((self.folder / part).glob(pattern)) for part in parts)

    def decided(self, name: str, decide: Callable[[], dict[str, Any]], *parts: str) -> dict[str, Any]:
        """Decide, or give what was decided before the checkpoints of these parts were written.

        Raises
        ------
        DataError
            Where that can't be read.
        """
        path = self.folder / f"{name}.json"
        if self.holds(*parts):
            return _read(path)
        values = decide()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values), encoding="utf-8")
        except OSError:  # then what is trained now can't be gone on with, and begins anew
            with suppress(OSError):
                path.unlink()
        return values

    def of_part(self, part: str, *, asked_to_end: bool, follows: bool) -> dict[str, Any]:
        """Where and how a part is kept, as words for `tidemill.train.runtime.train`.

        Parameters
        ----------
        part : str
            Its name.
        asked_to_end : bool
            Whether somebody wants the trial to end. A part that begins after that begins from one that was not brought
            to its end, and must not be gone on with.
        follows : bool
            Whether another part follows.
        """
        if asked_to_end and not self.holds(part):
            return {}
        saving = Saving(self._every_s, _SHARE, _END_S if follows else math.inf, required=False, since=self._since)
        return {"folder": self.folder / part, "saving": saving}

    def hear(self, event: Event) -> None:
        """Take in what happens in a training."""
        if event.kind == "checkpoint":
            self._since = self._clock()
            if "before_s" in event.detail:
                self.before_s += float(event.detail["before_s"])
                self._say(f"It goes on from step {event.step} of its training.")
        elif event.kind == "warning" and "unsaved" in event.detail:
            self._say(event.message)

    def refused(self, error: InputError) -> bool:
        """Whether an error means that a training can't go on from what lies here."""
        mine = isinstance(error, DataError | OptionError) and error.where is not None
        return mine and Path(str(error.where)).is_relative_to(self.folder)

    def begin_anew(self, error: InputError) -> None:
        """Remove all that lies here, and tell why."""
        rmtree(self.folder, ignore_errors=True)
        self.before_s = 0.0
        self._say(f"Its training begins anew: {error.message}")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("What was decided before the checkpoints can't be read.", where=str(path)) from error
    if not isinstance(found, Mapping):
        raise DataError("What was decided before the checkpoints is of another form.", where=str(path))
    return dict(found)
