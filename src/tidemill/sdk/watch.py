"""What endpoints do, and the rows that the next turn of the loop wants."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.sdk.data.doors import Place


def watch(endpoint: str, *, hours: float = 24.0, workspace: str | Path | None = None) -> dict[str, Any]:
    """Sum up an endpoint: traffic, latency, drift, estimated and true accuracy; see `tidemill.deploy.watch.report`.

    Parameters
    ----------
    endpoint : str
        Its name.
    hours : float
        How far back drift looks.
    workspace : path, optional
        Default as everywhere: ``TIDEMILL_WORKSPACE``, else ``./.tidemill``.

    Raises
    ------
    NotFoundError
        If there is no such endpoint.
    """
    from tidemill.deploy.watch.report import report

    with Workspace.open(workspace) as opened:
        return report(opened, endpoint, hours=hours)


def captured(
    endpoint: str, *, hours: float | None = None, reasons: Sequence[str] = (), workspace: str | Path | None = None
) -> pa.Table:
    """Read the rows that were captured, each content once; see `tidemill.deploy.watch.capture.collect`.

    Parameters
    ----------
    endpoint : str
        Its name.
    hours : float, optional
        Only rows of the last hours; default all that are kept.
    reasons : sequence of str
        Only rows that were kept for one of these.
    workspace : path, optional
        Default as everywhere.
    """
    from tidemill.deploy.watch.capture import collect

    with Workspace.open(workspace) as opened:
        return collect(opened, endpoint, since=_since(hours), reasons=reasons)


def captured_version(
    endpoint: str,
    *,
    name: str | None = None,
    hours: float | None = None,
    reasons: Sequence[str] = (),
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Keep captured rows as a dataset version; see `tidemill.deploy.watch.cases.as_version`.

    Parameters
    ----------
    endpoint : str
        Its name.
    name : str, optional
        Name of the dataset; default ``"<endpoint>-cases"``.
    hours, reasons : optional
        As for `captured`.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who does it: a writer of the dataset. Default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        ``dataset``, ``hash``, ``rows``, ``parents`` and others of the version, and ``lost``: rows that were left out
        because an image or a long text of theirs is gone or damaged.

    Raises
    ------
    DataError
        If nothing was captured.
    """
    from tidemill.deploy.watch.cases import as_version
    from tidemill.sdk.data.doors import enter, hashes

    with enter(workspace, actor) as door:
        dataset = name or f"{endpoint}-cases"
        door.may_write(dataset)
        known = hashes(door, dataset)
        version = as_version(door.workspace, endpoint, name=dataset, since=_since(hours), reasons=reasons)
        told = door.made(version, version.hash in known)
        return {**told, "lost": int(version.parameters.get("lost", 0))}


def _since(hours: float | None) -> float:
    return 0.0 if hours is None else time.time() - hours * 3600
