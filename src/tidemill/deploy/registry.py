"""The endpoints of a workspace: what they should be, changed by compare-and-set, each change in the audit log.

A change is one transaction, so that a rollback is as quick as one write, and two people who change the same endpoint
never lose each other's work. The serving processes read the same records and follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from tidemill.core.errors import ConflictError, NotFoundError, OptionError
from tidemill.core.protocols import Change
from tidemill.deploy import bundles, groups, settings, traffic
from tidemill.deploy.audit import AUDIT, Audit, Line
from tidemill.deploy.bundles import KeptBundle
from tidemill.deploy.redacting import check_redacted
from tidemill.deploy.types import DEFAULT_STEPS, ENDPOINT, CanaryStep, Endpoint, Revision
from tidemill.deploy.watch.window import DEPLOY_WINDOW
from tidemill.store.workspace import Workspace

BARS = "deploy_bars"
"""Kind of the records that hold what an endpoint's gate forbids."""
PLAN = "deploy_plan"
"""Kind of the records that say what shall happen when a revision becomes ready."""
GATE = "deploy_gate"
"""Kind of the records in which a canary's gate keeps where its step began."""

_ATTEMPTS = 50
_SWEEP_AGE_S = 3600.0


class Mode(str, Enum):
    """What a deployed revision gets when it is ready."""

    ALL = "all"
    CANARY = "canary"
    SHADOW = "shadow"
    WEIGHT = "weight"
    NONE = "none"


