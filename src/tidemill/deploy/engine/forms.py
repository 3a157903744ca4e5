"""Requests of a form that was read before: what differs is read, what is the same is not read again.

A client sends the same JSON again and again, with other numbers in it, or the same JSON in front of other raw bytes.
What was found in a request that was read in full (`tidemill.deploy.engine.v2.Codec`) holds for every request of exactly
the same bytes around its numbers. A form that is not known is no error: the request is then read in full.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tidemill.deploy.engine.query import Query

_MOST_TEXTS = 4
_MOST_HEADS = 256
_MOST_LESSONS = 64
"""Texts that are looked at more closely: clients that never send the same form twice shall not cost more for it."""
_LONGEST = 2048
_MARK = 0.0078125
_Wanted = tuple[tuple[int, bool], ...] | None


@dataclass(frozen=True, slots=True)
class _Text:
    """JSON with one flat list of numbers: the bytes before and behind them."""

    before: bytes
    behind: bytes
    start: int
    rest: int
    code: str
    widened: bool
    values: int
    rows: int
    shapes: tuple[tuple[int, ...], ...]
    outputs: _Wanted


class Forms:
    """The forms in which requests to one model came."""

    def __init__(self) -> None:
        self._texts: tuple[_Text, ...] = ()
        self._heads: dict[bytes, tuple[int, int, tuple[tuple[int, ...], ...], _Wanted]] = {}
        self._lessons = 0

    # ---------------------------------------------------------------------------------------------------------- JSON

    def read_text(self, body: bytes) -> Query | None:
        """Read a request of JSON alone; None where its form is not known."""
        for form in self._texts:
            if body.startswith(form.before) and body.endswith(form.behind):
                try:
                    values = array(form.code, orjson.loads(body[form.start : len(body) - form.rest]))
                except (TypeError, ValueError):  # not what stands there otherwise: it is read in full, and told
                    return None
                if len(values) != form.values:
                    return None
                if form.widened:
                    values = array("d", values)
                return Query(form.rows, [values.tobytes()], form.shapes, None, form.outputs)
        return None

    def learn_text(self, body: bytes, document: Mapping[str, Any], query: Query, code: str, *, widened: bool) -> None:
        """Remember a request that holds one tensor of numbers in one flat list.

        That the list begins and ends where it seems to is proven: with another number there, all the rest reads as it
        did.

        Parameters
        ----------
        body : bytes
            The request.
        document : mapping
            The same, parsed.
        query : Query
            What was made of it.
        code : str
            Type of its numbers for `array.array`.
        widened : bool
            True where they go on as doubles.
        """
        if self._lessons >= _MOST_LESSONS:
            return
        self._lessons += 1
        at = body.find(b"[", body.find(b'"data"')) + 1
        end = body.find(b"]", at)
        if not 0 < at <= end or at + len(body) - end > _LONGEST:
            return
        before, behind = body[:at], body[end:]
        wanted = {**document, "inputs": [{**document["inputs"][0], "data": [_MARK]}]}
        try:
            proven = orjson.loads(b"%b%a%b" % (before, _MARK, behind)) == wanted
        except orjson.JSONDecodeError:
            return
        if proven:
            values = len(document["inputs"][0]["data"])
            form = _Text(
                before, behind, len(before) - 1, len(behind) - 1, code, widened, values, query.rows, query.shapes,
                query.outputs,
            )  # fmt: skip
            self._texts = (form, *self._texts[: _MOST_TEXTS - 1])

    # -------------------------------------------------------------------------------------------------------- binary

    def read_binary(self, body: bytes, json_bytes: int) -> Query | None:
        """Read a request of JSON and one raw tensor; None where its JSON is not known."""
        known = self._heads.get(body[:json_bytes])
        if known is None:
            return None
        size, rows, shapes, outputs = known
        if len(body) - json_bytes != size:
            return None
        return Query(rows, [memoryview(body)[json_bytes:]], shapes, None, outputs)

    def learn_binary(self, head: bytes, size: int, query: Query) -> None:
        """Remember the JSON of a request whose only tensor goes on as the ``size`` raw bytes that follow it."""
        if len(head) > _LONGEST:
            return
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[head] = size, query.rows, query.shapes, query.outputs
