"""What a suite of another tool is here."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.core.errors import OptionError, nearest_hint

KINDS = {"pandera": "pandera", "gx": "Great Expectations"}
"""Tools by the word that names them in an option."""


@dataclass(frozen=True)
class ForeignSuite:
    """A suite as somebody wrote it.

    Parameters
    ----------
    kind : str
        See `KINDS`.
    text : str
        What stands in its file: YAML or JSON; of a Python file its path, because what it says is known once it has run.
    where : str
        The file, for messages.
    is_code : bool
        Whether it is a Python file. Such a suite is run where it is named, and never kept: a workspace holds no code.
    chosen : str
        Name of the schema in a Python file that has several.
    """

    kind: str
    text: str
    where: str
    is_code: bool = False
    chosen: str = ""

    @property
    def tool(self) -> str:
        """How people call the tool."""
        return KINDS[self.kind]


def split_word(word: str) -> tuple[str, str]:
    """Cut ``kind:FILE`` in two.

    Examples
    --------
    >>> split_word("gx:suites/people.json")
    ('gx', 'suites/people.json')
    """
    kind, sign, file = word.partition(":")
    if not sign or kind not in KINDS:
        hint = nearest_hint(kind, KINDS) if sign else "Write it like gx:people.json or pandera:people.yaml."
        raise OptionError(f"This names no suite: {word!r}.", hint=hint, where="--suite")
    return kind, file
