"""`torch.compile` where it pays: tried on the training itself, measured against eager steps, given up where it fails.

Modules are compiled in place, so names of parameters, hooks and checkpoints stay as they are, and a training goes on
from any checkpoint compiled or not. It is their ``forward`` that is compiled: `nn.Module.compile` leaves containers of
PyTorch's own, such as ``nn.Sequential``, eager without a word (2.13). What DDP or FSDP wraps is compiled, not the
wrapper: of replicas the module, of shards each repeated block, whose gathering of weights stays outside. Evaluations
are eager: they are few, and another mode would be compiled another time.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tidemill.train.blocks import keeps_statistics, repeated_blocks
from tidemill.train.place import Group

BACKEND = "inductor"
_WARM, _MEASURED = 3, 5
"""Steps that are not counted after a change, for they also make what later ones use again; and those that are."""
_WORTH_S = 300.0
"""Seconds of eager steps that must be left: a compiler takes ten to a hundred, and steps become some tenths quicker.

Until a deadline there must be twice as many, for a compiler can't be stopped."""
_GAIN = 0.05
"""A share of a step by which compiled ones must be quicker: less is noise."""
_FORWARD = "forward"


@dataclass(frozen=True)
class News:
    """What became of a try.

    Parameters
    ----------
    message : str
        One sentence for people.
    failed : bool
        The compiler could not do it.
    """

    message: str
    failed: bool = False


class Compilation:
    """Whether a module's passes are compiled; all processes of a group decide alike.

    Parameters
    ----------
    wish : {"auto", "never", "always"}
        As in `Recipe`.
    module : nn.Module
        That is placed already.
    group : Group
        With whom.
    failures : tuple
        Types of errors that passes raise.
    """

    def __init__(self, wish: str, module: nn.Module, group: Group, failures: tuple[type[BaseException], ...]) -> None:
        self._group = group
        self._failures = failures
        blocks = list(repeated_blocks(module).values())
        self._parts = blocks if group.is_sharded and blocks else [module]
        self._recomputed = group.placement.recompute != "none" and any(keeps_statistics(b) for b in blocks)
        self._always = wish == "always"
        self._settled = wish == "never" or (wish == "auto" and (group.device.type != "cuda" or self._recomputed))
        self._before: list[Any] = []
        self._seen: list[float] = []
        self._eager_s = self._took_s = 0.0
        self._used = False
        self.is_on = False

    def begin(self, rehearse: Callable[[], float]) -> News | None:
        """Before the first step: compile where that is always wished.

        Parameters
        ----------
        rehearse : callable
            Makes the passes of a step, moves nothing, and gives the seconds that it took.
        """
        if not self._always:
            return None
        self._settled = True
        if self._recomputed:
            return News("Not compiled: its blocks are recomputed and keep statistics of batches.", failed=True)
        return self._tried(rehearse)

    def after(self, step_s: float, steps: int, left_s: float, rehearse: Callable[[], float]) -> News | None:
        """After each step: compile, go on so, or go back, where enough steps have been seen to know.

        Parameters
        ----------
        step_s : float
            What the step took.
        steps : int
            How many are left.
        left_s : float
            Seconds until the deadline.
        rehearse : callable
            As in `begin`.
        """
        if self._settled:
            return None
        self._seen.append(step_s)
        if len(self._seen) < _WARM + _MEASURED:
            return None
        typical_s = self._together(statistics.median(self._seen[_WARM:])) / self._group.world
        self._seen.clear()
        if self.is_on:
            return self._compared(typical_s, steps)
        self._eager_s = typical_s
        if self._together(min(steps * typical_s, left_s / 2) >= _WORTH_S) < self._group.world:
            self._settled = True
            return None
        return self._tried(rehearse)

    def give_up(self, error: BaseException) -> News:
        """Be eager from now on, because a compiled pass failed."""
        self.off()
        self._settled = True
        return News(f"The compiler failed, the training goes on eager: {_line(error)}.", failed=True)

    def off(self) -> None:
        """Be eager."""
        if self.is_on:
            _put(self._parts, self._before)
        self.is_on = False

    def close(self) -> None:
        """Leave the module as it was, and let go of what was compiled."""
        self.off()
        if self._used:
            torch.compiler.reset()

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Be eager while this lasts."""
        if not self.is_on:
            yield
            return
        compiled = _put(self._parts, self._before)
        try:
            yield
        finally:
            _put(self._parts, compiled)

    def _tried(self, rehearse: Callable[[], float]) -> News:
        """Compile and make the passes of a step, before any exchange hangs on them."""
        self._used = self.is_on = True
        # Those of blocks that are recomputed are their own already.
        self._before = [vars(part).get(_FORWARD) for part in self._parts]
        # Numbers are drawn as in eager passes, so that a step is the same compiled or not.
        options: dict[str, Any] = {"options": {"fallback_random": True}} if BACKEND == "inductor" else {}
        trouble: BaseException | None = None
        with warnings.catch_warnings():
            # The compiler's modules warn of one another.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            try:
                _put(self._parts, [torch.compile(part.forward, backend=BACKEND, **options) for part in self._parts])
                self._took_s = rehearse()
            except self._failures as error:
                trouble = error
        if self._together(trouble is not None):
            return self.give_up(trouble or RuntimeError("in another process"))
        return News(f"Compiled in {self._took_s:.1f} s.")

    def _compared(self, compiled_s: float, steps: int) -> News:
        self._settled = True
        words = f"{_ms(compiled_s)} compiled against {_ms(self._eager_s)} eager"
        saved_s = self._eager_s - compiled_s
        if saved_s < _GAIN * self._eager_s:
            self.off()
            return News(f"A step takes {words}: it goes on eager.")
        back = int(self._took_s / saved_s) + 1
        earned = f"earned back in {back:,}" if back <= steps else "not earned back in all"
        return News(f"A step takes {words}; the {self._took_s:.1f} s of the compiler are {earned} of {steps:,} steps.")

    def _together(self, value: float) -> float:
        return self._group.sum([value])[0]


def _put(parts: list[nn.Module], forwards: list[Any]) -> list[Any]:
    """Give modules these ``forward``, or their class's where it is None; returns what they had."""
    had = [vars(part).pop(_FORWARD, None) for part in parts]
    for part, forward in zip(parts, forwards, strict=True):
        if forward is not None:
            vars(part)[_FORWARD] = forward
    return had


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *(line.rstrip(".:") for line in lines[:2])])[:300]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