@dataclass(frozen=True)
class Plan:
    """What shall happen when a revision becomes ready.

    Parameters
    ----------
    revision : str
        Its id.
    mode : Mode
        All of the traffic, a canary, a shadow, a share, or nothing.
    weight : float
        The share.
    steps : tuple of CanaryStep
        Of the canary.
    """

    revision: str
    mode: Mode = Mode.ALL
    weight: float = 1.0
    steps: tuple[CanaryStep, ...] = DEFAULT_STEPS

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "mode": self.mode.value, "steps": [asdict(s) for s in self.steps]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild from `to_json`."""
        steps = tuple(CanaryStep(**s) for s in data["steps"])
        return cls(str(data["revision"]), Mode(data["mode"]), float(data["weight"]), steps)

    def carry_out(self, endpoint: Endpoint, now: float) -> Endpoint:
        """Do it to an endpoint where the revision is ready."""
        if self.mode is Mode.NONE or endpoint.traffic == {self.revision: 1.0}:
            return endpoint
        if self.mode is Mode.SHADOW:
            return traffic.set_shadow(endpoint, self.revision)
        if self.mode is Mode.CANARY:
            return traffic.start_canary(endpoint, self.revision, self.steps, now)
        if self.mode is Mode.WEIGHT:
            return traffic.split(endpoint, self.revision, self.weight)
        return traffic.promote(endpoint, self.revision)


class Registry:
    """Endpoints by name.

    Parameters
    ----------
    workspace : Workspace
        Where they are kept.
    actor : str
        Who makes changes, for the audit log.
    clock : callable
        Gives the time in seconds since 1970.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     Registry(workspace).endpoints()
    []
    """

    def __init__(self, workspace: Workspace, *, actor: str = "", clock: Callable[[], float] = time.time) -> None:
        self.workspace = workspace
        self.actor = actor
        self._clock = clock
        self._audit = Audit(workspace.records, workspace.journal, clock=clock)

    # ---------------------------------------------------------------------------------------------------- reading

    def endpoints(self) -> list[Endpoint]:
        """All endpoints by name."""
        return [Endpoint.from_json(r.body) for r in self.workspace.records.find(ENDPOINT)]

    def get(self, name: str) -> Endpoint:
        """Find an endpoint; raises `NotFoundError` with the nearest names."""
        return Endpoint.from_json(self.workspace.records.get(ENDPOINT, name).body)

    def plan(self, name: str) -> Plan | None:
        """What waits for a revision of an endpoint to become ready."""
        try:
            return Plan.from_json(self.workspace.records.get(PLAN, name).body)
        except NotFoundError:
            return None

    # --------------------------------------------------------------------------------------------------- deploying

    def deploy(
        self,
        bundle: str | Path,
        endpoint: str,
        *,
        mode: Mode = Mode.ALL,
        weight: float = 1.0,
        steps: Sequence[CanaryStep] = DEFAULT_STEPS,
        options: Mapping[str, Any] | None = None,
    ) -> Revision:
        """Keep a bundle in the workspace and make it a revision of an endpoint, which is made where there is none.

        The revision is ready when the serving process has loaded it and its golden rows passed there; then the plan
        is carried out. A bundle that is a ready revision already gets what was planned at once.

        Parameters
        ----------
        bundle : path
            The bundle's folder.
        endpoint : str
            Name of the endpoint.
        mode : Mode
            What it gets when it is ready. The first revision of an endpoint gets all of the traffic, unless the mode
            is ``NONE``.
        weight : float
            Its share where the mode is ``WEIGHT``.
        steps : sequence of CanaryStep
            The way where the mode is ``CANARY``.
        options : mapping, optional
            Settings of the endpoint to change along with it; see `tidemill.deploy.settings`.

        Raises
        ------
        BundleError
            If the bundle is damaged or may not be served.
        OptionError
            For a name, weight, step or setting that can't be used, and for feature groups that hold no column of it.
        NotFoundError
            For a feature group that is not there.
        """
        traffic.check_name(endpoint)
        standing = next((e for e in self.endpoints() if e.name == endpoint), Endpoint(endpoint))
        features = settings.apply(standing, options or {}).features
        groups.check_names(self.workspace, features)
        groups.check_roles(self.workspace, [f for f in features if f not in standing.features], self.actor)
        steps = tuple(steps)
        if mode is Mode.CANARY:
            traffic.check_steps(steps)
        if mode is Mode.WEIGHT and not 0 < weight <= 1:
            raise OptionError(f"A weight must be above 0 and at most 1, but got {weight}.", where="--weight")
        self._refuse_second_canary(standing, mode)
        kept = bundles.keep(self.workspace.path, Path(bundle))
        groups.check_groups(self.workspace, features, [kept.path])
        self._check_redacted(standing, settings.apply(standing, options or {}), kept.path)
        plan = Plan(kept.id, mode, weight, steps)
        after = self._change(
            endpoint,
            lambda e: self._deployed(settings.apply(e, options or {}), kept, plan),
            Line("deploy", endpoint, {"bundle": kept.hash, "name": kept.name, **plan.to_json()}),
            plan=plan,
            create=True,
        )
        return traffic.find_revision(after, kept.id)

    @staticmethod
    def _refuse_second_canary(standing: Endpoint, mode: Mode) -> None:
        """Say so before a large bundle is copied and checked."""
        if mode is Mode.CANARY and standing.canary is not None:
            raise OptionError(
                f"A canary of {standing.canary.revision!r} is under way.",
                hint="Wait for it, or end it with: tidemill rollback.",
            )

    def _deployed(self, endpoint: Endpoint, kept: KeptBundle, plan: Plan) -> Endpoint:
        after = traffic.add_revision(endpoint, Revision(kept.id, kept.hash, self._clock()))
        ready = traffic.find_revision(after, kept.id).state == "ready"
        return plan.carry_out(after, self._clock()) if ready else after

    def mark_ready(self, endpoint: str, revision: str) -> Endpoint:
        """Note that a revision was loaded and its golden rows passed, and carry out its plan.

        Called by the serving process; calling it again changes nothing.
        """
        if traffic.find_revision(self.get(endpoint), revision).state == "ready":
            return self.get(endpoint)
        plan = self.plan(endpoint)
        mine = plan if plan is not None and plan.revision == revision else None

        def change(before: Endpoint) -> Endpoint:
            if traffic.find_revision(before, revision).state == "ready":  # another front was quicker
                return before
            held = mine is not None and mine.mode is Mode.NONE and not before.traffic
            after = traffic.mark_ready(before, revision)
            after = replace(after, traffic={}) if held else after
            try:
                return after if mine is None else mine.carry_out(after, self._clock())
            except OptionError:  # a canary was begun by somebody else since: this one is ready, and waits for a person
                return after

        return self._change(endpoint, change, Line("ready", endpoint, {"revision": revision}), done=mine is not None)

    def mark_refused(self, endpoint: str, revision: str, reason: str) -> Endpoint:
        """Note that a revision may not serve, and why. One that serves traffic stays; the reason is only logged."""
        line = Line("refused", endpoint, {"revision": revision, "reason": reason})
        if self.get(endpoint).traffic.get(revision, 0.0) > 0:
            self._audit.change([], [self._addressed(line)])
            return self.get(endpoint)
        return self._change(endpoint, lambda e: traffic.mark_refused(e, revision, reason), line)

    # ----------------------------------------------------------------------------------------------------- changing

    def configure(self, endpoint: str, options: Mapping[str, Any]) -> Endpoint:
        """Change settings; see `tidemill.deploy.settings`.

        Feature groups must fit the revisions that have traffic, and what shall never be captured must be a column of
        one of the endpoint's bundles.
        """
        standing = self.get(endpoint)
        if "features" in options:
            served = [r for r in standing.revisions if standing.traffic.get(r.id, 0.0) > 0]
            folders = [bundles.folder_of(self.workspace.path, r.bundle) for r in served]
            wanted = settings.apply(standing, options).features
            groups.check_groups(self.workspace, wanted, folders)
            groups.check_roles(self.workspace, [f for f in wanted if f not in standing.features], self.actor)
        self._check_redacted(standing, settings.apply(standing, options))
        line = Line("configure", endpoint, {"settings": dict(options)})
        return self._change(endpoint, lambda e: settings.apply(e, options), line)

    def _check_redacted(self, standing: Endpoint, wanted: Endpoint, *more: Path) -> None:
        new = [name for name in wanted.capture.redact if name not in standing.capture.redact]
        if new:
            folders = [bundles.folder_of(self.workspace.path, r.bundle) for r in standing.revisions]
            check_redacted(new, [*folders, *more])

    def set_traffic(self, endpoint: str, weights: Mapping[str, float]) -> Endpoint:
        """Set weights by revision; they are scaled to sum to 1. Ends a canary."""
        line = Line("traffic", endpoint, {"weights": dict(weights)})
        return self._change(endpoint, lambda e: traffic.set_traffic(e, weights), line)

    def set_shadow(self, endpoint: str, revision: str) -> Endpoint:
        """Let a revision get a copy of the requests; empty ends the shadow."""
        line = Line("shadow", endpoint, {"revision": revision})
        return self._change(endpoint, lambda e: traffic.set_shadow(e, revision), line)

    def set_loaded(self, endpoint: str, loaded: bool) -> Endpoint:
        """Let every front hold an endpoint's models, or let them go and answer nothing until it is loaded again."""
        line = Line("load" if loaded else "unload", endpoint)
        return self._change(endpoint, lambda e: replace(e, loaded=loaded), line)

    def rollback(self, endpoint: str, *, to: str = "", reason: str = "rolled back by hand") -> Endpoint:
        """Give all of the traffic to the revision before, or to a named one; also ends a canary.

        Raises
        ------
        OptionError
            Where there is no ready revision to go to.
        """
        line = Line("rollback", endpoint, {"to": to, "reason": reason})
        return self._change(endpoint, lambda e: traffic.rollback(e, reason, to), line)

    def start_canary(self, endpoint: str, revision: str, steps: Sequence[CanaryStep] = DEFAULT_STEPS) -> Endpoint:
        """Begin a canary with a revision that is ready."""
        line = Line("canary", endpoint, {"revision": revision, "steps": [asdict(s) for s in steps]})
        return self._change(
            endpoint,
            lambda e: traffic.start_canary(e, traffic.find_revision(e, revision).id, tuple(steps), self._clock()),
            line,
        )

    def step_canary(self, endpoint: str, *, at: float, facts: Mapping[str, Any] | None = None) -> Endpoint:
        """Take the next step of a canary.

        Parameters
        ----------
        endpoint : str
            Name of the endpoint.
        at : float
            ``step_at`` of the step that is over; raises `ConflictError` where another step was taken since.
        facts : mapping, optional
            Why, for the log.
        """

        def change(before: Endpoint) -> Endpoint:
            _same_step(before, at)
            return traffic.step_canary(before, self._clock())

        return self._change(endpoint, change, Line("canary_step", endpoint, dict(facts or {})))

    def stop_canary(self, endpoint: str, reason: str, *, at: float, facts: Mapping[str, Any] | None = None) -> Endpoint:
        """Give the traffic back to the baseline; parameters as in `step_canary`."""

        def change(before: Endpoint) -> Endpoint:
            _same_step(before, at)
            return traffic.stop_canary(before, reason)

        line = Line("canary_rollback", endpoint, {"reason": reason, **(facts or {})})
        return self._change(endpoint, change, line)

    def drop(self, endpoint: str, revision: str) -> Endpoint:
        """Forget a revision that serves nothing; its bundle stays until `sweep`."""
        revision = traffic.find_revision(self.get(endpoint), revision).id
        line = Line("drop", endpoint, {"revision": revision})
        after = self._change(endpoint, lambda e: traffic.drop_revision(e, revision), line)
        self._forget_windows(f"{endpoint}/{revision}/")
        return after

    def undeploy(self, endpoint: str) -> None:
        """Forget an endpoint: it stops to answer. Its bundles stay until `sweep`, its history for ever."""
        records = self.workspace.records
        standing = records.get(ENDPOINT, endpoint)
        changes = [
            Change(ENDPOINT, endpoint, None, standing.version),
            *(Change(kind, endpoint, None) for kind in (PLAN, GATE, BARS)),
        ]
        self._audit.change(changes, [self._addressed(Line("undeploy", endpoint))])
        self._forget_windows(f"{endpoint}/")

    def _forget_windows(self, prefix: str) -> None:
        records = self.workspace.records
        if gone := [Change(DEPLOY_WINDOW, w.key, None) for w in records.find(DEPLOY_WINDOW, prefix)]:
            records.put_all(gone)

    def sweep(self) -> list[str]:
        """Remove the bundles that no revision names and that are older than an hour; gives their hashes."""
        used = {r.bundle for e in self.endpoints() for r in e.revisions}
        gone: list[str] = []
        folder = self.workspace.path / "bundles"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if len(path.name) != 64 or not path.is_dir() or path.name in used:
                continue
            if path.stat().st_mtime < self._clock() - _SWEEP_AGE_S:
                bundles.forget(self.workspace.path, path.name)
                gone.append(path.name)
        if gone:
            self._audit.change([], [Line("sweep", "bundles", {"removed": gone}, actor=self.actor)])
        return gone

    def note(self, kind: str, endpoint: str, body: Mapping[str, Any], what: str, facts: Mapping[str, Any]) -> None:
        """Write a record beside an endpoint's own, with its line in the log."""
        self._audit.change([Change(kind, endpoint, body)], [self._addressed(Line(what, endpoint, facts))])

    # ------------------------------------------------------------------------------------------------------ writing

    def _change(
        self,
        name: str,
        change: Callable[[Endpoint], Endpoint],
        line: Line,
        *,
        plan: Plan | None = None,
        done: bool = False,
        create: bool = False,
    ) -> Endpoint:
        """Apply a pure change by compare-and-set, along with the plan (``done``: it is over) and the log's line."""
        for attempt in range(_ATTEMPTS):
            before, version = self._standing(name, create)
            after = change(before)
            traffic.check(after)
            changes = [Change(ENDPOINT, name, after.to_json(), version)]
            if plan is not None:
                changes.append(Change(PLAN, name, plan.to_json()))
            elif done:
                changes.append(Change(PLAN, name, None))
            facts = {**line.payload, "traffic": dict(after.traffic), "was": dict(before.traffic)}
            try:
                self._audit.change(changes, [self._addressed(replace(line, payload=facts))])
                return after
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.001 * attempt)
        raise ConflictError(f"The endpoint {name!r} changes all the time.")  # pragma: no cover  (the loop returns)

    def _standing(self, name: str, create: bool) -> tuple[Endpoint, int]:
        try:
            record = self.workspace.records.get(ENDPOINT, name)
        except NotFoundError:
            if not create:
                raise
            return Endpoint(name), 0
        return Endpoint.from_json(record.body), record.version

    def _addressed(self, line: Line) -> Line:
        return replace(line, actor=self.actor, streams=(AUDIT, f"deploy/{line.subject}"))


def _same_step(endpoint: Endpoint, at: float) -> None:
    if endpoint.canary is None or endpoint.canary.step_at != at:
        raise ConflictError(f"The canary of {endpoint.name!r} has gone on in the meantime.")
