"""Images looked at one after the other: which can be read, and which stand twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tidemill.core.errors import DataError
from tidemill.data.images.source import ImageTable, read_images
from tidemill.sdk.looking import decoded, in_both, marks_of


def folder(place: Path, broken: int, whole: int = 4) -> ImageTable:
    """Images of rising height in one class, of which the first so many are no images."""
    (place / "a").mkdir(parents=True)
    for number in range(broken + whole):
        path = place / "a" / f"{number:02d}.png"
        if number < broken:
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", (5, 2 + number)).save(path)
    return read_images(place, "label")


def columns(rows: int) -> dict[str, Any]:
    return {"height": np.full(rows, np.nan), "width": np.full(rows, np.nan)}


def test_every_image_that_can_be_read_is_given_once_with_its_size(tmp_path: Path) -> None:
    table, seen = folder(tmp_path, broken=7), []
    notices: list[str] = []
    sizes = columns(11)
    kept = decoded(table, sizes, notices, lambda places, stack: seen.extend(zip(places, stack, strict=True)))
    assert kept.tolist() == [place for place, _ in seen] == [7, 8, 9, 10]
    assert [image.shape for _, image in seen] == [(2 + n, 5, 3) for n in range(7, 11)]
    assert sizes["height"][kept].tolist() == [9.0, 10.0, 11.0, 12.0]
    assert np.isnan(sizes["width"][:7]).all()
    (notice,) = notices
    assert notice.startswith("7 of 11 images can't be read and are left out: ")
    assert notice.count(".png") >= 5
    assert notice.endswith("; ….")


def test_where_none_can_be_read_the_first_is_named(tmp_path: Path) -> None:
    table = folder(tmp_path, broken=2, whole=0)
    with pytest.raises(DataError, match="None of the images can be read") as caught:
        decoded(table, columns(2), [], lambda places, stack: None)
    assert "00.png" in str(caught.value.hint)


def test_copies_among_the_locked_images_are_counted() -> None:
    images = [np.full((1, 2, 2), value, np.uint8) for value in (0, 1, 2, 1, 1, 9)]
    marks = marks_of(images)
    (found,) = in_both(marks, np.arange(3), np.arange(3, 6), "lines")
    assert found.message == "2 of 3 locked lines stand among the training lines, too."
    assert in_both(marks, np.arange(3), np.array([5]), "lines") == []
