"""Convolutions, then a recurrent net along the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tidemill.models.recognition.families._trained import TrainedFamily

if TYPE_CHECKING:
    from torch import nn


class CrnnFamily(TrainedFamily):
    """`tidemill.models.recognition.nets.crnn`."""

    name: ClassVar[str] = "crnn"
    lr: ClassVar[float] = 3e-3
    depths: ClassVar[tuple[int, int, int]] = (0, 3, 1)

    def build(self, width: int, depth: int, height: int, outputs: int) -> nn.Module:
        """Make the net."""
        from tidemill.models.recognition.nets.crnn import Crnn

        return Crnn(width, depth, height, outputs)


FAMILY = CrnnFamily()
