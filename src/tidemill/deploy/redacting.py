"""Whether columns that shall never be kept are ones that an endpoint takes: a slip of the pen would keep them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill.core.errors import NotFoundError
from tidemill.deploy.watch.facts import Facts


def check_redacted(names: Sequence[str], bundles: Sequence[Path]) -> None:
    """Refuse names that are no column of any of some bundles.

    Parameters
    ----------
    names : sequence of str
        Columns that the watch shall leave out, as the bundle's schema or its graph calls them.
    bundles : sequence of Path
        Folders of the endpoint's bundles; where one can't be read, nothing is refused.

    Raises
    ------
    NotFoundError
        With the nearest names.
    """
    known: set[str] = set()
    for facts in map(Facts.load, bundles):
        if facts.spec is None:
            return
        known |= {c.name for c in facts.spec.schema.features} | set(facts.columns())
    for name in names if bundles else ():
        if name not in known:
            raise NotFoundError.of("column in what the endpoint is asked:", name, known)
