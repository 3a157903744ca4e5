"""Takes canaries from step to step. It keeps nothing to itself: end it at any moment, start it anywhere, start two."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from tidemill.bundle.spec import NAME
from tidemill.core.errors import ConflictError, NotFoundError, TidemillError
from tidemill.deploy import bundles
from tidemill.deploy.audit import Audit
from tidemill.deploy.canary import Action, Bars, Gate, Verdict, judge
from tidemill.deploy.registry import BARS, GATE, Registry
from tidemill.deploy.seen import read_seen
from tidemill.deploy.traffic import find_revision
from tidemill.deploy.types import Canary, Endpoint
from tidemill.store.workspace import Workspace

EVERY_S = 0.5
"""How often the gates are looked at."""


class Controller:
    """Looks at the gates of all canaries.

    Parameters
    ----------
    workspace : Workspace
        Whose endpoints.
    clock : callable
        Gives the time in seconds since 1970.
    """

    def __init__(self, workspace: Workspace, *, clock: Callable[[], float] = time.time) -> None:
        self._workspace = workspace
        self._clock = clock
        self._registry = Registry(workspace, actor="controller", clock=clock)
        self._audit = Audit(workspace.records, workspace.journal, clock=clock)

    def tick(self) -> dict[str, Verdict]:
        """Look at every gate once, and do what follows.

        Returns
        -------
        dict
            The verdict by endpoint, for those with a canary.
        """
        self._audit.deliver()
        verdicts: dict[str, Verdict] = {}
        for endpoint in self._registry.endpoints():
            if endpoint.canary is None:
                continue
            try:
                verdicts[endpoint.name] = self._look(endpoint, endpoint.canary)
            except (ConflictError, NotFoundError):  # a person was quicker; the next tick sees what they did
                continue
        return verdicts

    def run(
        self, stop: threading.Event, *, every_s: float = EVERY_S, tell: Callable[[str], None] | None = None
    ) -> None:
        """Look again and again until told to stop.

        An error of the database or of one endpoint's records ends one look only: the next one may succeed.

        Parameters
        ----------
        stop : threading.Event
            Ends the loop.
        every_s : float
            Seconds between two looks.
        tell : callable, optional
            Gets one line for each error and each step.
        """
        while not stop.wait(every_s):
            try:
                for name, verdict in self.tick().items():
                    if tell is not None and verdict.action is not Action.WAIT:
                        tell(f"{name}: {verdict.action.value}: {verdict.reason}")
            except TidemillError as error:
                if tell is not None:
                    tell(str(error))

    def _look(self, endpoint: Endpoint, canary: Canary) -> Verdict:
        records = self._workspace.records
        new = read_seen(records, endpoint.name, canary.revision)
        old = read_seen(records, endpoint.name, canary.baseline)
        gate, version = self._gate(endpoint, canary)
        if gate is None:
            gate = Gate.begin(
                canary, new, old, labels=self._labels(endpoint, canary), target_ms=endpoint.target_ms,
                bars=read_bars(self._workspace, endpoint.name),
            )  # fmt: skip
            records.put(GATE, endpoint.name, gate.to_json(), expect=version)
        verdict = judge(gate, canary, new, old, self._clock())
        if verdict.action is Action.BACK:
            self._registry.stop_canary(endpoint.name, verdict.reason, at=canary.step_at, facts=verdict.facts)
        elif verdict.action is Action.STEP:
            facts = {"reason": verdict.reason, **verdict.facts}
            self._registry.step_canary(endpoint.name, at=canary.step_at, facts=facts)
        return verdict

    def _gate(self, endpoint: Endpoint, canary: Canary) -> tuple[Gate | None, int]:
        """Where this step began, if somebody has noted it already, and the version of what is noted."""
        try:
            record = self._workspace.records.get(GATE, endpoint.name)
        except NotFoundError:
            return None, 0
        gate = Gate.from_json(record.body)
        return (gate if gate.step_at == canary.step_at else None), record.version

    def _labels(self, endpoint: Endpoint, canary: Canary) -> list[str]:
        digest = find_revision(endpoint, canary.baseline).bundle
        path = bundles.folder_of(self._workspace.path, digest) / NAME
        try:
            return [str(c) for c in json.loads(path.read_bytes())["task"].get("classes") or ()]
        except (OSError, ValueError, KeyError):  # the canary goes on without this signal; the worker reports the bundle
            return []


def read_bars(workspace: Workspace, endpoint: str) -> Bars:
    """What an endpoint's gate forbids: its own bars, else the usual ones."""
    try:
        return Bars(**workspace.records.get(BARS, endpoint).body)
    except NotFoundError:
        return Bars()


def write_bars(registry: Registry, endpoint: str, values: Mapping[str, Any]) -> Bars:
    """Change what an endpoint's gate forbids, from the next step of a canary on.

    Raises
    ------
    OptionError
        For a bar that is not known or out of its range.
    """
    bars = read_bars(registry.workspace, endpoint).changed(values)
    registry.note(BARS, endpoint, asdict(bars), "gate", {"bars": dict(values)})
    return bars
