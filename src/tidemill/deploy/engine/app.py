"""Which path means what, and who may ask; what is asked is answered next door.

`predictions` answers the v2 protocol and rows for people, `told` takes feedback, `about` tells of models and pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from tidemill.core.errors import TidemillError
from tidemill.deploy.engine.about import About
from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.heads import key_of
from tidemill.deploy.engine.later import Later, bug
from tidemill.deploy.engine.predictions import RECORDS, V2, Predictions
from tidemill.deploy.engine.refusal import Refusal, as_refusal, bad_request
from tidemill.deploy.engine.served import Serving
from tidemill.deploy.engine.told import Told

Authorise = Callable[["str | None", str, str], "Awaitable[None] | None"]
"""Checks a key (None where there is none) for a scope and an endpoint; raises where it may not."""

_MOST_ROUTES = 4096
_Route = tuple[Callable[..., None], tuple[Any, ...]]


class App:
    """Answers requests.

    Parameters
    ----------
    serving : Serving
        The endpoints and their models.
    authorise : callable, optional
        Checks keys; None lets everybody in.
    """

    def __init__(self, serving: Serving, authorise: Authorise | None = None) -> None:
        self._authorise = authorise
        self._clock = serving.engine.clock
        self._later = Later()
        self._predictions = Predictions(serving, self._later)
        self._told = Told(serving, self._later)
        self._about = About(serving, self._later, secured=authorise is not None)
        self._open = frozenset((self._about.live, self._about.ready, self._about.page))
        self._routes: dict[bytes, _Route] = {}
        self._asked = self._predict  # one bound method, told apart by identity
        self._ask = self._predictions.ask

    @property
    def draining(self) -> bool:
        """True where it takes nothing new."""
        return self._predictions.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._predictions.draining = self._about.draining = value

    @property
    def under_way(self) -> int:
        """Predictions that are not answered yet."""
        return self._predictions.under_way

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        try:
            found = self._routes.get(exchange.target) or self._route(exchange.target)
            if found[0] is self._asked and exchange.method == b"POST" and self._authorise is None:
                self._ask(exchange, *found[1])
            else:
                found[0](exchange, *found[1])
        except TidemillError as error:
            exchange.refuse(as_refusal(error))
        except Exception:  # noqa: BLE001  the door's edge: a bug must not leave a caller without an answer
            exchange.refuse(bug())

    def _route(self, target: bytes) -> _Route:
        path = target.partition(b"?")[0]
        try:
            parts = [unquote(p.decode("ascii"), errors="strict") for p in path.split(b"/")[1:]]
        except (UnicodeDecodeError, ValueError):
            raise bad_request("The path can't be read.") from None
        found = self._find(parts)
        if found is None:
            raise Refusal(404, "not_found", f"There is nothing at {path.decode('ascii', 'replace')[:200]!r}.")
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[target] = found
        return found

    def _find(self, parts: list[str]) -> _Route | None:
        about = self._about
        match parts:
            case ["v2"] | ["v2", ""]:
                return self._get, (about.server,)
            case ["v2", "health", "live"] | ["healthz"]:
                return self._get, (about.live,)
            case ["v2", "health", "ready"]:
                return self._get, (about.ready,)
            case ["v2", "models", name]:
                return self._get, (about.metadata, name, "")
            case ["v2", "models", name, "versions", version]:
                return self._get, (about.metadata, name, version)
            case ["v2", "models", name, "ready"]:
                return self._get, (about.model_ready, name, "")
            case ["v2", "models", name, "versions", version, "ready"]:
                return self._get, (about.model_ready, name, version)
            case ["v2", "models", name, "infer"]:
                return self._asked, (V2, name, "")
            case ["v2", "models", name, "versions", version, "infer"]:
                return self._asked, (V2, name, version)
            case ["v1", "predict", name]:
                return self._asked, (RECORDS, name, "")
            case ["v2", "models", name, "feedback"] | ["v1", "feedback", name]:
                return self._post, ("feedback", self._told.feedback, name)
            case ["v2", "repository", "index"]:
                return self._post, ("predict", about.index, "")
            case ["v2", "repository", "models", name, ("load" | "unload") as verb]:
                return self._post, ("deploy", about.load if verb == "load" else about.unload, name)
            case ["openapi.json"]:
                return self._get, (about.openapi,)
            case ["metrics"]:
                return self._get, (about.metrics,)
            case [""] | ["try"]:
                return self._get, (about.page,)
        return None

    def _get(self, exchange: Exchange, answer: Callable[..., None], *arguments: Any) -> None:
        if exchange.method not in (b"GET", b"HEAD"):
            _wrong_method(exchange, b"GET, HEAD")
            return
        if self._authorise is None or answer in self._open:
            answer(exchange, *arguments)
            return
        scope = "admin" if answer == self._about.metrics else "predict"
        name = str(arguments[0]) if arguments else ""
        self._guarded(exchange, scope, name, lambda: answer(exchange, *arguments))

    def _post(self, exchange: Exchange, scope: str, answer: Callable[..., None], name: str) -> None:
        if exchange.method != b"POST":
            _wrong_method(exchange, b"POST")
            return
        self._guarded(exchange, scope, name, lambda: answer(exchange, name))

    def _predict(self, exchange: Exchange, form: str, name: str, version: str) -> None:
        if exchange.method != b"POST":
            _wrong_method(exchange, b"POST")
            return
        if self._authorise is not None:
            waiting = self._authorise(key_of(exchange.headers), "predict", name)
            if waiting is not None:
                self._later(exchange, self._checked(waiting, lambda: self._ask(exchange, form, name, version)))
                return
        self._ask(exchange, form, name, version)

    def _guarded(self, exchange: Exchange, scope: str, name: str, go_on: Callable[[], None]) -> None:
        """Go on where the key allows it; what is asked of a database is awaited beside the loop's other work."""
        if self._authorise is None:
            go_on()
            return
        waiting = self._authorise(key_of(exchange.headers), scope, name)
        if waiting is None:
            go_on()
            return
        self._later(exchange, self._checked(waiting, go_on))

    @staticmethod
    async def _checked(waiting: Awaitable[None], go_on: Callable[[], None]) -> None:
        await waiting
        go_on()

    async def settle(self, seconds: float) -> None:
        """Wait until nothing is under way, at most so long."""
        end = self._clock() + seconds
        while (self.under_way or len(self._later)) and self._clock() < end:
            await asyncio.sleep(0.01)


def _wrong_method(exchange: Exchange, allowed: bytes) -> None:
    why = Refusal(405, "method_not_allowed", f"Only {allowed.decode()} goes here.")
    exchange.refuse(why, b"allow: %b\r\n" % allowed)
