"""What an error inside of a training means, in words for people. Loads torch."""

from __future__ import annotations

from tidemill.core.errors import TrialError
from tidemill.train import device as devices
from tidemill.train.place import Group
from tidemill.train.work import no_memory

FAILURES = (
    RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
    OSError,
)  # fmt: skip
"""What modules, losses and loaders raise when something is wrong with them."""


def explained(
    error: BaseException, group: Group, step: int, micro_batch: int, *, resumable: bool, compiled: bool
) -> Exception | None:
    """Say what an error of a pass means; None where smaller pieces may help.

    Parameters
    ----------
    error : BaseException
        One of `FAILURES`.
    group : Group
        The processes.
    step : int
        Number of the step that failed, from 1.
    micro_batch : int
        Samples of a piece.
    resumable : bool
        Whether the training can go on from a checkpoint.
    compiled : bool
        Whether the compiler may be to blame.
    """
    if devices.is_out_of_memory(error):
        return None if group.world == 1 and micro_batch > 1 else no_memory(group, micro_batch)
    if devices.is_lost(error):
        return devices.lost(error, group.device, step, resumable=resumable)
    line = str(error).strip().splitlines()
    what = line[0][:300] if line else ""
    if not line or not isinstance(error, (RuntimeError, ValueError)):  # their words alone say little
        what = f"{type(error).__name__}: {what}"
    hint = "It was compiled: try compile='never'." if compiled else None
    return TrialError(f"The module failed at step {step}: {what}.", hint=hint)
