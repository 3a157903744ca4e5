"""Bytes that nobody meant, through the real door and the decoder: never an error of ours, never a wrong answer."""

from __future__ import annotations

import http.client
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from tests.deploy.engine.conftest import Running, Start
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME

from tidemill.deploy.engine.wire import join_texts

Models = Callable[[str], Path]
LENGTH = "Inference-Header-Content-Length"
HARMLESS = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def request(rows: int, texts: list[str]) -> tuple[bytes, int]:
    """A right request to the small bundle in binary form: body, and length of its head."""
    sizes, weights = np.arange(rows, dtype=np.float64), np.ones(rows)
    blobs = [sizes.tobytes(), join_texts((texts * rows)[:rows]), weights.tobytes()]
    kinds = (("size", "FP64"), ("colour", "BYTES"), ("weight", "FP64"))
    inputs = [
        {"name": n, "shape": [rows, 1], "datatype": k, "parameters": {"binary_data_size": len(b)}}
        for (n, k), b in zip(kinds, blobs, strict=True)
    ]
    head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return head + b"".join(blobs), len(head)


changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "put", "swap", "digit", "length"]), st.integers(0, 10_000), st.integers(0, 255)
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def changed(body: bytes, length: int, how: list[tuple[str, int, int]]) -> tuple[bytes, int]:
    """Change a request a little: a byte, a piece, a number, the length of the head."""
    data = bytearray(body)
    for kind, at, value in how:
        at %= max(1, len(data))
        if kind == "flip" and data:
            data[at] ^= value or 1
        elif kind == "cut":
            del data[at : at + 1 + value % 16]
        elif kind == "put":
            data[at:at] = bytes([value]) * (1 + value % 9)
        elif kind == "swap" and data:
            data[at], data[0] = data[0], data[at]
        elif kind == "digit":
            digits = [k for k, b in enumerate(data[:length]) if 48 <= b <= 57]
            if digits:
                data[digits[at % len(digits)]] = 48 + value % 10
        elif kind == "length":
            length = max(0, length + value - 128)
    return bytes(data), length


def post(running: Running, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_no_changed_byte_of_a_binary_request_brings_the_server_down(start: Start, models: Models) -> None:
    server = start({NAME: models("binary")})
    path = f"/v2/models/{NAME}/infer"

    @HARMLESS
    @given(st.integers(1, 5), st.lists(st.text(max_size=5), min_size=1, max_size=3), changes)
    def check(rows: int, texts: list[str], how: list[tuple[str, int, int]]) -> None:
        texts = [t.encode("utf-8", "replace").decode() for t in texts]
        body, length = request(rows, texts)
        assert post(server, path, body, {LENGTH: str(length)})[0] == 200
        body, length = changed(body, length, how)
        status, answer = post(server, path, body, {LENGTH: str(length)})
        assert status in (200, 400, 413), (status, answer)
        if status != 200:
            told = json.loads(answer)
            assert told["code"] in ("bad_request", "invalid_input", "too_many_rows"), told

    before = [w.pid for w in server.model(NAME).workers]
    check()
    assert [w.pid for w in server.model(NAME).workers] == before  # and no worker died of it


RECORD = st.dictionaries(
    st.sampled_from(["size", "colour", "weight", "Size", ""]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=3,
    ),
    max_size=4,
)


def test_no_record_brings_the_server_down(start: Start, models: Models) -> None:
    server = start({NAME: models("binary")})

    @HARMLESS
    @given(RECORD | st.lists(RECORD, max_size=3) | st.fixed_dictionaries({"columns": RECORD}))
    def check(document: Any) -> None:
        body = json.dumps(document).encode()
        status, answer = post(server, f"/v1/predict/{NAME}", body, {})
        assert status in (200, 400), (status, answer)
        told = json.loads(answer)
        rows = document if isinstance(document, list) else [document]
        if status == 200 and "columns" not in rows[0]:
            assert len(told["predictions"]) == len(rows)

    check()


def test_feedback_is_kept_or_refused_whatever_it_holds(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site()
    here.serves(here.deploy(pair[0]))
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
    item = st.dictionaries(st.sampled_from(["request_id", "label", "row", "at", "note", "x"]), values, max_size=5)

    @HARMLESS
    @given(item | st.lists(item, max_size=3) | st.fixed_dictionaries({"items": st.lists(item, max_size=3)}))
    def check(document: Any) -> None:
        status, answer = post(here.front, f"/v1/feedback/{NAME}", json.dumps(document).encode(), {})
        assert status in (200, 400, 422), (status, answer)

    check()
    assert here.front.request("/metrics")[0] == 200


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", ["v2", "frames", "records"])
def test_a_fuzzer_that_sees_which_branches_it_takes_finds_nothing(target: str, tmp_path: Path) -> None:
    """`tests.deploy.faults.fuzz` for some time; a crash leaves its input, whose name is in the output."""
    command = [
        sys.executable, "-m", "tests.deploy.faults.fuzz", target, "-runs=150000", "-max_total_time=60", "-seed=7",
        "-timeout=10", "-rss_limit_mb=4096", f"-artifact_prefix={tmp_path}/",
    ]  # fmt: skip
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
