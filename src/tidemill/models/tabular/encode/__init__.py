"""From raw columns to one float32 matrix, the same in numpy and in the shipped graph."""

from __future__ import annotations

from tidemill.models.tabular.encode._encoder import Encoder

__all__ = ["Encoder"]
