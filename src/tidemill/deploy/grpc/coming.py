"""Reads the messages of calls, and bounds what lies in the library while they come.

The library tells of a message when all of it is there, and never how long it will be. So it may take no more than a
small window of a message that nobody asks for. When it is asked for, a message mostly is there at once. One that is not
counts as the largest one from then on, or is refused where there is no room for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from tidemill.deploy.engine.http import Hub
from tidemill.deploy.engine.refusal import Refusal, bad_request

WINDOW_BYTES = 1 << 16
"""What the library takes of a message before it is asked for."""
_QUICK_S = 1.0
"""A message that takes longer to come counts. Until then, the line alone bounds how much of it comes."""
_LATE_S = 0.1
_FEWEST = 64

Refuse = Callable[[Any, Refusal], Awaitable[None]]


class Full(Refusal):
    """Too much is under way; through both doors together."""


class Coming:
    """Messages that are coming, of all calls of a front.

    Parameters
    ----------
    hub : Hub
        Of the HTTP door: bodies under way are counted there, whichever door they came through.
    refuse : callable
        Ends a call by its context, with a refusal; hears of no error.
    """

    def __init__(self, hub: Hub, refuse: Refuse) -> None:
        self.hub = hub
        self.refuse = refuse
        self.most = max(_FEWEST, hub.most_held // 4 // WINDOW_BYTES)
        """Of messages that don't count: their windows hold a quarter of the bound on bodies."""
        self.young: dict[_Message, None] = {}
        """Those that don't count yet, the oldest first."""
        self.slow = 0
        """How many count."""

    async def read(self, context: Any) -> bytes:
        """Give the message of a call.

        Parameters
        ----------
        context : grpc.aio.ServicerContext
            Of a call that nothing was read from.

        Raises
        ------
        Refusal
            Where the call ends without a message.
        grpc.aio.AbortError
            Where it was refused while it came: the call is answered.
        """
        if len(self.young) >= self.most:
            # Most messages are there at once: the oldest is of somebody who lets us wait.
            next(iter(self.young)).end(Full(503, "unavailable", "Too many messages are coming.", retry_after_s=1))
        message = _Message(self, context)
        try:
            data = await context.read()
        finally:
            message.close()
        if data is grpc.aio.EOF:
            raise bad_request("A call needs one message.")
        return bytes(data)

    def room(self) -> None:
        """Raise where there is none for one more slow message: small ones always keep a quarter."""
        hub = self.hub
        most, one = hub.most_held, hub.limits.body_bytes
        if hub.held + one > most or (self.slow and (self.slow + 1) * one > most * 3 // 4):
            raise too_much(hub)


class _Message:
    """One that is coming."""

    __slots__ = ("_again", "_coming", "_context", "_ending", "_held", "_loop", "_timer")

    def __init__(self, coming: Coming, context: Any) -> None:
        self._coming = coming
        self._context = context
        self._held = 0
        self._again = False
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_QUICK_S, self._is_slow)
        coming.young[self] = None

    def _is_slow(self) -> None:
        coming = self._coming
        if not self._again and self._loop.time() - self._timer.when() > _LATE_S:
            # This process stood still: the message may be there, and nobody had the time to see it.
            self._again = True
            self._timer = self._loop.call_later(_QUICK_S, self._is_slow)
            return
        try:
            coming.room()
        except Refusal as why:
            self.end(why)
            return
        del coming.young[self]
        coming.slow += 1
        self._held = coming.hub.limits.body_bytes
        coming.hub.held += self._held
        late = Refusal(408, "too_slow", "The message did not come in time.")
        self._timer = self._loop.call_later(max(0.0, coming.hub.limits.body_s - _QUICK_S), self.end, late)

    def end(self, why: Refusal) -> None:
        """Refuse it."""
        self._timer.cancel()
        self._coming.young.pop(self, None)
        # The reading is not cancelled: what has come would never be let go. It ends with the call.
        self._ending = self._loop.create_task(self._refuse(why))

    async def _refuse(self, why: Refusal) -> None:
        with contextlib.suppress(grpc.aio.AbortError):  # it is raised to whoever reads, too
            await self._coming.refuse(self._context, why)

    def close(self) -> None:
        """It is whole, or will never be."""
        self._timer.cancel()
        self._coming.young.pop(self, None)
        if self._held:
            self._coming.slow -= 1
            self._coming.hub.held -= self._held
            self._held = 0


def too_much(hub: Hub) -> Full:
    """No room in what all bodies may hold together."""
    told = f"The bodies of all requests together may have {hub.most_held:,} bytes."
    return Full(503, "unavailable", told, retry_after_s=1)
