"""Feedback as it comes over HTTP: read strictly, kept before it is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from tidemill.core.errors import InputError, TidemillError
from tidemill.core.task import JOINT, TaskKind
from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.later import Later
from tidemill.deploy.engine.refusal import Refusal, bad_request
from tidemill.deploy.engine.served import Served, Serving
from tidemill.deploy.labels import label_text
from tidemill.deploy.types import Feedback

_MOST_ITEMS = 10_000
MOST_LABELS = 1000
"""Labels of one row; as many as `tidemill.data.multilabel` takes, which a front never loads."""
_NOTICES = 10


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
        items = read_items(document, lists=takes_lists(served))
        self._later(exchange, self._keep(exchange, served.name, items))

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
        notices = repeated(items)
        exchange.reply(200, orjson.dumps({"kept": len(items), **({"notices": notices} if notices else {})}))


def takes_lists(served: Served) -> bool:
    """Whether a revision may give a row several labels; True where nothing is known of one."""
    specs = [model.facts.spec for model in served.models]
    return not specs or any(spec is None or spec.task.kind is TaskKind.MULTILABEL for spec in specs)


def read_items(document: Any, *, lists: bool = True) -> list[Feedback]:
    """Read the items of a body.

    Parameters
    ----------
    document : Any
        The body.
    lists : bool
        Whether a row may have several labels.

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
    return [_item(n, row, lists) for n, row in enumerate(rows, start=1)]


def repeated(items: Sequence[Feedback]) -> list[str]:
    """Say which labels stand more than once in a list; each counts once.

    Examples
    --------
    >>> repeated([Feedback("r", ["sea", "boat", " sea"])])
    ["Item 1 names the label 'sea' 2 times; it counts once."]
    """
    found = [
        f"Item {number} names the label {label!r} {count} times; it counts once."
        for number, item in enumerate(items, start=1)
        if isinstance(item.label, list)
        for label, count in Counter(map(label_text, item.label)).items()
        if count > 1
    ]
    more = len(found) - _NOTICES
    return found if more <= 0 else [*found[:_NOTICES], f"{more:,} more labels stand more than once."]


def _item(number: int, row: Any, lists: bool) -> Feedback:
    where = f"Item {number}"
    if not isinstance(row, dict) or not isinstance(row.get("request_id"), str) or not row["request_id"]:
        raise bad_request(f'{where} needs a text "request_id": the header X-Request-Id of the answer.')
    if "label" not in row or isinstance(row["label"], (dict, *([] if lists else [list]))):
        also = ", or a list of these" if lists else ""
        raise bad_request(f'{where} needs a "label": a text, a number, true or false{also}.')
    if isinstance(row["label"], list):
        _check_labels(f'"label" of {where.lower()}', row["label"])
    index, note, at = row.get("row", 0), row.get("note", ""), row.get("at", 0.0)
    if type(index) is not int or index < 0:
        raise bad_request(f'"row" of {where.lower()} must be a whole number, 0 or more.')
    if not isinstance(note, str) or len(note) > 10_000:
        raise bad_request(f'"note" of {where.lower()} must be a text of at most 10,000 characters.')
    if not isinstance(at, (int, float)) or isinstance(at, bool):
        raise bad_request(f'"at" of {where.lower()} must be seconds since 1970.')
    return Feedback(row["request_id"], row["label"], index, float(at) or time.time(), note)


def _check_labels(where: str, labels: Sequence[Any]) -> None:
    """Refuse what no row can have: too many labels, such as are none, or such as no answer can hold."""
    if len(labels) > MOST_LABELS:
        raise bad_request(f"{where} has {len(labels):,} labels; at most {MOST_LABELS:,} are kept.")
    for label in labels:
        if not isinstance(label, (str, int, float)):
            raise bad_request(f"{where} must be a list of texts, numbers, true or false, and nothing else.")
        text = label_text(label)
        if not text:
            raise bad_request(f"{where} has an empty label; a row to which none applies has an empty list.")
        if JOINT in text:
            raise bad_request(f"{where} has the label {text[:60]!r}, but {JOINT!r} stands between labels in answers.")
