"""Batches of every kind of bundle are answered by an executor as by the bundle itself, byte for byte."""

from __future__ import annotations

import csv
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.jobs.ray.conftest import FakeRay, fake_ray  # noqa: F401  a fixture that is used here

from tidemill.bundle.batch import Batch, Piece, of_columns
from tidemill.bundle.parity import CHUNK
from tidemill.bundle.runner.fusion.rows import IMAGE_ROWS, ROWS
from tidemill.bundle.runner.stacks import MOST_IMAGES
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import BundleError, DataError
from tidemill.core.protocols import Outcome, Step
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.sdk import batch as sdk_batch
from tidemill.sdk.batch import answer_pieces, answers, steps_of, to_csv
from tidemill.sdk.bundles import predict_to_csv


@dataclass(frozen=True)
class Case:
    """A bundle, what it is asked, and in what amounts."""

    bundle: Any
    data: Any
    chunk: int
    more: dict[str, Any]
    unread: int = 0


def texts(folder: Path) -> Case:
    from tests.bundle.texts.made import COLUMN, SAID, make

    said = [SAID[i % len(SAID)] + " so" * (i % 5) for i in range(2 * CHUNK + 7)]
    return Case(make(folder / "b.tm"), {COLUMN: said}, CHUNK, {})


def table(folder: Path) -> Case:
    from tests.bundle.small import make, write_csv

    from tidemill.testing.parts import small_columns

    rows = write_csv(folder / "rows.csv", small_columns(3 * CHUNK + 1, seed=4))
    return Case(make(folder / "b.tm"), rows, CHUNK, {})


def table_with_texts(folder: Path) -> Case:
    from tests.bundle.fusion.made import columns, make

    return Case(make(folder / "b.tm"), columns(2 * ROWS + 5, seed=3), ROWS, {})


def damaged(folder: Path, count: int, draw: Callable[[int], Any]) -> list[str]:
    """Images of a folder, two of which can't be read, and a name without a file."""
    folder.mkdir()
    names = [f"{i:02}.png" for i in range(count)]
    for i, name in enumerate(names):
        Image.fromarray(draw(i)).save(folder / name)
    (folder / names[3]).write_bytes(b"no image")
    (folder / names[-2]).write_bytes((folder / names[-2]).read_bytes()[:60])
    return [*names[:20], "gone.png", *names[20:]]


def tone(i: int) -> np.ndarray:
    """An image of one of three sizes, some of them with 16 bits."""
    shape = [(8, 8), (8, 8), (20, 13)][(i // 9) % 3]
    noise = np.random.default_rng(i).integers(0, 256, shape)
    return (noise * 257).astype(np.uint16) if i % 7 == 0 else noise.astype(np.uint8)


def listed(path: Path, column: str, names: list[str], more: dict[str, Any] | None = None) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column, *(more or {})])
        writer.writerows([name, *(cells[i] for cells in (more or {}).values())] for i, name in enumerate(names))
    return path


def images_of_a_table(folder: Path) -> Case:
    from tests.bundle.images.made import make

    names = damaged(folder / "photos", 53, tone)
    return Case(make(folder / "b.tm"), listed(folder / "new.csv", "file", names), MOST_IMAGES,
                {"images": folder / "photos"}, 3)  # fmt: skip


def images_of_a_folder(folder: Path) -> Case:
    from tests.bundle.images.made import VALUE, make

    damaged(folder / "photos", 40, tone)
    return Case(make(folder / "b.tm", VALUE), folder / "photos", MOST_IMAGES, {}, 2)


def images_of_an_archive(folder: Path) -> Case:
    from tests.bundle.images.made import make

    damaged(folder / "photos", 40, tone)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for path in sorted((folder / "photos").iterdir()):
            archive.write(path, path.name)
    return Case(make(folder / "b.tm"), folder / "photos.zip", MOST_IMAGES, {}, 2)


def images_of_an_array(folder: Path) -> Case:
    from tests.bundle.images.made import make

    seen = np.random.default_rng(0).integers(0, 256, (2 * MOST_IMAGES + 3, 9, 7), np.uint8)
    np.save(folder / "seen.npy", seen)
    return Case(make(folder / "b.tm"), folder / "seen.npy", MOST_IMAGES, {})


