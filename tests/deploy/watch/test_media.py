"""Images and long texts that were asked in service become dataset versions, with labels from feedback."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.bundle.fusion.made import PHOTO, SCHEMA, columns, image_embedding, objects, recipe, text_embedding
from tests.bundle.fusion.made import TEXT as REVIEW
from tests.bundle.fusion.made import make as make_fused
from tests.bundle.images.made import make as make_images
from tests.bundle.texts.made import COLUMN
from tests.bundle.texts.made import make as make_texts
from tests.deploy.engine.conftest import Running, Start, until

from tidemill.bundle.fusion.parts import Rows
from tidemill.cli.main import run
from tidemill.core.errors import RoleError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.images.decode import decode
from tidemill.data.images.packs import PACKED
from tidemill.data.images.pictures import ArrayPictures
from tidemill.data.ingest import RawTable
from tidemill.data.versions import find_version, load_version, write_version
from tidemill.data.versions.collect import collect as collect_garbage
from tidemill.data.versions.governance import audit_of, say
from tidemill.data.versions.operations.images import import_images
from tidemill.data.versions.verify import verify
from tidemill.deploy.bundles import bundle_hash
from tidemill.deploy.types import CapturePolicy, Endpoint, Revision
from tidemill.deploy.watch.blobs import ARRAY, BlobFolder
from tidemill.deploy.watch.capture import LONGEST, META, collect
from tidemill.deploy.watch.cases import as_version
from tidemill.deploy.watch.media import is_blob
from tidemill.deploy.watch.observer import Watch
from tidemill.sdk import fusion
from tidemill.sdk.data import merge
from tidemill.sdk.fusion import PreparedFused, prepare_fused
from tidemill.sdk.images import holds_images, image_table, prepare_images
from tidemill.sdk.modality.choose import modality_asked
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import read_version
from tidemill.sdk.watch import captured_version
from tidemill.store.artifacts import content_key
from tidemill.store.workspace import Workspace

EVERYTHING = CapturePolicy(sample=1.0, confidence=0.0)


class Served:
    """A bundle that is served and watched, every row of which is captured."""

    def __init__(self, workspace: Workspace, folder: Path, begin: Start) -> None:
        self.workspace = workspace
        full = bundle_hash(folder)
        place = workspace.path / "bundles" / full
        place.parent.mkdir()
        place.symlink_to(folder, target_is_directory=True)
        endpoint = Endpoint(
            "m", revisions=(Revision(full[:12], full, 0.0, "ready"),), traffic={full[:12]: 1.0}, capture=EVERYTHING
        )
        workspace.records.put("endpoint", "m", endpoint.to_json())
        self.watch = Watch(workspace, seed=1, start=False)
        self.running: Running = begin({"m": folder}, observer=self.watch)

    def predict(self, body: Any, headers: dict[str, str] | None = None, path: str = "/v1/predict/m") -> str:
        status, told, answer = self.running.request(path, body, headers or {})
        assert status == 200, answer
        return told["x-request-id"]

    def tell(self, request_id: str, label: Any, row: int = 0) -> None:
        items = [{"request_id": request_id, "label": label, "row": row}]
        assert self.running.ask("/v1/feedback/m", {"items": items}) == (200, {"kept": 1})

    def fold(self, rows: int) -> None:
        """Wait until so many rows are captured: the watch hears of an answer after its caller."""
        until(lambda: self._captured() == rows)

    def _captured(self) -> int:
        self.watch.fold()
        return int(collect(self.workspace, "m").num_rows)

    @property
    def blobs(self) -> Path:
        return self.workspace.path / "watch" / "m" / "captured" / "blobs"


@pytest.fixture
def images(workspace: Workspace, tmp_path: Path, start: Start) -> Iterator[Served]:
    served = Served(workspace, make_images(tmp_path / "tone.tm").path, start)
    yield served
    served.watch.close()


@pytest.fixture
def texts(workspace: Workspace, tmp_path: Path, start: Start) -> Iterator[Served]:
    served = Served(workspace, make_texts(tmp_path / "mood.tm").path, start)
    yield served
    served.watch.close()


@pytest.fixture
def fused(workspace: Workspace, tmp_path: Path, start: Start) -> Iterator[Served]:
    schema = Schema((*SCHEMA, Column(PHOTO, SemanticType.IMAGE)))
    shown = ArrayPictures([picture(seed) for seed in range(48)])
    given = {**columns(), PHOTO: objects(list(shown.names))}
    made = recipe(schema=schema, photo=image_embedding(), text=text_embedding())
    served = Served(workspace, make_fused(tmp_path / "ads.tm", rows=Rows(given, {PHOTO: shown}), made=made).path, start)
    yield served
    served.watch.close()


def picture(seed: int, shape: tuple[int, int] = (9, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def packed(image: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def ask_for(served: Served, data: bytes) -> str:
    return served.predict(data, {"content-type": "image/png"})


def test_images_that_were_served_come_back_as_a_dataset_of_images(images: Served, workspace: Workspace) -> None:
    files = [packed(picture(0)), packed(picture(1, (20, 13)), "BMP")]
    first, second = (ask_for(images, data) for data in files)
    ask_for(images, files[0])  # the same again is kept once
    stack = np.stack([picture(2), picture(3)])
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(stack.shape), "data": stack.ravel().tolist()}
    third = images.predict({"inputs": [tensor]}, path="/v2/models/m/infer")
    images.fold(4)
    images.tell(first, "light")
    images.tell(third, "dark", row=1)
    told = captured_version("m", workspace=workspace, actor="mia")
    assert (told["dataset"], told["rows"], told["lost"]) == ("m-cases", 4, 0)
    version = find_version(workspace, "m-cases")
    table, schema = load_version(workspace, version.ref)
    kinds = {c.name: c.type for c in schema if not c.name.startswith(META)}
    assert kinds == {
        "file": SemanticType.IDENTIFIER, "image": SemanticType.IGNORED, "width": SemanticType.NUMBER,
        "height": SemanticType.NUMBER, "tone": SemanticType.TARGET,
    }  # fmt: skip
    rows = {r["image"]: r for r in table.to_pylist()}
    a, b = (rows[content_key(data)] for data in files)  # files are kept byte for byte
    assert (a["tone"], a["width"], a["height"]) == ("light", 7.0, 9.0)
    assert (b["tone"], b["width"], b["height"], b[f"{META}request_id"]) == (None, 13.0, 20.0, second)
    pixels = {tuple(decode(workspace.artifacts.get(key)).ravel()): row for key, row in rows.items()}
    assert pixels[tuple(stack[1].ravel())]["tone"] == "dark"  # pixels come back as they were
    assert pixels[tuple(stack[0].ravel())][f"{META}request_id"] == third
    # What a fit on images reads of a version is there.
    assert holds_images(schema)
    read = image_table(workspace, RawTable(table, "m-cases"), schema)
    shapes = sorted(read.pictures.pixels(i).shape for i in range(len(read.pictures)))
    assert shapes == [(9, 7, 3), (9, 7, 3), (9, 7, 3), (20, 13, 3)]
    assert [e.actor for e in audit_of(workspace, "m-cases")] == ["mia"]
    # It stays when the endpoint forgets its rows, and garbage collection knows that it is needed.
    BlobFolder(images.blobs).prune(4e9)
    collect_garbage(workspace, grace_s=0.0)
    assert verify(workspace, version) == []
    assert len(decode(workspace.artifacts.get(content_key(files[1])))) == 20


def test_an_image_that_is_gone_or_damaged_costs_its_row_alone_and_is_counted(
    images: Served, workspace: Workspace
) -> None:
    for seed in range(4):
        ask_for(images, packed(picture(seed)))
    images.fold(4)
    gone, damaged, *_ = sorted(images.blobs.iterdir())
    gone.unlink()
    damaged.write_bytes(b"nothing")
    version = as_version(workspace, "m")
    assert (version.rows, version.parameters["lost"]) == (2, 2)
    assert verify(workspace, version) == []


def test_what_must_not_be_kept_makes_no_row(workspace: Workspace, images: Served) -> None:
    record = workspace.records.get("endpoint", "m")
    endpoint = Endpoint.from_json(record.body)
    hidden = replace(endpoint, capture=replace(EVERYTHING, redact=("image",)))
    workspace.records.put("endpoint", "m", hidden.to_json())
    ask_for(images, packed(picture(0)))
    images.fold(1)
    place = ["--workspace", str(workspace.path), "--keep-as", "none"]
    assert not images.blobs.exists()
    assert run(["watch", "m", *place]) != 0


def test_long_texts_are_texts_again(texts: Served, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["good", "so bad " * LONGEST, "fine " * LONGEST, "blob:no blob"]
    asked = [texts.predict({COLUMN: text}) for text in said]
    texts.fold(4)
    texts.tell(asked[1], "bad")
    place = ["--workspace", str(workspace.path)]
    assert run(["watch", "m", "--keep-as", "moods", "--actor", "mia", "--json", *place]) == 0
    kept = json.loads(capsys.readouterr().out)["kept"]
    assert (kept["dataset"], kept["rows"], kept["lost"]) == ("moods", 4, 0)
    table, _ = load_version(workspace, f"moods@{kept['hash']}")
    rows = {r[f"{META}request_id"]: r for r in table.to_pylist()}
    assert [rows[request][COLUMN].strip() for request in asked] == [text.strip() for text in said]
    assert [rows[request]["mood"] for request in asked] == [None, "bad", None, None]
    for path in texts.blobs.iterdir():
        path.unlink()
    version = as_version(workspace, "m", name="moods")
    assert (version.rows, version.parameters["lost"]) == (2, 2)


def test_only_a_writer_keeps_captured_rows(texts: Served, workspace: Workspace) -> None:
    texts.predict({COLUMN: "good"})
    texts.fold(1)
    captured_version("m", name="moods", workspace=workspace, actor="mia")
    say(workspace, "moods", owner="mia", roles={"ben": "reader"})
    with pytest.raises(RoleError, match="ben may not"):
        captured_version("m", name="moods", workspace=workspace, actor="ben")


def test_a_cell_is_a_blob_only_where_it_looks_like_one() -> None:
    cell = f"blob:{'a' * 64}{ARRAY}"
    assert is_blob(cell, ARRAY)
    assert not any(is_blob(c, ARRAY) for c in (f"blob:{'a' * 64}.txt", "blob:a.npy", f"x{cell}", f"{cell}\n", None, 3))


def test_what_was_captured_joins_a_dataset_of_images_and_is_learnt_from(
    images: Served, workspace: Workspace, tmp_path: Path
) -> None:
    asked = [ask_for(images, packed(picture(seed))) for seed in range(8)]
    images.fold(8)
    for number, request in enumerate(asked[:6]):
        images.tell(request, ("light", "dark")[number % 2])
    captured_version("m", name="cases", workspace=workspace, actor="mia")
    for label in ("light", "dark"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "a.png").write_bytes(packed(picture(ord(label[0]))))
    import_images(workspace, "photos", tmp_path / "photos")
    relabelled = load_version(workspace, "photos")[0].rename_columns({"label": "tone"})
    _, meant = load_version(workspace, "photos")
    columns = tuple(replace(c, name="tone") if c.name == "label" else c for c in meant)
    write_version(workspace, "photos", relabelled, Schema(columns))
    modality, asked_of = modality_asked(workspace, "cases", None, FitOptions())
    assert (modality.name, asked_of.target, asked_of.options.types) == ("image", "tone", {})
    merged = merge(["photos", "cases"], name="both", identity=["image"], missing=True, workspace=workspace, actor="mia")
    assert merged["rows"] == 10
    named = read_version("both", workspace, actor="mia")
    assert named is not None
    ready = prepare_images(image_table(workspace, named.raw, named.version.schema), "tone", FitOptions())
    assert (len(ready.y), ready.task.classes) == (8, ("dark", "light"))
    assert "2 of 10 images have no target 'tone'" in ready.notices[0]


def test_images_among_other_columns_come_back_with_their_rows_and_are_learnt_from(
    fused: Served, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = packed(picture(0, (2, 2))), packed(picture(1, (40, 40)))
    assert len(base64.b64encode(small)) < LONGEST < len(base64.b64encode(large))
    sent = [small, large, None] * 8
    for number, data in enumerate(sent):
        photo = None if data is None else base64.b64encode(data).decode()
        request = fused.predict({"age": number / 8, REVIEW: "the red fox", "city": "Ulm", PHOTO: photo})
        if number != 3:
            fused.tell(request, "abc"[number % 3])
    fused.fold(24)
    told = captured_version("m", name="ads", workspace=workspace, actor="mia")
    assert (told["rows"], told["lost"]) == (24, 0)
    named = read_version("ads", workspace, actor="mia")
    assert named is not None
    assert not holds_images(named.version.schema)
    rows = sorted(named.raw.table.to_pylist(), key=lambda row: row["age"])
    assert [row["age"] for row in rows] == [n / 8 for n in range(24)]
    assert {row[f"{PHOTO}{PACKED}"] for row in rows} == {content_key(small), content_key(large), None}
    assert [row["animal"] for row in rows[:5]] == ["a", "b", "c", None, "b"]
    assert rows[2][PHOTO] is None
    assert verify(workspace, named.version) == []
    collect_garbage(workspace, grace_s=0.0)
    assert workspace.artifacts.get(content_key(large)) == large
    # What a fit on such a table reads of a version is there.
    monkeypatch.setattr(fusion, "opened_images", lambda column, folder: image_embedding(column))
    monkeypatch.setattr(fusion, "need_text", lambda why: None)
    monkeypatch.setattr(fusion, "_folders", lambda weights, tell: (None, "tones"))
    options = named.options(FitOptions(trials=1, weights=("tones",)), named.target)
    ready = prepare_fused(workspace, None, named.target, options, named)
    assert isinstance(ready, PreparedFused)
    assert ready.there[PHOTO].sum() == 15, "of the rows with a label, two of three have an image"
    assert ready.numbers[PHOTO].shape[0] == len(ready.y) == 23
    for path in fused.blobs.iterdir():
        path.unlink()
    version = as_version(workspace, "m", name="ads")
    assert (version.rows, version.parameters["lost"]) == (16, 8), "small images stand in their rows"


@pytest.mark.slow
def test_a_fit_learns_from_captured_images_and_says_where_they_come_from(
    images: Served, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    tones = [np.full((9, 7, 3), 40 + 2 * i + 100 * (i % 2), dtype=np.uint8) for i in range(40)]
    asked = [ask_for(images, packed(tone)) for tone in tones]
    images.fold(40)
    for number, request in enumerate(asked):
        images.tell(request, ("dark", "light")[number % 2])
    place = ["--workspace", str(workspace.path)]
    assert run(["watch", "m", "--keep-as", "tones", "--json", *place]) == 0
    kept = json.loads(capsys.readouterr().out)["kept"]
    out = str(workspace.path / "out.tm")
    words = ["--trials", "1", "--family", "probe", "--cpus", "1", "--no-report", "--out", out, "--json", *place]
    assert run(["fit", "tones", *words]) == 0
    study = json.loads(capsys.readouterr().out.splitlines()[-1])["study"]
    record = workspace.metadata.get_study(study)
    assert record.task["classes"] == ["dark", "light"]
    version = find_version(workspace, record.dataset_version)
    origin = find_version(workspace, f"tones@{kept['hash']}")
    assert version.hash == origin.hash or origin.hash in version.parents
    window = {k: origin.parameters[k] for k in ("endpoint", "lost")}
    assert window == {"endpoint": "m", "lost": 0}
    assert origin.parameters["since"] < origin.parameters["until"]
    assert run(["data", "blame", "tones", "--row", "0", "--json", *place]) == 0
    assert study in json.loads(capsys.readouterr().out)["studies"]
