"""What a section of the report is made of; the template knows how each is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tidemill.report.figures import Drawing


@dataclass(frozen=True)
class Text:
    """A paragraph; ``lead`` sets it larger."""

    text: str
    lead: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Note:
    """A sentence on the side: what was left out, what to beware of."""

    text: str
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Items:
    """A list of sentences; ``ordered`` numbers them."""

    items: Sequence[str]
    ordered: bool = False
    kind: ClassVar[str] = "items"


@dataclass(frozen=True)
class Cards:
    """Figures at a glance: (name, value, what stands below)."""

    cards: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Code:
    """Commands to copy."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Cell:
    """A cell with more to say: ``state`` is ``good``, ``bad`` or ``warn``; ``strong`` stands out."""

    text: str
    state: str = ""
    strong: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows under headers; the first cell of a row is its header.

    Parameters
    ----------
    headers : sequence of str
        One for each column.
    rows : sequence of sequence of str or Cell
        The cells.
    caption : str
        What to look for.
    numeric : frozenset of int
        Columns that are set flush right.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str
    numeric: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """A drawing with a caption that says what to look for."""

    drawing: Drawing
    caption: str
    kind: ClassVar[str] = "figure"


Block = Text | Note | Items | Cards | Code | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of the report: ``id`` is its anchor; ``group`` puts it for everybody or for the engineer."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    group: str = "detail"
