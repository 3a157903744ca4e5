"""All that is expected of a dataset: our suite, and those of other tools."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tidemill.core.errors import NotFoundError
from tidemill.data.checks._base import SEVERITIES, Finding
from tidemill.data.expectations.check import check_version
from tidemill.data.expectations.foreign import FOREIGN, ForeignSuite, check_foreign, load_foreign
from tidemill.data.expectations.suite import Suite
from tidemill.store.workspace import Workspace

SUITE = "expectations"
"""Kind of the records that hold our suite of a dataset."""


@dataclass(frozen=True)
class Expected:
    """What a version is held against.

    Parameters
    ----------
    suite : Suite, optional
        Ours.
    foreign : tuple of ForeignSuite
        Those of other tools.
    """

    suite: Suite | None = None
    foreign: tuple[ForeignSuite, ...] = ()

    def __bool__(self) -> bool:
        return self.suite is not None or bool(self.foreign)

    def check(self, workspace: Workspace, ref: str, *, clock: Callable[[], float] = time.time) -> list[Finding]:
        """Hold a version against all of it; what is broken, worst first."""
        found = [] if self.suite is None else check_version(workspace, ref, self.suite, clock=clock)
        for suite in self.foreign:
            found = [*found, *check_foreign(workspace, ref, suite)]
        return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def load_expected(workspace: Workspace, dataset: str) -> Expected:
    """Give what is kept for a dataset; nothing where nobody said anything."""
    try:
        suite: Suite | None = load_suite(workspace, dataset)
    except NotFoundError:
        suite = None
    return Expected(suite, tuple(load_foreign(workspace, dataset)))


def list_expected(workspace: Workspace) -> dict[str, Expected]:
    """Give what is kept for every dataset of which something is expected, by name."""
    names = {record.key for kind in (SUITE, FOREIGN) for record in workspace.records.find(kind)}
    found = {name: load_expected(workspace, name) for name in sorted(names)}
    return {name: kept for name, kept in found.items() if kept}


def load_suite(workspace: Workspace, dataset: str) -> Suite:
    """Read our expectations of a dataset; raises `NotFoundError` where there are none."""
    return Suite.from_yaml(workspace.records.get(SUITE, dataset).body["yaml"], where=f"expectations of {dataset}")
