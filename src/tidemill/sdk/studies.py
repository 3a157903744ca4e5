"""Studies by name."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from tidemill.core.errors import NotFoundError
from tidemill.sdk.study import Study
from tidemill.search.study import Study as SearchStudy
from tidemill.store.workspace import Workspace


def open_study(name: str, workspace: str | Path | None = None) -> Study:
    """Open a study of a workspace.

    Raises
    ------
    NotFoundError
        If there is none of that name; the nearest are offered.
    """
    opened = Workspace.open(workspace)
    try:
        return Study(opened, SearchStudy.open(opened, name))
    except NotFoundError:
        opened.close()
        raise


def list_studies(workspace: str | Path | None = None) -> list[dict[str, Any]]:
    """List the studies of a workspace, oldest first."""
    with Workspace.open(workspace) as opened:
        return [
            {
                "study": record.name,
                "target": record.task["target"],
                "kind": record.task["kind"],
                "objective": record.objective,
                "state": record.state,
                "trials": sum(t.state.value == "complete" for t in opened.metadata.trials(record.name)),
                "created": dt.datetime.fromtimestamp(record.created_at, dt.timezone.utc).isoformat(" ", "seconds"),
            }
            for record in opened.metadata.studies()
        ]
