"""A workspace with a front in this process, its workers, its watch and its controller; and load that checks answers."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.deploy.engine.conftest import DEADLINE_MS, Running

from tidemill.bundle.runtime import Bundle
from tidemill.deploy.bundles import ID_DIGITS, bundle_hash
from tidemill.deploy.controller import Controller
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.server import Server
from tidemill.deploy.engine.sources import WorkspaceSource
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.deploy.registry import Registry
from tidemill.deploy.watch.observer import Watch
from tidemill.store.workspace import Workspace

NAME = "m"


def until(law: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not law():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def revision_of(folder: Path) -> str:
    return bundle_hash(folder)[:ID_DIGITS]


@dataclass(frozen=True)
class Ask:
    """One request, and whether an answer to it is right."""

    path: str
    body: bytes
    right: Callable[[Any], bool]
    headers: Mapping[str, str] = field(default_factory=dict)


def doubled(rng: random.Random) -> Ask:
    """Ask for the double of a row; bit for bit."""
    row = np.array([rng.gauss(0, 1) for _ in range(4)], np.float32)
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row.tolist()}

    def right(got: Any) -> bool:
        return np.array(got["outputs"][0]["data"], np.float32).tobytes() == (row * 2).tobytes()

    return Ask(f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}).encode(), right)


class Records:
    """Rows for small bundles, with the answers that each of them gives without a server."""

    def __init__(self, *folders: Path, count: int = 40) -> None:
        rng = np.random.default_rng(5)
        self.records = [
            {"size": round(float(a), 3), "colour": "abc"[k % 3], "weight": round(float(b), 3)}
            for k, (a, b) in enumerate(rng.normal(size=(count, 2)))
        ]
        columns = {name: [r[name] for r in self.records] for name in self.records[0]}
        self._wanted: dict[str, list[tuple[str, Any]]] = {}
        for folder in folders:
            opened = Bundle.open(folder)
            labels = [str(v) for v in opened.predict(columns)]
            self._wanted[revision_of(folder)] = list(zip(labels, opened.predict_proba(columns), strict=True))

    def ask(self, rng: random.Random) -> Ask:
        index = rng.randrange(len(self.records))
        return Ask(f"/v1/predict/{NAME}", json.dumps(self.records[index]).encode(), lambda got: self.right(index, got))

    def right(self, index: int, got: Any) -> bool:
        label, shares = self._wanted[got["revision"]][index]
        (row,) = got["predictions"]
        near = np.allclose(list(row["probabilities"].values()), shares, rtol=1e-4, atol=1e-5)
        return bool(near) and str(row["label"]) == label


class Load:
    """Closed loops over kept connections; what is neither right nor expected is remembered."""

    def __init__(self, port: int, ask: Callable[[random.Random], Ask], clients: int = 4) -> None:
        self.ok = 0
        self.wrong: list[Any] = []
        self.lost: list[Any] = []
        self.revisions: Counter[str] = Counter()
        self.last: dict[str, float] = {}
        self._port = port
        self._ask = ask
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._loop, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _loop(self, number: int) -> None:
        rng = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stop.is_set():
            ask, begin = self._ask(rng), time.monotonic()
            try:
                connection.request("POST", ask.path, ask.body, dict(ask.headers))
                answer = connection.getresponse()
                got = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self._lock:
                    self.lost.append(repr(error))
                connection.close()
                continue
            with self._lock:
                self._take(answer.status, answer.getheader("x-revision") or "", got, ask, begin)
        connection.close()

    def _take(self, status: int, revision: str, got: Any, ask: Ask, begin: float) -> None:
        if status != 200:
            self.lost.append((status, got))
        elif not ask.right(got):
            self.wrong.append(got)
        else:
            self.ok += 1
            self.revisions[revision] += 1
            self.last[revision] = max(begin, self.last.get(revision, 0.0))

    def more(self, count: int) -> None:
        """Wait until so many further answers have come."""
        goal = self.ok + count
        until(lambda: self.ok >= goal)

    def assert_whole(self, least: int = 20) -> None:
        """Nothing lost, nothing wrong, and something done."""
        assert (self.lost[:3], self.wrong[:3]) == ([], [])
        assert self.ok >= least


class Site:
    """A workspace that is served in this process, over HTTP, with real workers."""

    def __init__(
        self,
        place: Path,
        *,
        keys: bool = False,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.workspace = Workspace.open(place)
        self.watch = Watch(self.workspace, clock=clock)
        self.ring = KeyRing(self.workspace.records, clock=clock).start() if keys else None
        self.source = WorkspaceSource(self.workspace)
        server = Server(
            self.source, self.watch, None if self.ring is None else self.ring.authorise, limits or Limits(), port=0,
            measure=False,
        )  # fmt: skip
        self.front = Running(server)
        self.registry = Registry(self.workspace, actor="test")
        self.keys = Keys(self.workspace.records, self.workspace.journal, actor="test")
        self._stop = threading.Event()
        self._control: threading.Thread | None = None

    def deploy(self, folder: Path, name: str = NAME, **how: Any) -> str:
        """Deploy a bundle, and wait until it is ready."""
        options = {"deadline_ms": DEADLINE_MS, **how.pop("options", {})}
        revision = self.registry.deploy(folder, name, options=options, **how).id
        until(lambda: next(r.state for r in self.registry.get(name).revisions if r.id == revision) == "ready")
        return revision

    def serves(self, *revisions: str, name: str = NAME) -> None:
        """Wait until these, and no others, get traffic from the front."""
        until(lambda: {m.revision for _, m in self.front.server.serving.find(name).routing} == set(revisions))

    def control(self) -> None:
        """Look at the gates of canaries from now on."""
        controller = Controller(self.workspace)
        self._control = threading.Thread(target=controller.run, args=(self._stop,), kwargs={"every_s": 0.1})
        self._control.start()

    def close(self) -> None:
        self._stop.set()
        if self._control is not None:
            self._control.join(60)
        self.front.stop()
        if self.ring is not None:
            self.ring.close()
        self.watch.close()
        self.source.close()
        self.workspace.close()
