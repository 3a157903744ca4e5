"""The text of a table is found, and only it is seen."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.data.ingest import RawTable
from tidemill.data.texts.column import only_text, text_column, text_schema

REVIEWS = RawTable(
    pa.table(
        {
            "id": [str(i) for i in range(40)],
            "title": [f"title {i}" for i in range(40)],
            "review": [f"a much longer review with words of number {i}" for i in range(40)],
            "stars": [str(i % 5) for i in range(40)],
        }
    ),
    "reviews.csv",
)


def test_the_longest_texts_are_the_text_and_the_others_are_left_out() -> None:
    schema = text_schema(REVIEWS, "stars")
    assert text_column(schema) == "review"
    assert only_text(schema)
    assert schema["title"].type is SemanticType.IGNORED
    assert schema["title"].reason == "a model for texts sees the text alone"
    assert schema["stars"].type is SemanticType.TARGET


def test_a_person_knows_better() -> None:
    assert text_column(text_schema(REVIEWS, "stars", types={"title": SemanticType.TEXT})) == "title"
    with pytest.raises(OptionError, match="can't be the text and have another role"):
        text_schema(REVIEWS, "stars", types={"stars": SemanticType.TEXT})


def test_a_group_is_no_text() -> None:
    schema = text_schema(REVIEWS, "stars", group="review")
    assert text_column(schema) == "title"
    assert schema["review"].type is SemanticType.GROUP


def test_a_table_without_texts_is_told() -> None:
    numbers = RawTable(pa.table({"x": [1, 2], "y": ["a", "b"]}), "numbers.csv")
    with pytest.raises(DataError, match="No column of the table holds texts"):
        text_schema(numbers, "y")
    with pytest.raises(NotFoundError, match="target column"):
        text_schema(REVIEWS, "star")
