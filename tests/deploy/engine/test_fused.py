"""Bundles of tables with embedded columns behind a server: rows go as those of a plain table, their cells are read."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.bundle.fusion.made import (
    PHOTO,
    SCHEMA,
    TASK,
    TEXT,
    columns,
    image_embedding,
    make,
    objects,
    recipe,
    text_embedding,
)
from tests.deploy.engine.conftest import Start

from tidemill.bundle.fusion.parts import Rows
from tidemill.bundle.fusion.runtime import FusedBundle
from tidemill.bundle.runner.fusion.rows import IMAGE_ROWS
from tidemill.core.errors import BundleError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.images.pictures import ArrayPictures
from tidemill.deploy.engine.encoders.base import COLUMNS, Encoding, UnreadableError
from tidemill.deploy.engine.encoders.columns import ColumnCells
from tidemill.deploy.engine.encoders.columns import make as open_columns
from tidemill.deploy.engine.facts import read_facts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FusedBundle:
    return make(tmp_path_factory.mktemp("fused") / "animal.tm")


def records(rows: int = 24) -> list[dict[str, Any]]:
    given = columns(rows)
    age, said, city = (given[name].tolist() for name in ("age", TEXT, "city"))
    return [
        {"age": None if a != a else a, TEXT: s or None, "city": c or None}
        for a, s, c in zip(age, said, city, strict=True)
    ]


def near(got: list[dict[str, Any]], labels: list[str], scores: np.ndarray) -> bool:
    found = [[one["probabilities"][name] for name in TASK.classes] for one in got]
    return [one["label"] for one in got] == labels and bool(np.allclose(found, scores, atol=1e-5))


def test_rows_are_answered_as_the_bundle_answers_them(start: Start, bundle: FusedBundle) -> None:
    server = start({"m": bundle.path})
    rows = records()
    right = bundle.answer(columns(len(rows)))
    labels, scores = right["label"].tolist(), right["probabilities"]
    by_column = {name: [row[name] for row in rows] for name in rows[0]}
    for document in ({"records": rows}, {"columns": by_column}):
        status, got = server.ask("/v1/predict/m", document)
        assert status == 200, got
        assert near(got["predictions"], labels, scores)
    status, got = server.ask("/v1/predict/m", rows[0])
    assert near(got["predictions"], labels[:1], scores[:1])
    status, got = server.ask("/v1/predict/m", {"age": 1, "city": "Ulm"})
    assert status == 400
    assert "'review'" in str(got)

    tensors = [
        {"name": "age", "datatype": "FP64", "shape": [2, 1], "data": [0.5, 1.5]},
        {"name": TEXT, "datatype": "BYTES", "shape": [2, 1], "data": ["red fox", ""]},
        {"name": "city", "datatype": "BYTES", "shape": [2, 1], "data": ["Ulm", "Rom"]},
    ]
    status, got = server.ask("/v2/models/m/infer", {"inputs": tensors})
    assert status == 200, got
    wanted = bundle.predict({"age": [0.5, 1.5], TEXT: ["red fox", None], "city": ["Ulm", "Rom"]})
    assert {o["name"]: o["data"] for o in got["outputs"]}["label"] == wanted.tolist()


def test_images_among_the_columns_go_as_base64(start: Start, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    schema = Schema((*SCHEMA, Column(PHOTO, SemanticType.IMAGE)))
    images = [rng.integers(0, 255, (6, 5 + i % 2, 3)).astype(np.uint8) for i in range(12)]
    made = recipe(schema=schema, photo=image_embedding(), text=text_embedding())
    rows = Rows(columns(12), {PHOTO: ArrayPictures(images)})
    bundle = make(tmp_path / "photo.tm", rows=rows, made=made)
    server = start({"m": bundle.path})
    right = bundle.answer(rows.read())
    sent = [{**row, PHOTO: png(image)} for row, image in zip(records(12), images, strict=True)]
    status, got = server.ask("/v1/predict/m", {"records": sent})
    assert status == 200, got
    assert near(got["predictions"], right["label"].tolist(), right["probabilities"])
    missing = bundle.answer({**{n: v[:1] for n, v in columns(12).items()}, PHOTO: objects([None])})
    status, got = server.ask("/v1/predict/m", {**records(12)[0], PHOTO: None})
    assert near(got["predictions"], missing["label"].tolist(), missing["probabilities"])
    status, got = server.ask("/v1/predict/m", {"records": [sent[0], {**sent[1], PHOTO: "no image"}]})
    assert status == 400
    assert "Row 2" in str(got)
    assert "the image in column 'photo': it is no Base64 of a file" in str(got)


def png(pixels: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_reader_that_is_not_the_bundle_s_is_refused(bundle: FusedBundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "copy.tm"))
    facts = read_facts(folder)
    assert facts.encoding is not None
    assert facts.encoding.name == COLUMNS
    stated = bundle.session().get_modelmeta().custom_metadata_map
    names = [i.name for i in bundle.session().get_inputs()]
    assert open_columns(facts.encoding, names, stated)
    with pytest.raises(BundleError, match="no file of the bundle"):
        open_columns(Encoding(COLUMNS, "", str(folder)), names, stated)
    place = next((folder / "readers").iterdir())
    place.write_bytes(place.read_bytes() + b" ")
    with pytest.raises(BundleError, match="not the one that the graph was proven with"):
        open_columns(facts.encoding, names, stated)
    with pytest.raises(BundleError, match="damaged"):
        read_facts(folder)


class _Brightness:
    """A session that answers with the mean pixel of each image, and notes how many it gets."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="mean")]

    def run(self, _: object, feed: dict[str, Any]) -> list[Any]:
        self.sizes.append(len(feed["photo"]))
        return [feed["photo"].mean(axis=(1, 2, 3))]


def _file(level: int) -> str:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def test_few_images_are_in_memory_at_a_time_and_rows_keep_their_places() -> None:
    inputs = [{"column": "photo", "input": "photo", "type": "image", "unit": "embedded"}]
    cells = np.array([_file(10 * level) for level in range(20)], dtype=object)
    session = _Brightness()
    (found,) = ColumnCells(inputs, {}).answer(session, {"photo": cells[:, None]})
    assert found.tolist() == [10 * level for level in range(20)]
    assert max(session.sizes) <= IMAGE_ROWS
    cells[13] = "no Base64"
    with pytest.raises(UnreadableError) as caught:
        ColumnCells(inputs, {}).answer(session, {"photo": cells[:, None]})
    assert caught.value.place == 13
