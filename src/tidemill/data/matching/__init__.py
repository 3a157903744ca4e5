"""Rows chosen by conditions: predicates over resident columns, matched samples, comparable groups."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.data.matching.groups import Comparison, compare
    from tidemill.data.matching.matched import Match, match, replay
    from tidemill.data.matching.predicate import Predicate, column_types, parse
    from tidemill.data.matching.similar import Similar
    from tidemill.data.matching.sources import Resident, open_source

_HOMES = {
    "Comparison": "groups",
    "Match": "matched",
    "Predicate": "predicate",
    "Resident": "sources",
    "Similar": "similar",
    "column_types": "predicate",
    "compare": "groups",
    "match": "matched",
    "open_source": "sources",
    "parse": "predicate",
    "replay": "matched",
}
__all__ = [
    "Comparison",
    "Match",
    "Predicate",
    "Resident",
    "Similar",
    "column_types",
    "compare",
    "match",
    "open_source",
    "parse",
    "replay",
]


def __getattr__(name: str) -> Any:
    # On first use: dataset versions read conditions, and matching reads dataset versions.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
