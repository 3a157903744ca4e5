"""Endpoints: deploy a bundle, shift traffic, go back.

``tidemill.endpoint("fraud")`` is the door; the serving processes (``tidemill up``) follow what is written here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tidemill.core.errors import BundleError, OptionError
from tidemill.deploy.audit import AUDIT, Audit, read_audit
from tidemill.deploy.controller import read_bars, write_bars
from tidemill.deploy.presence import living
from tidemill.deploy.registry import Mode, Registry
from tidemill.deploy.traffic import find_revision, main_revision
from tidemill.deploy.types import DEFAULT_STEPS, CanaryStep
from tidemill.deploy.types import Endpoint as Wanted
from tidemill.store.workspace import Workspace

_POLL_S = 0.05


class ServedEndpoint:
    """A served name of a workspace; see `endpoint`.

    Parameters
    ----------
    name : str
        Letters, digits, ``-`` and ``_``.
    workspace : path, optional
        Default as everywhere: ``TIDEMILL_WORKSPACE``, else ``./.tidemill``.
    actor : str, optional
        Who makes changes, for the audit log; default the user of this computer.
    """

    def __init__(self, name: str, workspace: str | Path | None = None, actor: str | None = None) -> None:
        self.name = name
        self._place = workspace
        self._actor = python_actor() if actor is None else actor

    def __repr__(self) -> str:
        return f"ServedEndpoint({self.name!r})"

    def deploy(
        self,
        bundle: str | Path,
        *,
        canary: bool | Sequence[float] = False,
        shadow: bool = False,
        weight: float | None = None,
        hold: bool = False,
        step_requests: int = 200,
        step_seconds: float = 30.0,
        wait_s: float = 60.0,
        **settings: Any,
    ) -> dict[str, Any]:
        """Make a bundle a revision of the endpoint, which is made where there is none.

        The bundle is checked and copied into the workspace first. The new revision is loaded and its golden rows pass
        before it gets a request, and the old one answers until then.

        Parameters
        ----------
        bundle : path
            The bundle's folder.
        canary : bool or sequence of float
            Shift the traffic in steps (1, 5, 25, 100 %, or the shares given), each gated, with automatic rollback.
        shadow : bool
            Let it get a copy of the requests; its answers are kept for comparison and not given.
        weight : float, optional
            Share of the traffic. Without this, ``canary``, ``shadow`` and ``hold`` it gets all of it.
        hold : bool
            Only load it; shift traffic later.
        step_requests, step_seconds : int, float
            Answers and seconds that each step of a canary needs at least.
        wait_s : float
            How long to wait until it is ready, where a platform serves the workspace.
        **settings
            Of the endpoint: ``priority``, ``min_replicas``, ``max_replicas``, ``idle_s``, ``deadline_ms``,
            ``target_ms``, ``features``, ``capture``, ``deterministic``.

        Returns
        -------
        dict
            ``endpoint``, ``revision``, ``bundle``, ``state``, ``traffic``, ``serving`` (whether a platform serves the
            workspace).

        Raises
        ------
        BundleError
            If the bundle may not be served, or the platform refused it.
        """
        mode, share = _mode(canary, shadow, weight, hold)
        steps = _steps(canary, step_requests, step_seconds)
        with self._registry() as registry:
            revision = registry.deploy(bundle, self.name, mode=mode, weight=share, steps=steps, options=settings).id
            serving = bool(living(registry.workspace.records))
            deadline = time.monotonic() + (wait_s if serving else 0.0)
            while True:
                now = registry.get(self.name)
                found = find_revision(now, revision)
                if found.state != "checking" or time.monotonic() > deadline:
                    break
                time.sleep(_POLL_S)
        if found.state == "refused":
            raise BundleError(f"The revision {revision} was refused: {found.reason}", where=str(bundle))
        return {
            "endpoint": self.name,
            "revision": revision,
            "bundle": found.bundle,
            "state": found.state,
            "traffic": dict(now.traffic),
            "serving": serving,
        }

    def describe(self) -> dict[str, Any]:
        """Revisions, traffic, canary and settings."""
        with self._registry() as registry:
            return describe(registry.get(self.name))

    def traffic(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Set weights by revision (or the beginning of its id); they are scaled to sum to 1."""
        with self._registry() as registry:
            return dict(registry.set_traffic(self.name, weights).traffic)

    def shadow(self, revision: str) -> None:
        """Let a revision get a copy of the requests; empty ends the shadow."""
        with self._registry() as registry:
            registry.set_shadow(self.name, revision)

    def canary(self, revision: str, steps: Sequence[float] = (), *, requests: int = 200, seconds: float = 30.0) -> None:
        """Begin a canary with a revision that is ready; parameters as in `deploy`."""
        with self._registry() as registry:
            registry.start_canary(self.name, revision, _steps(steps or True, requests, seconds))

    def rollback(self, to: str = "", reason: str = "rolled back by hand") -> dict[str, Any]:
        """Give all of the traffic to the revision before, or to a named one; ends a canary.

        Returns
        -------
        dict
            ``endpoint``, ``from``, ``to``, ``seconds``: how long it took until it was written.
        """
        with self._registry() as registry:
            started = time.perf_counter()
            before = registry.get(self.name)
            after = registry.rollback(self.name, to=to, reason=reason)
            return {
                "endpoint": self.name,
                "from": main_revision(before) if before.canary is None else before.canary.revision,
                "to": main_revision(after),
                "seconds": round(time.perf_counter() - started, 4),
            }

    def configure(self, **settings: Any) -> dict[str, Any]:
        """Change settings; the names are those of `deploy`."""
        with self._registry() as registry:
            return describe(registry.configure(self.name, settings))

    def gate(self, **bars: float) -> dict[str, Any]:
        """Show what the gate of a canary forbids, after changing what is given; see `tidemill.deploy.canary.Bars`."""
        with self._registry() as registry:
            registry.get(self.name)
            after = write_bars(registry, self.name, bars) if bars else read_bars(registry.workspace, self.name)
            return asdict(after)

    def drop(self, revision: str) -> None:
        """Forget a revision that serves nothing."""
        with self._registry() as registry:
            registry.drop(self.name, revision)

    def undeploy(self) -> None:
        """Forget the endpoint; bundles that no endpoint names are removed an hour later."""
        with self._registry() as registry:
            registry.undeploy(self.name)
            registry.sweep()

    def history(self, limit: int = 100) -> list[dict[str, Any]]:
        """What happened to the endpoint, newest last."""
        with self._registry() as registry:
            return read_audit(registry.workspace.journal, stream=f"deploy/{self.name}", limit=limit)

    @contextlib.contextmanager
    def _registry(self) -> Iterator[Registry]:
        with Workspace.open(self._place) as workspace:
            yield Registry(workspace, actor=self._actor)