def lines(folder: Path, width: int = 0) -> Case:
    from tests.bundle.lines.made import WORDS, line_of, make

    names = damaged(folder / "lines", 40, lambda i: line_of(WORDS[i % len(WORDS)]))
    rows = listed(folder / "lines.csv", "file", names)
    return Case(make(folder / "b.tm", width), rows, MOST_IMAGES, {"images": folder / "lines"}, 3)


def searched_lines(folder: Path) -> Case:
    return lines(folder, width=4)


def table_with_images(folder: Path) -> Case:
    from tests.bundle.fusion.made import PHOTO, SCHEMA, TEXT, columns, image_embedding, make, recipe, text_embedding

    from tidemill.bundle.fusion.parts import Rows
    from tidemill.core.schema import Column, Schema, SemanticType
    from tidemill.data.images.pictures import ArrayPictures

    schema = Schema((*SCHEMA, Column(PHOTO, SemanticType.IMAGE)))
    rows = Rows(columns(), {PHOTO: ArrayPictures([np.full((8, 8, 3), 5 * i, np.uint8) for i in range(48)])})
    made = recipe(schema=schema, one=text_embedding(TEXT), two=image_embedding(PHOTO))
    bundle = make(folder / "b.tm", rows=rows, made=made)
    names = damaged(folder / "photos", 29, tone)
    given = columns(len(names), seed=1)
    names[7] = ""
    more = {"city": given["city"], TEXT: given[TEXT], "age": [repr(float(a)) for a in given["age"]]}
    return Case(bundle, listed(folder / "new.csv", PHOTO, names, more), IMAGE_ROWS, {"images": folder / "photos"}, 3)


KINDS = (
    table, texts, table_with_texts, table_with_images, images_of_a_table, images_of_a_folder, images_of_an_archive,
    images_of_an_array, lines, searched_lines,
)  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    found: Case = request.param(tmp_path_factory.mktemp("case"))
    return found


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessExecutor]:
    kinds = (f"tidemill.bundle.{kind}.runtime" for kind in ("images", "texts", "fusion", "lines"))
    with ProcessExecutor(2, ("tidemill.sdk.batch", "onnxruntime", *kinds)) as executor:
        yield executor


def told(case: Case, out: Path) -> tuple[bytes, list[str], int]:
    """What the bundle itself writes, and tells."""
    unread: list[str] = []
    more = {**case.more, "on_unreadable": unread.append} if case.unread else case.more
    rows = case.bundle.to_csv(case.data, out, **more)
    return out.read_bytes(), unread, rows


def test_processes_write_the_same_bytes_and_tell_of_the_same_images(
    case: Case, pool: ProcessExecutor, tmp_path: Path
) -> None:
    wanted, named, rows = told(case, tmp_path / "wanted.csv")
    assert len(named) == case.unread
    batch = case.bundle.batch(case.data, **case.more)
    assert (batch.rows, batch.chunk) == (rows, case.chunk)
    assert batch.step % batch.chunk == 0
    assert batch.rows > 2 * batch.chunk, "several steps, the last of them smaller"
    unread: list[str] = []
    batch = replace(batch, step=batch.chunk)
    assert to_csv(pool, case.bundle, batch, tmp_path / "found.csv", unread.append) == rows
    assert (tmp_path / "found.csv").read_bytes() == wanted
    assert sorted(unread) == sorted(named)


def test_pieces_need_nothing_of_the_place_where_they_were_cut(case: Case, tmp_path: Path) -> None:
    wanted, named, _ = told(case, tmp_path / "wanted.csv")
    pieces = [pickle.loads(pickle.dumps(piece)) for piece in case.bundle.batch(case.data, **case.more).pieces()]
    places = [path for path in (case.data, case.more.get("images")) if isinstance(path, Path)]
    for path in places:
        path.rename(path.with_name(f"{path.name}.away"))
    try:
        found = answer_pieces(str(case.bundle.path), pieces, tells=True)
    finally:
        for path in places:
            path.with_name(f"{path.name}.away").rename(path)
    assert found.lines == wanted.decode().partition("\n")[2]
    assert sorted(found.unread) == sorted(named)
    assert found.rows == sum(piece.rows for piece in pieces)


