"""Takes canaries from step to step. What it must know stands in records: end it at any moment, start two of it."""

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
    steady : callable, optional
        Gives seconds on a clock that nobody sets; default the machine's, or ``clock`` where it is given.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._steady = steady or (time.monotonic if clock is time.time else clock)
        self._met: dict[str, tuple[float, float, float]] = {}
        self.problems: dict[str, str] = {}
        self._registry = Registry(workspace, actor="controller", clock=clock)
        self._audit = Audit(workspace.records, workspace.journal, clock=clock)

    def tick(self) -> dict[str, Verdict]:
        """Look at every gate once, and do what follows.

        Returns
        -------
        dict
            The verdict by endpoint, for those with a canary. One whose records can't be read has none, holds no other
            up, and stands in `problems`.
        """
        self._audit.deliver()
        verdicts: dict[str, Verdict] = {}
        self.problems = {}
        for endpoint in self._registry.endpoints():
            if endpoint.canary is None:
                continue
            try:
                verdicts[endpoint.name] = self._look(endpoint, endpoint.canary)
            except (ConflictError, NotFoundError):  # a person was quicker; the next tick sees what they did
                continue
            except (TidemillError, KeyError, TypeError, ValueError) as error:  # of another version, or damaged
                self.problems[endpoint.name] = f"{endpoint.name}: its canary can't be judged ({error})."
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
            Gets one line for each error and each step; one that stays is told once.
        """
        told: dict[str, str] = {}
        while not stop.wait(every_s):
            try:
                for name, verdict in self.tick().items():
                    if tell is not None and verdict.action is not Action.WAIT:
                        tell(f"{name}: {verdict.action.value}: {verdict.reason}")
                for name, problem in self.problems.items():
                    if tell is not None and told.get(name) != problem:
                        tell(problem)
                told = self.problems
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
        verdict = judge(gate, canary, new, old, canary.step_at + self._passed(endpoint.name, canary))
        if verdict.action is Action.BACK:
            self._registry.stop_canary(endpoint.name, verdict.reason, at=canary.step_at, facts=verdict.facts)
        elif verdict.action is Action.STEP:
            facts = {"reason": verdict.reason, **verdict.facts}
            self._registry.step_canary(endpoint.name, at=canary.step_at, facts=facts)
        return verdict

    def _passed(self, endpoint: str, canary: Canary) -> float:
        """Seconds of this step. From the first look on they are counted by a clock that nobody sets.

        Were the machine's time set forward by an hour, a step would otherwise open long before it should.
        """
        now = self._steady()
        met = self._met.get(endpoint)
        if met is None or met[0] != canary.step_at:
            met = self._met[endpoint] = (canary.step_at, max(0.0, self._clock() - canary.step_at), now)
        return met[1] + now - met[2]

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
