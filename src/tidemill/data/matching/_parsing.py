"""The text of a condition: read by sqlglot once it is sure that it is one question, and shown where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import ParseError, TokenError

from tidemill.core.errors import PredicateError

_DIALECT = "duckdb"
_LONGEST = 200_000
_STATEMENTS = frozenset({
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "CALL", "CHECKPOINT", "COMMENT", "COMMIT", "COPY", "CREATE", "DELETE",
    "DESCRIBE", "DETACH", "DROP", "EXECUTE", "EXPLAIN", "EXPORT", "FROM", "GRANT", "IMPORT", "INSERT", "INSTALL",
    "KILL", "LOAD", "MERGE", "PIVOT", "PRAGMA", "PREPARE", "REFRESH", "RENAME", "REPLACE", "RESET", "REVOKE",
    "ROLLBACK", "SELECT", "SET", "SHOW", "SUMMARIZE", "TRUNCATE", "UPDATE", "UPSERT", "USE", "VACUUM", "VALUES",
    "WITH",
})  # fmt: skip


class Text:
    """A condition as it was written.

    Parameters
    ----------
    text : str
        The condition.
    kinds : mapping of str to type
        Kind of every column that it may ask for.
    """

    def __init__(self, text: str, kinds: Mapping[str, type]) -> None:
        self.text = text
        self.kinds = kinds

    def parse(self) -> exp.Expression:
        """Let sqlglot read the text, once it is sure that it is one question."""
        if not self.text.strip():
            raise self.error("The condition is empty.", 0, hint="Write one, such as: age between 20 and 30.")
        if len(self.text) > _LONGEST:
            raise PredicateError(f"The condition has {len(self.text):,} characters; {_LONGEST:,} are allowed.")
        tokens = self._tokens()
        self._refuse_statements(tokens)
        try:
            found = sqlglot.parse(self.text, dialect=_DIALECT)
        except ParseError as error:
            raise self._unreadable(error) from None
        if len(found) != 1 or found[0] is None:
            raise self.error("The condition is empty.", 0, hint="Write one, such as: age between 20 and 30.")
        return cast(exp.Expression, found[0])

    def _tokens(self) -> list[Token]:
        try:
            return list(sqlglot.tokenize(self.text, dialect=_DIALECT))
        except TokenError:
            # The tokenizer doesn't say where: a quote that is opened and never closed is all that it refuses.
            at = _open_quote(self.text)
            raise self.error("A quote is opened here and never closed.", at, hint="Close it.") from None

    def _refuse_statements(self, tokens: list[Token]) -> None:
        for i, token in enumerate(tokens):
            if token.token_type == TokenType.SEMICOLON and i + 1 < len(tokens):
                raise self.error("A condition is one question; after `;` another statement begins.", token.start)
        first = tokens[0]
        word = first.text.upper()
        if word in _STATEMENTS and first.token_type != TokenType.IDENTIFIER:
            if first.text in self.kinds:
                hint = f'Write the column in double quotes: "{first.text}".'
                raise self.error(f"{word} begins a statement.", first.start, hint=hint)
            raise self.error(
                f"A condition only asks which rows; {word} is a statement.", first.start,
                hint="Write only what follows WHERE, such as: age > 30.",
            )  # fmt: skip

    def _unreadable(self, error: ParseError) -> PredicateError:
        told = error.errors[0] if error.errors else {}
        at = self._offset(told.get("line") or 1, told.get("col") or 1)
        what = str(told.get("description") or error).split(" for <class", maxsplit=1)[0].rstrip(".")
        if what.startswith("Required keyword"):
            what = "Something is missing after this"
        return self.error(
            f"The condition can't be read: {what}.", at, hint="Compare with: age > 30 and region = 'north'."
        )

    def _offset(self, line: int, column: int) -> int:
        """Offset of the last character of a token from its line and column (both from 1)."""
        before = sum(len(text) + 1 for text in self.text.split("\n")[: line - 1])
        return max(0, min(before + column - 1, len(self.text)))

    # -------------------------------------------------------------------------------------------------------- errors

    def error(self, message: str, at: int, *, hint: str | None = None) -> PredicateError:
        """Give an error that shows the condition and a place in it."""
        return PredicateError(message, text=self.text, position=at, hint=hint)

    def at(self, node: exp.Expression) -> int:
        """Offset of the first character of a part of the condition."""
        starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
        return min(starts, default=0)

    def fail(self, node: exp.Expression, message: str, hint: str | None = None) -> PredicateError:
        """Give an error that shows where a part of the condition begins."""
        return self.error(message, self.at(node), hint=hint)


def _open_quote(text: str) -> int:
    """Offset of the quote that is never closed."""
    opened, quote = 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            opened, quote = i, letter
    return opened
