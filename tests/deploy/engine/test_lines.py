"""Bundles that read lines behind a server: a file in, its text out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.bundle.lines.made import WORDS, line_of, make
from tests.deploy.engine.conftest import Start

from tidemill.deploy.engine.limits import Limits


def packed(image: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_a_line_is_answered_with_its_text_and_how_sure_it_is(start: Start, tmp_path: Path) -> None:
    bundle = make(tmp_path / "stripes.tm")
    server = start({"m": bundle.path}, limits=Limits(image_pixels=1_000_000, file_bytes=200_000))
    arrays = [line_of(word) for word in WORDS]
    sure = [record["confidence"] for record in bundle.predict_records(arrays)]
    for array, word, confidence in zip(arrays, WORDS, sure, strict=True):
        status, _, body = server.request("/v1/predict/m", packed(array), {"content-type": "image/png"})
        assert status == 200, body
        (answer,) = json.loads(body)["predictions"]
        assert answer == {"text": word, "confidence": pytest.approx(confidence, abs=1e-6)}
    stack = np.stack([line_of("aß"), line_of("ßa")])
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(stack.shape), "data": stack.ravel().tolist()}
    status, got = server.ask("/v2/models/m/infer", {"inputs": [tensor]})
    assert status == 200
    outputs = {o["name"]: o for o in got["outputs"]}
    assert outputs["prediction"]["datatype"] == "BYTES"
    assert outputs["prediction"]["data"] == ["aß", "ßa"]
    described = server.ask("/openapi.json")[1]
    assert '"confidence"' in json.dumps(described)
    assert server.request("/v1/predict/m", b"no image", {"content-type": "image/png"})[0] == 400


def test_texts_that_are_searched_for_are_served_as_the_bundle_reads_them(start: Start, tmp_path: Path) -> None:
    bundle = make(tmp_path / "stripes.tm", width=4)
    rng = np.random.default_rng(3)
    arrays = [line_of("aß"), *(rng.integers(70, 250, (8, 48, 1), dtype=np.uint8).repeat(3, axis=2) for _ in range(4))]
    wanted = bundle.predict_records(arrays)
    server = start({"m": bundle.path}, limits=Limits(image_pixels=1_000_000, file_bytes=200_000))
    for array, record in zip(arrays, wanted, strict=True):
        status, _, body = server.request("/v1/predict/m", packed(array), {"content-type": "image/png"})
        assert status == 200, body
        (answer,) = json.loads(body)["predictions"]
        assert answer == {"text": record["prediction"], "confidence": pytest.approx(record["confidence"], abs=1e-6)}
    stack = np.stack(arrays[1:3])
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(stack.shape), "data": stack.ravel().tolist()}
    status, got = server.ask("/v2/models/m/infer", {"inputs": [tensor]})
    assert status == 200
    outputs = {o["name"]: o["data"] for o in got["outputs"]}
    assert set(outputs) == {"prediction", "confidence"}
    assert outputs["prediction"] == [record["prediction"] for record in wanted[1:3]]
