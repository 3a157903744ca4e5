"""Feedback as it comes over HTTP: read strictly, kept before it is acknowledged."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from tidemill.core.errors import InputError, TidemillError
from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.later import Later
from tidemill.deploy.engine.refusal import Refusal, bad_request
from tidemill.deploy.engine.served import Serving
from tidemill.deploy.types import Feedback

_MOST_ITEMS = 10_000


class Told:
    """What callers say was right.

    Parameters
    ----------
    serving : Serving
        The endpoints, and the observer that keeps feedback.
    later : Later
        Answers when it is durable.
    """

    def __init__(self, serving: Serving, later: Later) -> None:
        self._serving = serving
        self._later = later

    def feedback(self, exchange: Exchange, name: str) -> None:
        """Keep what was right, and then say so."""
        served = self._serving.find(name)
        try:
            document = orjson.loads(exchange.body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        self._later(exchange, self._keep(exchange, served.name, read_items(document)))

    async def _keep(self, exchange: Exchange, name: str, items: list[Feedback]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._serving.engine.observer.feedback, name, items)
        except NotImplementedError:
            raise Refusal(
                501, "not_kept", "This server keeps no feedback.", hint="Serve on the platform: tidemill up."
            ) from None
        except InputError:
            raise
        except TidemillError as error:
            raise Refusal(503, "unavailable", str(error), retry_after_s=5) from error
        except OSError as error:
            why = f"The feedback could not be kept ({error.strerror or error})."
            raise Refusal(503, "unavailable", why, retry_after_s=5) from error
        exchange.reply(200, orjson.dumps({"kept": len(items)}))


def read_items(document: Any) -> list[Feedback]:
    """Read the items of a body.

    Raises
    ------
    Refusal
        400 with the item that is wrong.
    """
    rows = document
    if isinstance(document, dict):
        rows = document.get("items", [document])
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_ITEMS:
        raise bad_request(
            f'The body must be {{"items": [{{"request_id", "label"}}, …]}} with 1 to {_MOST_ITEMS:,} items.'
        )
    return [_item(n, row) for n, row in enumerate(rows, start=1)]


def _item(number: int, row: Any) -> Feedback:
    where = f"Item {number}"
    if not isinstance(row, dict) or not isinstance(row.get("request_id"), str) or not row["request_id"]:
        raise bad_request(f'{where} needs a text "request_id": the header X-Request-Id of the answer.')
    if "label" not in row or isinstance(row["label"], (dict, list)):
        raise bad_request(f'{where} needs a "label": a text, a number, true or false.')
    index, note, at = row.get("row", 0), row.get("note", ""), row.get("at", 0.0)
    if type(index) is not int or index < 0:
        raise bad_request(f'"row" of {where.lower()} must be a whole number, 0 or more.')
    if not isinstance(note, str) or len(note) > 10_000:
        raise bad_request(f'"note" of {where.lower()} must be a text of at most 10,000 characters.')
    if not isinstance(at, (int, float)) or isinstance(at, bool):
        raise bad_request(f'"at" of {where.lower()} must be seconds since 1970.')
    return Feedback(row["request_id"], row["label"], index, float(at) or time.time(), note)
