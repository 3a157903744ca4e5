"""What one training may spend. Nothing here loads torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.models.training.checkpoints import EVERY_S, NET, TrialCheckpoints
from tidemill.models.training.signals import Signals
from tidemill.train.types import Placement


@dataclass(frozen=True)
class Resources:
    """What each training of a search may use.

    Parameters
    ----------
    device : str
        As in `tidemill.train.types.Placement`.
    memory_bytes : int or None
        Memory that its process may hold; None takes what is free.
    placement : Placement or None
        Where it runs and how its batch is cut; None asks the planner (`tidemill.models.training.placing`).
    checkpoint_s : float
        Seconds from one checkpoint to the next, of trainings that come to their end at once.
    """

    device: str = "auto"
    memory_bytes: int | None = None
    placement: Placement | None = None
    checkpoint_s: float = EVERY_S


@dataclass
class TrainBudget:
    """What one training may spend.

    Parameters
    ----------
    deadline : float
        `time.monotonic` value at which the fit must have returned; ``inf`` for none. The length of the training is
        cut to what fits, measured on some steps, so that its schedule comes to an end.
    threads : int
        Threads it may use on the CPU.
    device, memory_bytes, placement
        As in `Resources`; the first training sets ``placement`` where it is None.
    """

    deadline: float = float("inf")
    threads: int = 1
    device: str = "auto"
    memory_bytes: int | None = None
    placement: Placement | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    """The family appends ``(step, validation loss)`` here as it trains."""
    epochs: float | None = None
    """Pause here, in passes over the rows from the beginning; None trains to the end."""
    of: float | None = None
    """Length of a training that pauses, in place of the config's: its learning rate spans it."""
    folder: str | None = None
    """Where a training that pauses leaves what it goes on from, and finds it again."""
    reached: float | None = None
    """Set by a training that was to come to its end and had no time for it: the passes after which its schedule, made
    shorter, was through."""
    placed: str | None = None
    """Set by a training: its placement, in a few words."""
    interrupted: float | None = None
    """Set by a training that was asked to end: the share of its schedule that it had behind it, 0 to 1."""
    signals: Signals | None = None
    """What the search says while it trains, and hears."""
    before: int = 0
    """Steps of the parts of the training that came before, where it has several; points are told with them."""
    diverged: str | None = None
    """Folder in which a batch is kept whose loss is no number; None keeps it beside what the training goes on from."""
    checkpoints: TrialCheckpoints | None = None
    """What a training that doesn't pause goes on from when its search was killed; None keeps nothing."""
    cache: str | None = None
    """Where features of backbones that stay as they are are kept; see `tidemill.models.vision.features`."""

    @property
    def diverged_folder(self) -> Path | None:
        """``diverged`` as the runtime takes it."""
        return None if self.diverged is None else Path(self.diverged)

    def has_begun(self, *parts: str) -> bool:
        """Whether the training, or one of these parts of it, goes on from a checkpoint.

        What is made before it, such as a first head, is then in the checkpoint.
        """
        if self.folder is not None:
            return any(Path(self.folder).glob("step-*"))
        return self.checkpoints is not None and self.checkpoints.holds(*parts)

    def decided(self, decide: Callable[[], dict[str, Any]], *parts: str) -> dict[str, Any]:
        """Decide how these parts are trained, or give what was decided before they were broken off."""
        if self.checkpoints is None:
            return decide()
        return self.checkpoints.decided(parts[-1], decide, *parts)

    def kept(self, part: str = NET, *, follows: bool = False) -> dict[str, Any]:
        """Where and how a part is kept, as words for `tidemill.train.runtime.train`; see `TrialCheckpoints.of_part`."""
        if self.folder is not None:  # of a rung, which has room for one training
            return {"folder": Path(self.folder)} if part == NET else {}
        if self.checkpoints is None:
            return {}
        return self.checkpoints.of_part(part, asked_to_end=self.asked_to_end(), follows=follows)

    @property
    def limited(self) -> bool:
        """Whether there is a deadline."""
        return not math.isinf(self.deadline)

    def asked_to_end(self) -> bool:
        """Whether the training should end at its next step, and hand over what it has."""
        return self.signals is not None and self.signals.asked_to_end()

    def left_s(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.deadline - time.monotonic())
