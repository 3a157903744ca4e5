"""Rows whose cell is a text that the worker reads: JSON records by column name, or one text as it is."""

from __future__ import annotations

from typing import Any

import orjson

from tidemill.core.schema import Column
from tidemill.core.task import Task
from tidemill.deploy.engine.answers import answers_of
from tidemill.deploy.engine.completing import Completion
from tidemill.deploy.engine.layout import ENCODED
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.records import cells_of, texts_of
from tidemill.deploy.engine.refusal import bad_request, invalid_input
from tidemill.deploy.engine.wire import join_texts


class TextCodec:
    """Reads texts for one bundle and writes labels and probabilities.

    Parameters
    ----------
    column : Column
        Whose cells they are.
    task : Task
        Of the bundle.

    Examples
    --------
    >>> from tidemill.core.schema import SemanticType
    >>> from tidemill.core.task import TaskKind
    >>> codec = TextCodec(Column("review", SemanticType.TEXT), Task(TaskKind.REGRESSION, "y"))
    >>> codec.read(b'[{"review": "good"}, {"review": null}]', b"").rows
    2
    """

    def __init__(self, column: Column, task: Task) -> None:
        self.column = column.name
        self.task = task

    def read(self, body: bytes, content_type: bytes, completion: Completion | None = None) -> Query:
        """Read a body; one of the type ``text/plain`` is a text. A cell that is missing is an empty text.

        Raises
        ------
        Refusal
            400 with what is wrong.
        """
        if content_type.partition(b";")[0].strip().lower() == b"text/plain":
            try:
                return self._query([body.decode("utf-8")])
            except UnicodeDecodeError:
                raise bad_request("The text is no UTF-8.") from None
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        cells = cells_of(document, self.column)
        for row, cell in enumerate(cells, start=1):
            if isinstance(cell, (dict, list)):
                raise invalid_input(f"Column {self.column!r}, row {row:,}: {str(cell)[:60]!r} is not a text.")
        kinds = {type(cell) for cell in cells if cell is not None}
        return self._query([text or "" for text in texts_of(cells, kinds)])

    @staticmethod
    def _query(texts: list[str]) -> Query:
        return Query(len(texts), [join_texts(texts)], ENCODED)

    def answers(self, outputs: Outputs, start: int, stop: int) -> list[dict[str, Any]]:
        """Labels and probabilities, or values, for some rows of a batch."""
        return answers_of(self.task, outputs, start, stop)
