"""What a front tells of itself and of its models; and its models let go and taken back."""

from __future__ import annotations

import asyncio

import orjson

from tidemill import __version__
from tidemill.deploy.engine import openapi, page
from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.heads import key_of
from tidemill.deploy.engine.later import Later
from tidemill.deploy.engine.model import Model, State
from tidemill.deploy.engine.served import Served, Serving

_SERVER = {"name": "tidemill", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_HTML = b"text/html; charset=utf-8"


class About:
    """Answers about a front and its models.

    Parameters
    ----------
    serving : Serving
        The endpoints and their models.
    later : Later
        Answers when what is asked for is there.
    secured : bool
        True where requests need a key.
    """

    def __init__(self, serving: Serving, later: Later, *, secured: bool) -> None:
        self._serving = serving
        self._later = later
        self._secured = secured
        self.draining = False

    def server(self, exchange: Exchange) -> None:
        """Name, version and extensions."""
        exchange.reply(200, orjson.dumps(_SERVER))

    def live(self, exchange: Exchange) -> None:
        """Say that it runs."""
        exchange.reply(200, b'{"live":true}')

    def ready(self, exchange: Exchange) -> None:
        """Say whether every model can answer."""
        ready = not self.draining and self._serving.ready
        exchange.reply(200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false}')

    def metadata(self, exchange: Exchange, name: str, version: str) -> None:
        """Say what a model takes and gives."""
        served = self._serving.find(name)
        model = served.version(version) if version else served.main
        if model.codec is None:
            self._later(exchange, self._metadata_later(exchange, served, model))
            return
        exchange.reply(200, orjson.dumps(model.codec.metadata(served.versions)))

    async def _metadata_later(self, exchange: Exchange, served: Served, model: Model) -> None:
        await self._serving.prepared(model)
        assert model.codec is not None
        exchange.reply(200, orjson.dumps(model.codec.metadata(served.versions)))

    def model_ready(self, exchange: Exchange, name: str, version: str) -> None:
        """Say whether a model can answer."""
        served = self._serving.find(name)
        model = served.version(version) if version else served.main
        ready = model.state is State.READY and model.on
        body = {"name": name, "ready": ready} | ({"reason": model.problem} if model.problem else {})
        exchange.reply(200 if ready else 503, orjson.dumps(body))

    def index(self, exchange: Exchange, _: str) -> None:
        """List all models."""
        rows = []
        for served in self._serving.all():
            for model in served.models:
                ready = model.state is State.READY and model.on
                rows.append(
                    {
                        "name": served.name,
                        "version": model.revision,
                        "state": "READY" if ready else "LOADING" if model.state is State.CHECKING else "UNAVAILABLE",
                        "reason": model.problem or ("" if model.on else "unloaded"),
                    }
                )
        exchange.reply(200, orjson.dumps(rows))

    def load(self, exchange: Exchange, name: str) -> None:
        """Let an unloaded endpoint answer again."""
        self._later(exchange, self._turn(exchange, name, on=True))

    def unload(self, exchange: Exchange, name: str) -> None:
        """Let the models of an endpoint go."""
        self._later(exchange, self._turn(exchange, name, on=False))

    async def _turn(self, exchange: Exchange, name: str, *, on: bool) -> None:
        actor = _actor(exchange) if self._secured else "local"
        await self._serving.turn(self._serving.find(name), actor, on=on)
        exchange.reply(200, b"{}")

    def openapi(self, exchange: Exchange) -> None:
        """Describe the interface with the models' own columns."""
        exchange.reply(200, orjson.dumps(openapi.document(self._serving.all(), secured=self._secured)))

    def page(self, exchange: Exchange) -> None:
        """Show the page on which people try models."""
        exchange.reply(200, page.read(), _HTML, page.HEADERS)

    def metrics(self, exchange: Exchange) -> None:
        """Counters as Prometheus text."""
        self._later(exchange, self._render(exchange))

    async def _render(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(None, self._serving.engine.observer.render_metrics)
        exchange.reply(200, (text + self._serving.metrics()).encode(), _TEXT)


def _actor(exchange: Exchange) -> str:
    """Who asks, for the audit log: the key was checked before, and its id is a part of it."""
    from tidemill.deploy.keys import AccessError, token_id

    try:
        return f"key:{token_id(key_of(exchange.headers))}"
    except AccessError:  # another kind of key than ours was let in
        return "unknown"
