"""What a search may spend: seconds, trials, bytes, cores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import OptionError

_TIME = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?", re.ASCII)
_SIZE = re.compile(r"(?P<n>\d+(?:\.\d+)?)\s*(?P<u>[kmgt]?i?b?)", re.ASCII | re.IGNORECASE)
_MOST_BYTES = 2**62
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_duration_s(text: str | float) -> float:
    """Read a duration as people write it, in seconds.

    Examples
    --------
    >>> parse_duration_s("60s"), parse_duration_s("2m"), parse_duration_s("1h30m"), parse_duration_s(5)
    (60.0, 120.0, 5400.0, 5.0)
    """
    if isinstance(text, (int, float)):
        value = float(text)
    else:
        match = _TIME.fullmatch("".join(text.split()).lower())
        if match is None or not text.strip():
            raise OptionError(f"{text!r} is not a duration.", hint="Write for example 60s, 2m or 1h30m.")
        value = sum(float(match[u] or 0) * k for u, k in (("h", 3600), ("m", 60), ("s", 1)))
    if not 0 < value < float("inf"):
        raise OptionError(f"A duration must be positive and finite, but got {text!r}.")
    return value


def parse_size_bytes(text: str | int) -> int:
    """Read an amount of memory as people write it, in bytes.

    Examples
    --------
    >>> parse_size_bytes("4GB"), parse_size_bytes("512MiB"), parse_size_bytes(1024)
    (4000000000, 536870912, 1024)
    """
    if isinstance(text, int):
        value = text
    else:
        match = _SIZE.fullmatch(text.strip())
        unit = match["u"].lower().removesuffix("b") if match else None
        if match is None or unit not in _UNITS:
            raise OptionError(f"{text!r} is not an amount of memory.", hint="Write for example 4GB or 512MiB.")
        amount = float(match["n"]) * _UNITS[unit]
        if amount > _MOST_BYTES:
            raise OptionError(f"{text!r} is more memory than there is.", hint="Write for example 4GB or 512MiB.")
        value = int(amount)
    if value <= 0:
        raise OptionError(f"An amount of memory must be positive, but got {text!r}.")
    return value


@dataclass(frozen=True)
class Budget:
    """Limits of a search; ``None`` means no limit of that kind.

    Parameters
    ----------
    time_s : float or None
        Wall-clock seconds for the whole job, export included.
    trials : int or None
        Number of trials to finish.
    memory_bytes : int or None
        Memory that all running trials together may use.
    cpus : int
        Cores to use; 0 means all that this process may use.
    device : str
        What nets are trained on: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    placement : mapping or None
        Entries of the placement of every training (`tidemill.train.types.Placement`); None plans each.

    Examples
    --------
    >>> budget = Budget.parse(time="2m", memory="4GB", cpus=2)
    >>> budget.time_s, budget.memory_bytes, budget.cpus
    (120.0, 4000000000, 2)
    """

    time_s: float | None = None
    trials: int | None = None
    memory_bytes: int | None = None
    cpus: int = 0
    device: str = "auto"
    placement: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.time_s is not None and not 0 < self.time_s < float("inf"):
            raise OptionError(f"The time must be positive and finite, but got {self.time_s} s.", where="--time")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise OptionError(f"The memory must be positive, but got {self.memory_bytes} bytes.", where="--memory")
        if self.trials is not None and self.trials < 1:
            raise OptionError(
                f"The number of trials must be at least 1, but got {self.trials}.",
                where="--trials",
                hint=None if self.trials else "0 is for a study that is there: --resume STUDY exports it as it is.",
            )
        if self.cpus < 0:
            raise OptionError(f"The number of cores must not be negative, but got {self.cpus}.", where="--cpus")

    @classmethod
    def parse(
        cls,
        *,
        time: str | float | None = None,
        trials: int | None = None,
        memory: str | int | None = None,
        cpus: int | None = None,
    ) -> Budget:
        """Build a budget from the words of the command line."""
        return cls(
            time_s=None if time is None else parse_duration_s(time),
            trials=trials,
            memory_bytes=None if memory is None else parse_size_bytes(memory),
            cpus=cpus or 0,
        )

    @property
    def cores(self) -> int:
        """Number of cores to use, at least 1."""
        return self.cpus or available_cpus()


def available_cpus() -> int:
    """Cores that this process may run on.

    Examples
    --------
    >>> available_cpus() >= 1
    True
    """
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
