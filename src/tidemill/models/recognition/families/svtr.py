"""Convolutions, then attention along the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tidemill.models.recognition.families._trained import TrainedFamily

if TYPE_CHECKING:
    from torch import nn


class SvtrFamily(TrainedFamily):
    """`tidemill.models.recognition.nets.svtr`."""

    name: ClassVar[str] = "svtr"
    lr: ClassVar[float] = 2e-3
    # On captcha8, 8,800 steps of 16 took 0.7 of the time and left a sixth more errors; 32 left as many after as long.
    width: ClassVar[int] = 24
    depths: ClassVar[tuple[int, int, int]] = (1, 4, 2)

    def build(self, width: int, depth: int, height: int, outputs: int) -> nn.Module:
        """Make the net."""
        from tidemill.models.recognition.nets.svtr import Svtr

        return Svtr(width, depth, height, outputs)


FAMILY = SvtrFamily()
