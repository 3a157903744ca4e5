"""What a training says while it runs, and what it is told, by files in a folder that its search sees, too.

Nothing here loads torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END = "end"
"""Where a file of this name lies in the folder, all trainings are asked to end."""
SUFFIX = ".points"
"""Behind the number of a trial: the file to which its training adds a line ``[step, epoch, value]`` for each point."""
SAID = ".said"
"""Behind the number of a trial: the file to which its training adds a line for each sentence for people."""


@dataclass(frozen=True)
class Signals:
    """The training's side; `tidemill.search.signals.Switchboard` is the other.

    A file that can't be read or written says nothing and ends nothing: a training does without.

    Parameters
    ----------
    folder : str
        Where the files are.
    trial : int
        Number of the trial that trains.

    Examples
    --------
    >>> Signals("/nowhere", 3).asked_to_end()
    False
    >>> Signals("/nowhere", 3).tell(100, 1.5, 0.25)  # nobody listens
    """

    folder: str
    trial: int

    def asked_to_end(self) -> bool:
        """Whether the training should end at its next step, and hand over what it has."""
        return Path(self.folder, END).exists()

    def tell(self, step: int, epoch: float, value: float) -> None:
        """Add a point of the learning curve: steps and passes so far, and the validation loss or error."""
        if not math.isfinite(value):
            return
        self._add(SUFFIX, [step, round(epoch, 4), value])

    def say(self, sentence: str) -> None:
        """Add a sentence for people."""
        self._add(SAID, sentence)

    def _add(self, suffix: str, value: Any) -> None:
        try:
            with Path(self.folder, f"{self.trial}{suffix}").open("a", encoding="ascii") as file:
                file.write(f"{json.dumps(value)}\n")
        except OSError:
            return
