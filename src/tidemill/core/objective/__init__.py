"""What is wanted of a model: one type, written and read as people write it."""

from __future__ import annotations

from tidemill.core.objective._cost_matrix import CostMatrix
from tidemill.core.objective._evaluate import (
    ConstraintResult,
    evaluate_constraints,
    evaluate_costs,
    slice_mask,
    total_gap,
)
from tidemill.core.objective._text import parse_objective
from tidemill.core.objective._types import AUTO, COSTS, Constraint, Direction, Objective, Operator, Selector

__all__ = [
    "AUTO",
    "COSTS",
    "Constraint",
    "ConstraintResult",
    "CostMatrix",
    "Direction",
    "Objective",
    "Operator",
    "Selector",
    "evaluate_constraints",
    "evaluate_costs",
    "parse_objective",
    "slice_mask",
    "total_gap",
]
