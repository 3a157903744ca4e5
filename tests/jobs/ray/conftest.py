"""A Ray of threads: what `RayExecutor` asks of Ray, without its processes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from tidemill.jobs.executors.ray.cluster import Cluster


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's: something was raised where it ran."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"Traceback: {cause!r}")
        self.cause = cause


@dataclass
class FakeNode:
    """A node with a number of cores."""

    name: str
    cpus: int
    gpus: int = 0
    alive: bool = True
    used: int = 0


class FakeActor:
    """An object with threads of its own; every call gives a future."""

    def __init__(self, ray: FakeRay, make: Callable[[], Any], options: dict[str, Any]) -> None:
        self.ray, self.make, self.options = ray, make, options
        self.node: FakeNode | None = None
        self.dead = False
        self.held: Any = None
        self.calls: list[tuple[Future[Any], str, tuple[Any, ...]]] = []
        self.open: list[Future[Any]] = []
        self.threads = ThreadPoolExecutor(options["max_concurrency"])

    def __getattr__(self, name: str) -> Any:
        actor = self

        class Method:
            def remote(self, *args: Any) -> Future[Any]:
                return actor.call(name, args)

        return Method()

    def call(self, name: str, args: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        self.open.append(future)
        if self.dead:
            future.set_exception(RayError("The actor is dead."))
        elif self.node is None:
            self.calls.append((future, name, args))
        else:
            self.threads.submit(self._run, future, name, args)
        return future

    def sit(self, node: FakeNode) -> None:
        self.node = node
        node.used += self.options["num_cpus"]
        calls, self.calls = self.calls, []
        for future, name, args in calls:
            self.threads.submit(self._run, future, name, args)

    def _run(self, future: Future[Any], name: str, args: tuple[Any, ...]) -> None:
        self.ray.local.node = self.node
        try:
            with self.ray.making:
                if self.held is None:
                    self.held = self.make()
            value = getattr(self.held, name)(*args)
        except BaseException as error:  # noqa: BLE001  a worker's edge
            self._tell(future, error=RayTaskError(error))
        else:
            self._tell(future, value)

    @staticmethod
    def _tell(future: Future[Any], value: Any = None, error: Exception | None = None) -> None:
        with suppress(InvalidStateError):  # it was lost in the meantime
            future.set_result(value) if error is None else future.set_exception(error)

    def end(self, why: str) -> None:
        if self.dead:
            return
        self.dead = True
        if self.node is not None:
            self.node.used -= self.options["num_cpus"]
        for future in self.open:
            if not future.done():
                self._tell(future, error=RayError(f"The actor died.\n{why}"))
        if self.held is not None:
            self.held.close()
        self.threads.shutdown(wait=True)


@dataclass
class FakeRay:
    """The part of Ray's face that is used."""

    cluster: list[FakeNode]
    puts: list[bytes] = field(default_factory=list)
    actors: list[FakeActor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.local = threading.local()
        self.making = threading.Lock()
        self.exceptions = ModuleType("ray.exceptions")
        self.exceptions.__dict__.update(RayError=RayError, RayTaskError=RayTaskError)

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": n.alive, "Resources": {"CPU": float(n.cpus), "GPU": float(n.gpus)}} for n in self.cluster]

    def get_runtime_context(self) -> Any:
        class Context:
            def get_node_id(inner) -> str:
                return str(getattr(self.local, "node", self.cluster[0]).name)

        return Context()

    def put(self, value: bytes) -> Future[bytes]:
        self.puts.append(value)
        future: Future[bytes] = Future()
        future.set_result(value)
        return future

    def remote(self, kind: type) -> Any:
        ray = self

        class Remote:
            def options(self, **options: Any) -> Any:
                class Made:
                    def remote(self, *args: Any) -> FakeActor:
                        actor = FakeActor(ray, lambda: kind(*args), options)
                        ray.actors.append(actor)
                        ray.seat()
                        return actor

                return Made()

        return Remote()

    def seat(self) -> None:
        """Give actors that wait a place, on the node with the most room."""
        for actor in self.actors:
            if actor.node is None and not actor.dead:
                need = actor.options["num_cpus"]
                rooms = [n for n in self.cluster if n.alive and n.cpus - n.used >= need]
                if rooms:
                    actor.sit(max(rooms, key=lambda n: n.cpus - n.used))

    def get(self, reference: Future[Any]) -> Any:
        return reference.result()

    def wait(
        self, references: list[Future[Any]], *, num_returns: int, timeout: float | None
    ) -> tuple[list[Future[Any]], list[Future[Any]]]:
        when = FIRST_COMPLETED if num_returns < len(references) else ALL_COMPLETED
        done = wait(references, timeout, when).done
        ready = [r for r in references if r in done][:num_returns]
        return ready, [r for r in references if r not in ready]

    def kill(self, actor: FakeActor) -> None:
        actor.end("It was killed.")
        self.seat()

    def lose(self, node: FakeNode) -> None:
        """End a node with all that is on it."""
        node.alive = False
        for actor in [a for a in self.actors if a.node is node]:
            actor.end(f"The node {node.name} died.")
        self.seat()


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """Two nodes with a core each; this process is on the first."""
    ray = FakeRay([FakeNode("here", 1), FakeNode("there", 1)])
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]  # it has the face of one
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    yield ray
    for actor in ray.actors:
        actor.end("The test is over.")


@pytest.fixture
def fake_cluster(fake_ray: FakeRay) -> Cluster:
    return Cluster(fake_ray, owned=False)  # type: ignore[arg-type]  # the same