def test_an_image_beside_columns_that_can_t_be_read_is_an_error_where_nobody_listens(
    pool: ProcessExecutor, tmp_path: Path
) -> None:
    case = table_with_images(tmp_path)
    with pytest.raises(DataError, match=r"03\.png: The image can't be read: it is no image"):
        to_csv(pool, case.bundle, case.bundle.batch(case.data, **case.more), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_nodes_that_see_no_folder_are_sent_the_images(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    case = images_of_a_table(tmp_path)
    wanted, named, rows = told(case, tmp_path / "wanted.csv")
    for engine in ("process", "ray"):
        out, unread = tmp_path / f"{engine}.csv", list[str]()
        done = predict_to_csv(case.bundle.path, case.data, out, **case.more, on_unreadable=unread.append, engine=engine)
        assert done == rows
        assert out.read_bytes() == wanted
        assert unread == named
    assert len(fake_ray.actors) == 2


# --------------------------------------------------------------------------------------------------------------- steps


def sized(sizes: list[int], chunk: int = 2, step: int = 6) -> Batch:
    return Batch(chunk * len(sizes), chunk, step, lambda start, stop: Piece(stop - start, start, sizes[start // chunk]))


def test_large_images_make_smaller_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_batch, "STEP_BYTES", 10)
    made = steps_of(sized([1, 1, 1, 9, 9, 50, 4, 4]), 6)
    assert [[piece.content for piece in step] for step in made] == [[0, 2, 4], [6, 8], [10], [12, 14]]


class Late:
    """Gives outcomes late and in the wrong order; remembers how much was under way."""

    capacity = 3

    def __init__(self) -> None:
        self.inner = InProcessExecutor()
        self.under_way: dict[int, int] = {}
        self.kept: list[Outcome] = []
        self.most_steps = self.most_bytes = 0

    def ready(self, timeout_s: float | None = None) -> bool:
        return True

    def submit(self, step: Step) -> int:
        ticket = self.inner.submit(step)
        self.under_way[ticket] = sum(piece.size_bytes for piece in step.arguments["pieces"])
        self.most_steps = max(self.most_steps, len(self.under_way))
        self.most_bytes = max(self.most_bytes, sum(self.under_way.values()))
        return ticket

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        while found := self.inner.wait():
            self.kept += found
        last = self.kept.pop()
        del self.under_way[last.ticket]
        return [last]

    def cancel(self, ticket: int) -> None:
        self.inner.cancel(ticket)

    def close(self) -> None:
        self.inner.close()


def test_answers_come_in_order_whoever_is_first_and_nobody_runs_ahead(tmp_path: Path) -> None:
    case, executor = images_of_a_folder(tmp_path), Late()
    wanted, _, _ = told(case, tmp_path / "wanted.csv")
    found = list(answers(executor, case.bundle, replace(case.bundle.batch(case.data), step=MOST_IMAGES)))
    assert "".join(each.lines for each in found) == wanted.decode().partition("\n")[2]
    assert [each.rows for each in found] == [16, 16, 8]


def test_no_more_is_kept_than_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bundle.images.made import make

    bundle, executor = make(tmp_path / "b.tm"), Late()
    seen = np.zeros((12 * MOST_IMAGES, 4, 4), np.uint8)
    batch = replace(bundle.batch(seen), step=MOST_IMAGES)
    assert len(list(answers(executor, bundle, batch))) == 12
    assert executor.most_steps <= 6
    size = 3 * 4 * 4 * MOST_IMAGES
    monkeypatch.setattr(sdk_batch, "AHEAD_BYTES", 2 * size)
    executor = Late()
    assert len(list(answers(executor, bundle, batch))) == 12
    assert executor.most_bytes == 2 * size


@pytest.fixture
def broken(tmp_path: Path) -> Bundle:
    """A bundle whose graph is damaged after it was opened."""
    from tests.bundle.small import make

    opened = make(tmp_path / "b.tm")
    opened.model_path.write_bytes(opened.model_path.read_bytes()[:-1])
    return opened


def test_why_a_step_failed_is_told(broken: Bundle, pool: ProcessExecutor) -> None:
    from tidemill.testing.parts import small_columns

    with pytest.raises(BundleError, match="damaged"):
        list(answers(pool, broken, broken.batch(small_columns(3))))


def test_no_rows_give_a_header(tmp_path: Path, pool: ProcessExecutor) -> None:
    from tests.bundle.small import make

    from tidemill.testing.parts import small_columns

    bundle = make(tmp_path / "b.tm")
    none = of_columns({name: values[:0] for name, values in small_columns(3).items()}, CHUNK, CHUNK)
    assert to_csv(pool, bundle, none, tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv").read_text().splitlines() == [",".join(bundle.csv_header())]
