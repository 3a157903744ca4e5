"""Bundles of images behind a server: every form of a request answers as the bundle does, and no file harms another."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image
from tests.bundle.images.made import TASK, VALUE, make
from tests.deploy.engine.conftest import Running, Start, until
from tests.deploy.engine.test_served import Whole

from tidemill.bundle.images.runtime import ImageBundle
from tidemill.core.errors import BundleError, MissingExtraError
from tidemill.core.task import Task
from tidemill.data.images.decode import decode
from tidemill.deploy.engine.encoders import base, images
from tidemill.deploy.engine.encoders.base import Encoding, UnreadableError, open_encoder
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.files import FileCodec, from_base64
from tidemill.deploy.engine.layout import ENCODED
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.wire import join_cells, split_cells

SIZES = ((8, 8), (8, 8), (20, 13), (1, 1), (40, 40), (64, 3))


def pixels(count: int = len(SIZES), seed: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZES[k % len(SIZES)], 3)).astype(np.uint8) for k in range(count)]


def packed(image: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A file of some kilobytes that claims, and holds, ``side`` × ``side`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((side // 8 + 2) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def form(files: list[tuple[str, bytes]], boundary: str = "xyz") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'.encode()
        + b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"
        for name, data in files
    ]  # fmt: skip
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ImageBundle:
    return make(tmp_path_factory.mktemp("images") / "tone.tm")


@pytest.fixture
def server(start: Start, bundle: ImageBundle) -> Iterator[Running]:
    running = start({"m": bundle.path}, limits=Limits(image_pixels=1_000_000, file_bytes=200_000))
    yield running
    assert running.ask("/v2/health/live")[0] == 200


def wanted(bundle: ImageBundle, arrays: list[np.ndarray]) -> list[dict[str, Any]]:
    labels = [str(v) for v in bundle.predict(arrays)]
    shares = bundle.predict_proba(arrays)
    return [
        {"label": label, "probabilities": dict(zip(TASK.classes, [float(v) for v in row], strict=True))}
        for label, row in zip(labels, shares, strict=True)
    ]


def near(got: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    return [g["label"] for g in got] == [r["label"] for r in right] and all(
        np.allclose(list(g["probabilities"].values()), list(r["probabilities"].values()), atol=1e-6)
        for g, r in zip(got, right, strict=True)
    )


def test_every_form_of_a_request_is_answered_as_the_bundle_answers(server: Running, bundle: ImageBundle) -> None:
    arrays = pixels()
    files = [packed(a) for a in arrays]
    right = wanted(bundle, arrays)
    for data, array in zip(files, arrays, strict=True):
        answer = wanted(bundle, [array])[0]
        for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded"):
            status, _, body = server.request("/v1/predict/m", data, {"content-type": kind})
            assert (status, json.loads(body)["predictions"]) == (200, [answer])  # one row alone: bit-equal
    status, _, body = server.request("/v1/predict/m", *form([(f"{k}.png", f) for k, f in enumerate(files)]))
    assert status == 200
    assert near(json.loads(body)["predictions"], right)
    texts = [base64.b64encode(f).decode() for f in files]
    for document in (
        {"records": [{"image": t} for t in texts]},
        {"instances": [{"image": f"data:image/png;base64,{t}"} for t in texts]},
        [{"image": "\n".join(t[i : i + 76] for i in range(0, len(t), 76)), "other": 1} for t in texts],
        {"columns": {"image": texts}},
    ):
        status, got = server.ask("/v1/predict/m", document)
        assert status == 200
        assert near(got["predictions"], right)
    assert server.ask("/v1/predict/m", {"image": texts[0]})[1]["predictions"] == right[:1]


def test_tensors_of_pixels_and_of_files_go_over_the_protocol(server: Running, bundle: ImageBundle) -> None:
    arrays = pixels(2)
    right = wanted(bundle, arrays)
    stack = np.stack(arrays)
    described = server.ask("/v2/models/m")[1]["inputs"]
    assert described == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    raw = {"name": "image", "datatype": "UINT8", "shape": list(stack.shape)}
    texts = {"name": "image", "datatype": "BYTES", "shape": [2, 1]}
    cells = [packed(a) for a in arrays]
    told = [base64.b64encode(c).decode() for c in cells]
    for tensor, blob in (
        ({**raw, "data": stack.ravel().tolist()}, b""),
        ({**raw, "parameters": {"binary_data_size": stack.nbytes}}, stack.tobytes()),
        ({**texts, "data": told}, b""),
        ({**texts, "shape": [2], "parameters": {"binary_data_size": len(join_cells(cells))}}, join_cells(cells)),
    ):
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if blob else {}
        for _ in range(2):
            status, _, body = server.request("/v2/models/m/infer", head + blob, headers)
            assert status == 200, body
            outputs = {o["name"]: o["data"] for o in json.loads(body)["outputs"]}
            assert outputs["label"] == [r["label"] for r in right]
            shares = np.array(outputs["probabilities"]).reshape(2, 3)
            assert np.allclose(shares, [list(r["probabilities"].values()) for r in right], atol=1e-6)


def test_what_is_no_image_is_named_and_harms_nobody(server: Running, bundle: ImageBundle) -> None:
    good = packed(pixels(1)[0])
    whole = packed(np.full((40, 40, 3), 9, np.uint8), "JPEG")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for data, word in (
        (whole[: len(whole) // 2], "damaged or cut off"),
        (good[: len(good) // 2], "damaged or cut off"),
        (b"GIF89a", "no image of a known form"),
        (eps, "no image of a known form"),
        (bomb(1200), "1,200 × 1,200 pixels, more than 1,000,000"),
        (bomb(15_000), "more than 1,000,000 pixels"),
    ):
        status, _, body = server.request("/v1/predict/m", data, {"content-type": "image/png"})
        got = json.loads(body)
        assert (status, got["code"], word in got["error"]) == (400, "invalid_input", True), got
        assert got["error"].startswith("The file can't be read: ")
        status, _, body = server.request("/v1/predict/m", *form([("a.png", good), ("b.png", data), ("c.png", good)]))
        assert (status, json.loads(body)["error"].startswith("File 2 (b.png) can't be read: ")) == (400, True), body
    text = base64.b64encode(b"nothing").decode()
    assert "Column 'image', row 1, can't be read" in server.ask("/v1/predict/m", {"image": text})[1]["error"]
    model = server.model("m")
    assert len(model.workers) == 1  # no file has killed a worker
    assert model.failures == 0


def test_a_bad_file_in_a_batch_fails_alone(server: Running, bundle: ImageBundle) -> None:
    arrays = pixels(24)
    right = wanted(bundle, arrays)
    files = [packed(a) if k % 5 else b"cut" for k, a in enumerate(arrays)]
    found: dict[int, tuple[int, Any]] = {}

    def ask(number: int) -> None:
        status, _, body = server.request("/v1/predict/m", files[number], {"content-type": "image/png"})
        found[number] = status, json.loads(body)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for k in range(len(files)):
        status, got = found[k]
        assert status == (200 if k % 5 else 400), got
        assert not k % 5 or near(got["predictions"], right[k : k + 1])


def test_many_files_go_in_slices_and_the_bad_one_is_counted_in_the_request(
    server: Running, bundle: ImageBundle
) -> None:
    server.model("m").line.learn([(1, 1.0), (4, 1.2), (8, 100.0)])
    arrays = pixels(18)
    files = [(f"{k}.png", packed(a)) for k, a in enumerate(arrays)]
    status, _, body = server.request("/v1/predict/m", *form(files))
    assert status == 200
    assert near(json.loads(body)["predictions"], wanted(bundle, arrays))
    files[13] = ("thirteen.png", b"no")
    status, _, body = server.request("/v1/predict/m", *form(files))
    assert (status, "File 14 (thirteen.png)" in json.loads(body)["error"]) == (400, True), body


@pytest.mark.parametrize(
    ("body", "headers", "status", "word"),
    [
        (b"", {"content-type": "image/png"}, 400, "empty"),
        (b"x" * 300_000, {"content-type": "image/png"}, 413, "200,000 bytes"),
        (b"{", {}, 400, "not JSON"),
        (b'{"records": []}', {}, 400, "at least one record"),
        (b'{"records": [{"picture": ""}]}', {}, 400, "no column 'image'"),
        (b'{"columns": {"image": []}}', {}, 400, "at least one"),
        (b'{"image": 7}', {}, 400, "is no text"),
        (b'{"image": "***"}', {}, 400, "not Base64"),
        (b'{"columns": {"image": "a"}}', {}, 400, "list of cells"),
        (b"--x\r\n\r\n", {"content-type": "multipart/form-data"}, 400, "boundary"),
        (b"nothing", {"content-type": "multipart/form-data; boundary=x"}, 400, "cut off"),
        (b"--x\r\n\r\nabc\r\n--x--", {"content-type": "multipart/form-data; boundary=x"}, 400, "is no file"),
        (b"--x\r\nabc\r\n--x--", {"content-type": "multipart/form-data; boundary=x"}, 400, "no head"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nabc',
            {"content-type": "multipart/form-data; boundary=x"}, 400, "cut off",
        ),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told(
    server: Running, body: bytes, headers: dict[str, str], status: int, word: str
) -> None:
    got, _, told = server.request("/v1/predict/m", body, headers, method="POST")
    assert (got, word in json.loads(told)["error"]) == (status, True), told


def test_tensors_of_files_are_checked(server: Running) -> None:
    one = base64.b64encode(packed(pixels(1)[0])).decode()
    for tensors, word in (
        ([{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}], "not Base64"),
        ([{"name": "image", "datatype": "BYTES", "shape": [1, 1, 1], "data": [one]}], "go alone"),
        (
            [
                {"name": "image", "datatype": "BYTES", "shape": [1], "data": [one]},
                {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]},
            ],
            "go alone",
        ),
        ([{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["YQ=="]}], "element 1, can't be read"),
        ([{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 4], "data": [0] * 16}], "must have the shape"),
    ):
        status, got = server.ask("/v2/models/m/infer", {"inputs": tensors})
        assert (status, word in got["error"]) == (400, True), got


def test_a_large_form_is_read_beside_the_loop(start: Start, bundle: ImageBundle) -> None:
    server = start({"m": bundle.path})
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3)).astype(np.uint8)
    data = packed(noise, "BMP")
    assert not FileCodec.quick(len(data))
    text = base64.b64encode(data).decode()
    right = wanted(bundle, [noise])
    for body, headers in ((data, {"content-type": "image/bmp"}), (json.dumps({"image": text}).encode(), {})):
        status, _, got = server.request("/v1/predict/m", body, headers)
        assert (status, json.loads(got)["predictions"]) == (200, right)


def test_a_regression_answers_values(start: Start, tmp_path: Path) -> None:
    opened = make(tmp_path / "value.tm", VALUE)
    server = start({"m": opened.path})
    image = pixels(1)[0]
    status, _, body = server.request("/v1/predict/m", packed(image), {"content-type": "image/png"})
    assert (status, json.loads(body)["predictions"]) == (200, [{"value": float(opened.predict([image])[0])}])


def test_the_watch_sees_files_as_they_came(start: Start, bundle: ImageBundle) -> None:
    seen = Whole()
    server = start({"m": bundle.path}, observer=seen)
    data = packed(pixels(1)[0])
    assert server.request("/v1/predict/m", data, {"content-type": "image/png"})[0] == 200
    until(lambda: len(seen.events) == 1)
    (event,) = seen.events
    assert list(event.columns) == ["image"]
    assert event.columns["image"].tolist() == [data]
    assert event.columns.file_bytes == len(data) + 4  # type: ignore[attr-defined]  # the engine's own kind


def test_the_interface_describes_files(server: Running) -> None:
    document = server.ask("/openapi.json")[1]
    content = document["paths"]["/v1/predict/m"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "image/*", "multipart/form-data"}
    assert server.ask("/v1/predict/m", content["application/json"]["example"])[0] == 200


def test_a_worker_that_dies_is_replaced_and_its_images_are_answered(server: Running, bundle: ImageBundle) -> None:
    import os
    import signal

    image = pixels(1)[0]
    for _ in range(3):
        until(lambda: [w.pid > 0 for w in server.model("m").workers] == [True])
        os.kill(server.model("m").workers[0].pid, signal.SIGKILL)
        status, _, body = server.request("/v1/predict/m", packed(image), {"content-type": "image/png"})
        assert (status, json.loads(body)["predictions"]) == (200, wanted(bundle, [image]))


def test_an_absent_package_is_told_before_anything_starts(bundle: ImageBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._NEEDS, "images", ("no_such_module", "pillow", "to serve images", "deep"))
    with pytest.raises(MissingExtraError, match=r"pillow.*tidemill\[deep\]"):
        read_facts(bundle.path)


def test_an_encoder_that_is_not_known_is_told() -> None:
    with pytest.raises(BundleError, match="no encoder 'sounds'"):
        open_encoder(Encoding("sounds", "sound", "/nowhere"), ["x"], {})


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_cells_come_back_as_they_were_joined(cells: list[bytes]) -> None:
    assert split_cells(join_cells(cells)) == cells


@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=6),
    st.integers(1, 4),
    st.text("abc-_'()+,./:=?", min_size=1, max_size=20),
)
def test_files_of_a_form_come_back_as_they_were_sent(cells: list[bytes], most: int, boundary: str) -> None:
    codec = FileCodec("image", TASK, Limits())
    body, headers = form([(f"{k}.png", c) for k, c in enumerate(cells)], boundary)
    if any(b"\r\n--" + boundary.encode() in b"\r\n" + c for c in cells):
        return
    kind = f'multipart/form-data; boundary="{boundary}"'.encode()
    assert headers
    query = codec.read(body, kind)
    assert (query.rows, query.shapes, split_cells(query.pieces[0])) == (len(cells), ENCODED, cells)
    pieces = query.split(("BYTES",), most)
    assert [c for p in pieces for c in split_cells(bytes(p.pieces[0]))] == cells
    assert pieces[-1].misfit(pieces[-1].rows - 1, "so") == query.misfit(len(cells) - 1, "so")


@given(st.binary(max_size=80))
def test_no_bytes_are_a_bug(data: bytes) -> None:
    codec = FileCodec("image", TASK, Limits(rows=3, file_bytes=50))
    form_types = (b"multipart/form-data; boundary=a", b"multipart/form-data; boundary=\xff")
    for kind in (b"image/png", b"application/json", *form_types):
        with contextlib.suppress(Refusal):
            assert codec.read(data, kind).rows >= 1
    with contextlib.suppress(ValueError):
        decode(data, 100)


@given(st.binary(max_size=60))
def test_base64_comes_back(data: bytes) -> None:
    assert from_base64(base64.b64encode(data).decode(), "It", 100) == data


def test_too_many_files_are_refused() -> None:
    codec = FileCodec("image", Task(TASK.kind, "t", TASK.classes), Limits(rows=2))
    body, headers = form([("a", b"1"), ("b", b"2"), ("c", b"3")])
    with pytest.raises(Refusal) as caught:
        codec.read(body, headers["content-type"].encode())
    assert caught.value.status == 413


def test_decoding_in_a_worker_names_the_place() -> None:
    encoder = images.ImageFiles("image", 1000)
    stacks = encoder.feeds([packed(np.zeros((2, 2, 3), np.uint8)), packed(np.zeros((2, 2, 3), np.uint8)), b"x"])
    with pytest.raises(UnreadableError) as caught:
        list(stacks)
    assert caught.value.place == 2
