"""At which fidelity a config is tried, and whether it goes on."""

from __future__ import annotations

from tidemill.core.errors import NotFoundError
from tidemill.core.protocols import Schedule


def make(name: str, slack: float = 1.0) -> Schedule:
    """Build a schedule from its name."""
    from tidemill.search.schedules.full import FullSchedule
    from tidemill.search.schedules.rows import RowsSchedule

    if name == "full":
        return FullSchedule(slack)
    if name == "rows":
        return RowsSchedule(slack=slack)
    raise NotFoundError.of("schedule", name, ("full", "rows"))
