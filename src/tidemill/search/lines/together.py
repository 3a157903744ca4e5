"""What several nets of a study read together, and which of them should."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.lines.decode import read_groups
from tidemill.core.frames import Frames, read_together

CONSIDERED = 8
"""So many of the nets that read best alone may read together: others would rarely help, and take time to hear."""
MOST = 5
"""So many nets read together at most; each one more changes less, and takes as long."""

Read = Callable[[Mapping[int, float], Mapping[int, Frames]], NDArray[np.float32]]
"""From weights of trials, and what is kept of what they say, to scores."""


def read_by(weights: Mapping[int, float], frames: Mapping[int, Frames]) -> NDArray[np.float32]:
    """Read lines by several trials together: scores as `tidemill.core.transcripts` has them.

    Raises
    ------
    KeyError
        Where nothing is kept of a trial.
    """
    several = [frames[number] for number in weights]
    return read_groups(read_together(several, list(weights.values())), len(several[0]), several[0].alphabet)


def choose(
    frames: Mapping[int, Frames],
    best: int,
    loss: Callable[[Mapping[int, float], NDArray[np.float32]], float],
    fits: Callable[[Mapping[int, float]], bool],
    read: Read = read_by,
) -> dict[int, float]:
    """Choose who reads together, beginning with the best: one after the other, as long as the loss becomes smaller.

    All have an equal say. The fewer the lines that judge, the more a choice among many would owe to chance; what is
    searched through here is small.

    Parameters
    ----------
    frames : mapping
        What trials say of the lines that judge, by number.
    best : int
        The trial that reads best alone.
    loss : callable
        From weights, and what is read with them, to the loss.
    fits : callable
        Whether so many can be shipped together.
    read : callable
        How trials with weights read lines together.

    Returns
    -------
    dict
        Weights by number; they sum to 1.
    """
    chosen = {best: 1.0}
    if best not in frames:
        return chosen
    able = [n for n, said in frames.items() if n != best and said.beside(frames[best])]
    least = loss(chosen, read(chosen, frames))
    while len(chosen) < MOST:
        tried = [_equal([*chosen, number]) for number in able if number not in chosen]
        known = [(loss(weights, read(weights, frames)), place) for place, weights in enumerate(tried)
                 if fits(weights)]  # fmt: skip
        found, place = min(known, default=(least, 0))
        if not found < least:
            break
        chosen, least = tried[place], found
    return dict(sorted(chosen.items()))


def choose_first(
    frames: Mapping[int, Frames],
    loss: Callable[[Mapping[int, float], NDArray[np.float32]], float],
    fits: Callable[[Mapping[int, float]], bool],
    read: Read,
) -> dict[int, float]:
    """Choose how many of those that read best alone read together: the first, the first two, and so on.

    For texts that are weighed as a whole, every net that reads well helps; what is to be found out is when the next
    one is too weak. A choice of any nets owed more to chance: on halves of the held-out lines of captcha8, what was
    chosen by one half read 0.1 to 1.7 points fewer lines of the other rightly (three studies, means of 200 halves).

    Parameters
    ----------
    frames : mapping
        What trials say of the lines that judge, by number; the more promising ones first.
    loss, fits, read : callable
        As `choose` takes them.

    Returns
    -------
    dict
        Weights by number, the one that reads best alone first; they sum to 1.
    """

    def alone(number: int) -> float:
        return loss({number: 1.0}, read({number: 1.0}, frames))

    first, *others = sorted(frames, key=alone)  # of equals, such as all that keep no bound, the foremost stays first
    chosen, grown = {first: 1.0}, [first]
    least = alone(first)
    for number in others:
        if len(grown) == MOST or not frames[number].beside(frames[first]):
            continue
        weights = _equal([*grown, number])
        if not fits(weights):
            continue
        grown.append(number)
        found = loss(weights, read(weights, frames))
        if found < least:
            chosen, least = weights, found
    return chosen


def _equal(numbers: list[int]) -> dict[int, float]:
    return dict.fromkeys(numbers, 1 / len(numbers))
