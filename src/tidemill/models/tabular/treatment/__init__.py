"""Treatment: what is done to the encoded matrix, once per fold, before a family sees it."""

from __future__ import annotations

from tidemill.models.tabular.treatment._base import FittedStep, Step
from tidemill.models.tabular.treatment._registry import CHOICES, STAGES, steps_of
from tidemill.models.tabular.treatment._treatment import Treatment, widest

__all__ = ["CHOICES", "STAGES", "FittedStep", "Step", "Treatment", "steps_of", "widest"]
