"""What an endpoint captured beside the version that its model was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.bundle.texts.made import COLUMN
from tests.deploy.engine.conftest import start  # noqa: F401  a fixture that is used here, too
from tests.deploy.watch.test_media import (  # noqa: F401  fixtures that are used here, too
    EVERYTHING,
    Served,
    ask_for,
    images,
    packed,
    picture,
    texts,
)

from tidemill.cli.main import run
from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import write_version
from tidemill.data.versions.operations.images import import_images
from tidemill.deploy.types import Endpoint
from tidemill.deploy.watch.capture import LONGEST
from tidemill.sdk.data import skew
from tidemill.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path):
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


def photos(workspace: Workspace, folder: Path, count: int = 6) -> str:
    for label in ("light", "dark"):
        (folder / label).mkdir(parents=True)
        for seed in range(count):
            (folder / label / f"{seed}.png").write_bytes(packed(picture(seed + ord(label[0]))))
    return import_images(workspace, "photos", folder).ref


def test_images_are_left_out_with_a_word_and_their_sizes_compared(
    images: Served,  # noqa: F811
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos(workspace, tmp_path / "photos")
    for seed in range(8):
        ask_for(images, packed(picture(seed)))
    images.fold(8)
    for asked in (None, ["image", "width"]):
        told = skew("photos", "endpoint:m", columns=asked, workspace=workspace)
        assert [(f["severity"], f["code"], f["column"]) for f in told["findings"]] == [("info", "left_out", "image")]
        assert "blob:" in told["findings"][0]["message"]
        assert "image" not in {c["column"] for c in told["columns"]}
        assert {c["column"] for c in told["columns"]} <= {"width", "height"}
    assert (told["rows"], told["lost"]) == (8, 0)
    next(images.blobs.iterdir()).unlink()
    assert run(["data", "skew", "photos", "endpoint:m", "--workspace", str(workspace.path)]) == 0
    said = capsys.readouterr().out
    assert "7 rows in service (1 more are left out: images or texts of theirs are gone)" in said
    assert "image" in said


def test_a_version_of_stored_images_is_compared_without_them(workspace: Workspace, tmp_path: Path) -> None:
    photos(workspace, tmp_path / "photos")
    told = skew("photos", "photos", columns=["image", "width"], workspace=workspace)
    assert [(f["code"], f["column"]) for f in told["findings"]] == [("left_out", "image")]
    assert [c["column"] for c in told["columns"]] == ["width"]


def test_long_texts_are_compared_as_texts_and_what_is_redacted_is_not(
    texts: Served,  # noqa: F811
    workspace: Workspace,
) -> None:
    long = ("so bad " * LONGEST).strip()
    said = ["good", long] * 20
    table = pa.table({COLUMN: said, "mood": ["good", "bad"] * 20})
    schema = Schema((Column(COLUMN, SemanticType.TEXT), Column("mood", SemanticType.TARGET)))
    write_version(workspace, "moods", table, schema)
    for text in ("good", long):
        texts.predict({COLUMN: text})
    texts.fold(2)
    told = skew("moods", "endpoint:m", workspace=workspace)
    assert (told["rows"], told["findings"]) == (2, [])
    assert [c["unseen"] for c in told["columns"]] == [0.0]
    endpoint = Endpoint.from_json(workspace.records.get("endpoint", "m").body)
    hidden = replace(endpoint, capture=replace(EVERYTHING, redact=(COLUMN,)))
    workspace.records.put("endpoint", "m", hidden.to_json())
    told = skew("moods", "endpoint:m", workspace=workspace)
    assert [(f["code"], f["column"]) for f in told["findings"]] == [("left_out", COLUMN)]
    assert "redact" in told["findings"][0]["message"]


def test_an_endpoint_that_is_not_there_is_named_with_the_nearest(workspace: Workspace, tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(9.0)})
    write_version(workspace, "rows", table, Schema((Column("x", SemanticType.NUMBER),)))
    workspace.records.put("endpoint", "fraud", Endpoint("fraud").to_json())
    with pytest.raises(NotFoundError, match="Did you mean 'fraud'"):
        skew("rows", "endpoint:frud", workspace=workspace)
    with pytest.raises(DataError, match="No rows were served"):
        skew("rows", "endpoint:fraud", workspace=workspace)
