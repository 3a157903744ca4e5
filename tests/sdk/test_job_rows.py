"""Rows of jobs from afar: the images that they name stay in one folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from tidemill.core.errors import OptionError
from tidemill.core.schema import EMBEDDED, Column, Schema, SemanticType
from tidemill.data.versions import write_version
from tidemill.jobs.queue.context import JobContext
from tidemill.sdk import jobs
from tidemill.sdk.job_rows import rows_for
from tidemill.store.workspace import Workspace

IMAGES = Schema((Column("image", SemanticType.IMAGE),))
BESIDE = Schema((Column("photo", SemanticType.IMAGE, unit=EMBEDDED), Column("x", SemanticType.NUMBER)))
NUMBERS = Schema((Column("x", SemanticType.NUMBER),))


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return JobContext(1, 1, "", tmp_path / "ws", tmp_path / "ws")


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "ws" / "files"
    (folder / "deep").mkdir(parents=True)
    return folder


def bundle(monkeypatch: pytest.MonkeyPatch, schema: Schema) -> None:
    monkeypatch.setattr("tidemill.sdk.bundles.load", lambda path: SimpleNamespace(schema=schema))


@pytest.mark.parametrize("schema", [IMAGES, BESIDE], ids=["images", "beside"])
@pytest.mark.parametrize(
    "name", ["/etc/a.png", "/no/such.png", "../../a.png", "..\\..\\a.png", "deep/../../../a.png", "link.png"]
)
def test_a_table_that_names_an_image_elsewhere_is_refused(
    context: JobContext, inside: Path, monkeypatch: pytest.MonkeyPatch, schema: Schema, name: str
) -> None:
    bundle(monkeypatch, schema)
    (inside / "link.png").symlink_to("/etc/hosts")
    table = inside / "t.csv"
    table.write_text(f"photo,x\na.png,1\n{name},2\n", encoding="utf-8")
    with pytest.raises(OptionError, match="must not name"):
        rows_for(context, "m.tm", str(table), str(inside))
    assert rows_for(context, "m.tm", str(table), None) == str(table), "who is on the machine may name them"


@pytest.mark.parametrize("schema", [IMAGES, BESIDE, NUMBERS], ids=["images", "beside", "numbers"])
def test_a_table_whose_images_stay_is_read(
    context: JobContext, inside: Path, monkeypatch: pytest.MonkeyPatch, schema: Schema
) -> None:
    bundle(monkeypatch, schema)
    table = inside / "deep" / "t.csv"
    strange = "/etc/a.png" if schema is NUMBERS else "../b.png"
    table.write_text(f"photo,x\na.png,1\n{strange},2\n,3\n", encoding="utf-8")
    assert rows_for(context, "m.tm", str(table), str(inside)) == str(table)
    assert rows_for(context, "m.tm", str(inside), str(inside)) == str(inside)


def test_rows_of_a_version_name_no_file_of_the_worker(
    context: JobContext, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(monkeypatch, BESIDE)
    with Workspace.open(context.workspace) as workspace:
        table = pa.table({"photo": ["a.png"], "x": [1.0]})
        schema = Schema((Column("photo", SemanticType.TEXT), Column("x", SemanticType.NUMBER)))
        version = write_version(workspace, "rows", table, schema)
    with pytest.raises(OptionError, match=r"the image 'a\.png'"):
        rows_for(context, "m.tm", f"rows@{version.hash}", str(inside))


@pytest.mark.parametrize("kind", ["fit", "predict", "evaluate"])
def test_every_kind_that_reads_tables_is_confined_from_afar(tmp_path: Path, kind: str) -> None:
    words = {"data": "a/t.csv", "within": "b"}
    words |= {"fit": {}, "predict": {"bundle": "a/m.tm", "out": "a/p.csv"}, "evaluate": {"bundle": "a/m.tm"}}[kind]
    made = jobs.submit_job(kind, words, workspace=tmp_path, afar=True)
    assert made["arguments"]["within"] == str((tmp_path / jobs.FILES).resolve())
