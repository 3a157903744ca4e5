"""Requests that are answered when something they wait for is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from tidemill.core.errors import TidemillError
from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.refusal import Refusal, as_refusal

_log = logging.getLogger(__name__)


class Later:
    """Work on requests beside the loop's other work; whatever it raises becomes the answer."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __call__(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """Begin."""
        task = asyncio.get_running_loop().create_task(self._answered(exchange, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _answered(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except TidemillError as error:
            exchange.refuse(as_refusal(error))
        except Exception:  # noqa: BLE001  the door's edge: a bug must not leave a caller without an answer
            exchange.refuse(bug())


def bug() -> Refusal:
    """Answer for what should not have happened; called where the error is caught, which goes into the log."""
    _log.exception("A request could not be answered.")
    return Refusal(500, "internal", "This is a bug in Tidemill; please report it.")