def endpoint(name: str, workspace: str | Path | None = None) -> ServedEndpoint:
    """Give the endpoint of a name, there or not; nothing is written before it is told to.

    Parameters
    ----------
    name : str
        Its name.
    workspace : path, optional
        Where it is kept.

    Examples
    --------
    >>> endpoint("fraud")
    ServedEndpoint('fraud')
    """
    return ServedEndpoint(name, workspace)


def endpoints(workspace: str | Path | None = None) -> list[dict[str, Any]]:
    """List the endpoints of a workspace by name."""
    with Workspace.open(workspace) as opened:
        return [describe(e) for e in Registry(opened).endpoints()]


def audit(
    workspace: str | Path | None = None,
    *,
    subject: str | None = None,
    actor: str | None = None,
    since_s: float | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Read the log of every change, newest last.

    Parameters
    ----------
    workspace : path, optional
        Where it is kept.
    subject, actor : str, optional
        Of one thing, by one person or program.
    since_s : float, optional
        Of the last so many seconds.
    limit : int
        At most so many.
    """
    with Workspace.open(workspace) as opened:
        Audit(opened.records, opened.journal).deliver()
        since = 0.0 if since_s is None else time.time() - since_s
        return read_audit(opened.journal, stream=AUDIT, subject=subject, actor=actor, since=since, limit=limit)


def describe(wanted: Wanted) -> dict[str, Any]:
    """Put an endpoint into plain values for doors."""
    facts = wanted.to_json()
    for revision in facts["revisions"]:
        revision["created"] = _utc(revision.pop("created_at"))
        revision["weight"] = wanted.traffic.get(revision["id"], 0.0)
    facts["revisions"] = list(facts["revisions"])
    return facts


def python_actor() -> str:
    """Name the user of this computer, for the audit log."""
    try:
        return f"user:{getpass.getuser()}"
    except (OSError, KeyError, ImportError):  # a user id without a name, as in containers
        return "user"


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.timezone.utc).isoformat(" ", "seconds")


def _mode(canary: bool | Sequence[float], shadow: bool, weight: float | None, hold: bool) -> tuple[Mode, float]:
    chosen = {"canary": bool(canary), "shadow": shadow, "weight": weight is not None, "hold": hold}
    given = [name for name, is_given in chosen.items() if is_given]
    if len(given) > 1:
        raise OptionError(f"Only one of {' and '.join(given)} can be asked for.")
    if weight is not None:
        return Mode.WEIGHT, weight
    modes = {"canary": Mode.CANARY, "shadow": Mode.SHADOW, "hold": Mode.NONE}
    return (modes[given[0]] if given else Mode.ALL), 1.0


def _steps(canary: bool | Sequence[float], requests: int, seconds: float) -> tuple[CanaryStep, ...]:
    shares = [s.weight for s in DEFAULT_STEPS] if isinstance(canary, bool) else list(canary)
    return tuple(CanaryStep(float(w), requests, seconds) for w in shares)
