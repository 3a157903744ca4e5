"""Who may do what at the front's door, what a request may hold, and what a model may not do."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from tests.deploy.engine.conftest import Running, Start
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME, Load, doubled, until

from tidemill.core.errors import BundleError, OptionError
from tidemill.deploy.audit import read_audit
from tidemill.deploy.controller import write_bars
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.server import Server
from tidemill.deploy.engine.sources import StaticSource
from tidemill.deploy.registry import Mode
from tidemill.deploy.types import CanaryStep

Models = Callable[[str], Path]
ROW = {"size": 1, "colour": "a", "weight": 2}
DOORS = {
    "predict": [
        ("GET", "/v2", None),
        ("GET", f"/v2/models/{NAME}", None),
        ("GET", f"/v2/models/{NAME}/ready", None),
        ("GET", "/openapi.json", None),
        ("POST", f"/v1/predict/{NAME}", ROW),
        ("POST", f"/v2/models/{NAME}/infer", {"inputs": []}),
        ("POST", "/v2/repository/index", {}),
    ],
    "feedback": [
        ("POST", f"/v1/feedback/{NAME}", {"items": [{"request_id": "r", "label": "yes"}]}),
        ("POST", f"/v2/models/{NAME}/feedback", {"items": [{"request_id": "r", "label": "yes"}]}),
    ],
    "deploy": [("POST", f"/v2/repository/models/{NAME}/load", {})],
    "admin": [("GET", "/metrics", None)],
}
LENGTH = "Inference-Header-Content-Length"
OPEN = ["/healthz", "/v2/health/live", "/v2/health/ready", "/"]


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _answer(front: Running, door: tuple[str, str, Any], headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
    method, path, body = door
    status, told, data = front.request(path, body, headers, method)
    return status, told, data


def test_every_door_asks_for_its_scope(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site(keys=True)
    revision = here.deploy(pair[0])
    here.serves(revision)
    tokens = {scope: here.keys.create(scope, [scope])[1] for scope in ("predict", "feedback", "deploy", "admin")}
    tokens["features"] = here.keys.create("features", ["features"])[1]
    assert here.ring is not None
    here.ring.refresh()
    for path in OPEN:
        assert here.front.request(path)[0] == 200
    for scope, doors in DOORS.items():
        for door in doors:
            status, told, data = _answer(here.front, door, {})
            assert (status, json.loads(data)["code"]) == (401, "unauthorised"), door
            assert told["www-authenticate"].startswith("Bearer")
            for name, token in tokens.items():
                for headers in (_bearer(token), {"X-Api-Key": token}):
                    status, _, data = _answer(here.front, door, headers)
                    if name in (scope, "admin"):
                        assert status not in (401, 403), (door, name, status)
                    else:
                        assert (status, json.loads(data)["code"]) == (403, "forbidden"), (door, name)
    for wrong in ("", "nonsense", "tm_000000000000_" + "A" * 43, tokens["admin"][:-1], tokens["admin"] + "A"):
        assert here.front.request("/metrics", headers=_bearer(wrong))[0] == 401


def test_a_key_is_for_its_endpoints_alone(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site(keys=True)
    here.serves(here.deploy(pair[0]))
    here.serves(here.deploy(pair[1], "n"), name="n")
    _, token = here.keys.create("one", ["predict"], endpoints=["n"])
    assert here.ring is not None
    here.ring.refresh()
    assert here.front.request("/v1/predict/n", ROW, _bearer(token))[0] == 200
    assert here.front.request(f"/v1/predict/{NAME}", ROW, _bearer(token))[0] == 403
    assert here.front.request("/v1/predict/%6d", ROW, _bearer(token))[0] == 403  # however the name is written


def test_a_rate_a_quota_and_an_end_hold_at_the_door(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site(keys=True)
    here.serves(here.deploy(pair[0]))
    path = f"/v1/predict/{NAME}"
    _, quick = here.keys.create("quick", ["predict"], rate=0.02, burst=3)
    _, few = here.keys.create("few", ["predict"], quota=4, period="week")
    key, gone = here.keys.create("gone", ["predict"])
    assert here.ring is not None
    here.ring.refresh()
    told = [here.front.request(path, ROW, _bearer(quick)) for _ in range(5)]
    assert [status for status, _, _ in told] == [200, 200, 200, 429, 429]
    body = json.loads(told[-1][2])
    assert body["code"] == "too_many_requests"
    assert 0 < body["retry_after_s"] <= 50
    assert 1 <= int(told[-1][1]["retry-after"]) <= 50
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(here.front.request(path, ROW, _bearer(few))[0]))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] * 4 + [429] * 8
    assert here.front.request(path, ROW, _bearer(gone))[0] == 200
    here.keys.revoke(key.id)
    until(lambda: here.front.request(path, ROW, _bearer(gone))[0] == 401)


def test_no_change_is_without_its_line(site: MakeSite, pair: tuple[Path, Path]) -> None:
    """Everything that changes what is served or who may ask, by the name under which it is logged."""
    here = site()
    first, registry = here.deploy(pair[0]), here.registry
    second = here.deploy(pair[1], mode=Mode.NONE)
    steps = (CanaryStep(0.5), CanaryStep(1.0))

    def canary() -> float:
        canary = registry.start_canary(NAME, second, steps).canary
        assert canary is not None
        return canary.step_at

    key = here.keys.create("shop")[0]
    changes: list[tuple[str, Callable[[], Any]]] = [
        ("configure", lambda: registry.configure(NAME, {"target_ms": 50})),
        ("traffic", lambda: registry.set_traffic(NAME, {first: 1, second: 1})),
        ("rollback", lambda: registry.rollback(NAME, to=first)),
        ("shadow", lambda: registry.set_shadow(NAME, second)),
        ("shadow", lambda: registry.set_shadow(NAME, "")),
        ("gate", lambda: write_bars(registry, NAME, {"latency": 3})),
        ("canary_rollback", lambda: registry.stop_canary(NAME, "harm", at=canary())),
        ("canary_step", lambda: registry.step_canary(NAME, at=canary())),
        ("rollback", lambda: registry.rollback(NAME, to=first)),
        ("key_create", lambda: here.keys.create("other")),
        ("key_revoke", lambda: here.keys.revoke(key.id)),
        ("drop", lambda: registry.drop(NAME, second)),
        ("undeploy", lambda: registry.undeploy(NAME)),
    ]
    for what, change in changes:
        before = len(read_audit(here.workspace.journal, limit=1000))
        change()
        lines = read_audit(here.workspace.journal, limit=1000)
        assert len(lines) > before, what
        assert (lines[-1]["what"], lines[-1]["actor"]) == (what, "test")
    text = json.dumps(read_audit(here.workspace.journal, limit=1000))
    assert key.hash not in text


# ----------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as files."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tidemill test")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    root = tmp_path_factory.mktemp("tls")
    (root / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (root / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return root / "cert.pem", root / "key.pem"


def test_tls_by_files(start: Start, models: Models, certificate: tuple[Path, Path]) -> None:
    server = start({NAME: models("double")}, certificate=str(certificate[0]), key=str(certificate[1]))
    assert server.server.url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=trusting)
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    connection.request("POST", f"/v2/models/{NAME}/infer", body)
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]
    assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")
    connection.close()
    strange = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain, pytest.raises(ssl.SSLError):
        strange.wrap_socket(plain, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200 OK" not in plain.recv(4096)


def test_files_that_are_no_certificate_are_told(models: Models, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    source = StaticSource({NAME: read_facts(models("double"))})
    for files in ((str(tmp_path / "no.pem"), str(certificate[1])), (str(certificate[0]), str(tmp_path / "absent.pem"))):
        with pytest.raises(OptionError, match="certificate can't be used"):
            Server(source, certificate=files[0], key=files[1])


# ------------------------------------------------------------------------------------------------------ what is sent


def _tensor(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]} | changes
    return json.dumps({"inputs": [tensor]}).encode()


def _binary(shape: list[int], size: int, tail: bytes, datatype: str = "FP32") -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + tail, {LENGTH: str(len(head))}


RAW = np.ones(4, np.float32).tobytes()
BOUNDS: dict[str, tuple[bytes, dict[str, str]]] = {
    "a product that overflows to nothing": (_tensor(shape=[2**32, 2**32]), {}),
    "a product that overflows to what is there": (_tensor(shape=[2**62, 2**62 + 1, 4]), {}),
    "more than fits any machine": (_tensor(shape=[2**40, 4]), {}),
    "a negative size": (_tensor(shape=[-1, -4]), {}),
    "no size": (_tensor(shape=[0, 4], data=[]), {}),
    "a fraction": (_tensor(shape=[1.5, 4]), {}),
    "very many axes": (_tensor(shape=[1] * 500 + [4]), {}),
    "a number that JSON has not": (_tensor().replace(b"[1, 2, 3, 4]", b"[NaN, 2, 3, 4]"), {}),
    "an infinity that JSON has not": (_tensor().replace(b"[1, 2, 3, 4]", b"[Infinity, 2, 3, 4]"), {}),
    "depth": (b'{"inputs": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", {}),
    "nested data of another form": (_tensor(data=[[1, 2], [3]]), {}),
    "bytes that overflow": _binary([2**31, 2**31], 16, RAW),
    "a size that is not there": _binary([1, 4], 2**62, RAW),
    "a negative size of bytes": _binary([1, 4], -16, RAW),
    "a head that is longer than the body": (_binary([1, 4], 16, RAW)[0], {LENGTH: "9" * 11}),
    "a length of the head that is none": (_binary([1, 4], 16, RAW)[0], {LENGTH: "-4"}),
    "texts whose length lies": _binary([1, 4], 8, struct.pack("<I", 2**32 - 1) + b"abcd", "BYTES"),
    "a body that is packed": (b"\x1f\x8b" + b"\0" * 50, {"Content-Encoding": "gzip"}),
}


def test_what_a_request_may_not_hold_is_refused_and_costs_nothing(start: Start, models: Models) -> None:
    server = start({NAME: models("double")})
    here = psutil.Process()
    before = here.memory_info().rss
    for name, (body, headers) in BOUNDS.items():
        status, _, data = server.request(f"/v2/models/{NAME}/infer", body, headers)
        told = json.loads(data)
        assert status in (400, 413, 415), (name, status, told)
        assert told["code"] in ("bad_request", "invalid_input", "too_many_rows", "media_type"), (name, told)
        assert len(told["error"]) < 2000, name
    assert here.memory_info().rss - before < 200 << 20
    assert server.request(f"/v2/models/{NAME}/infer", _tensor())[0] == 200


def test_a_number_too_large_for_its_type_is_infinite_and_answers_as_null(start: Start, models: Models) -> None:
    """JSON has no infinity: what float32 can't hold is one, and its answer is null; binary says it itself."""
    server = start({NAME: models("double")})
    status, _, data = server.request(f"/v2/models/{NAME}/infer", _tensor(data=[1e39, None, 3, 4]))
    assert status == 200
    assert json.loads(data)["outputs"][0]["data"] == [None, None, 6.0, 8.0]
    odd = np.array([np.inf, -np.inf, np.nan, 1], np.float32)
    body, headers = _binary([1, 4], 16, odd.tobytes())
    status, _, data = server.request(f"/v2/models/{NAME}/infer", body, headers)
    assert (status, json.loads(data)["outputs"][0]["data"]) == (200, [None, None, None, 2.0])


def test_huge_texts_are_answered_or_refused_and_hold_nobody_up(start: Start, models: Models) -> None:
    server = start({NAME: models("binary")}, limits=Limits(body_bytes=8 << 20))
    long = {"size": 1, "colour": "ü" * (3 << 20), "weight": 2}  # six megabytes, sent as they are
    sent = json.dumps(long, ensure_ascii=False).encode()
    assert server.request(f"/v1/predict/{NAME}", sent)[0] == 200
    deep: Any = 1
    for _ in range(600):
        deep = {"a": deep}
    for record in ({**ROW, "size": deep}, {"x" * 10**6: 1}, {**ROW, "size": "9" * 100_000}, {**ROW, "weight": 10**400}):
        status, got = server.ask(f"/v1/predict/{NAME}", record)
        assert status == 400 or (status == 200 and "size" in record), got
        assert len(got.get("error", "")) < 5000
    assert server.ask(f"/v1/predict/{NAME}", ROW)[0] == 200


def test_too_many_rows_are_refused_in_every_form(start: Start, models: Models) -> None:
    server = start({NAME: models("binary"), "plain": models("double")}, limits=Limits(rows=100))
    assert server.ask(f"/v1/predict/{NAME}", [ROW] * 101)[0] == 413
    assert server.ask(f"/v1/predict/{NAME}", {"columns": {k: [v] * 101 for k, v in ROW.items()}})[0] == 413
    assert server.ask(f"/v1/predict/{NAME}", [ROW] * 100)[0] == 200
    wide = {"name": "x", "shape": [101, 4], "datatype": "FP32", "data": [0] * 404}
    assert server.ask("/v2/models/plain/infer", {"inputs": [wide]})[0] == 413


# ------------------------------------------------------------------------------------------------- what a model may not


def _graph(path: Path, **changes: Any) -> Path:
    node = helper.make_node("Add", ["x", "w"], ["y"], domain=changes.get("domain", ""))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    shape = ["N", 4]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], [weight],
    )  # fmt: skip
    if "location" in changes:
        tensor = graph.initializer[0]
        del tensor.float_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        for name, value in (("location", changes["location"]), ("offset", "0"), ("length", "16")):
            tensor.external_data.add(key=name, value=value)
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid("com.evil", 1)] if "domain" in changes else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "beside.bin", "/etc/hostname"])
def test_a_graph_that_reads_other_files_is_not_served(tmp_path: Path, location: str) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("secret.bin", "deep/beside.bin"):
        (tmp_path / name).write_bytes(np.ones(4, np.float32).tobytes())
    with pytest.raises(BundleError, match="outside of the file"):
        read_facts(_graph(tmp_path / "deep/model.onnx", location=location))


def test_a_graph_with_operators_of_its_own_does_not_start_and_others_go_on(
    start: Start, models: Models, tmp_path: Path
) -> None:
    server = start({"evil": _graph(tmp_path / "evil.onnx", domain="com.evil"), NAME: models("double")}, ready=False)
    with Load(server.port, doubled) as load:
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        status, got = server.ask("/v2/models/evil/infer", body)
        assert (status, got["code"]) == (503, "unavailable")
        load.more(20)
    load.assert_whole()


def _tampered(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Change the graph of a bundle, and make its manifest fit: what a person with bad intentions would send."""
    from tidemill.bundle import manifest

    path = folder / "1/model.onnx"
    model = onnx.load_model(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    files = {
        p.relative_to(folder).as_posix(): manifest.entry_of(p)
        for p in folder.rglob("*")
        if p.is_file() and p.name != manifest.NAME
    }
    (folder / manifest.NAME).write_bytes(manifest.render(files))
    return folder


def _external(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret.bin")
    model.graph.initializer.append(tensor)


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Steal", [], ["stolen"], domain="com.evil"))
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


@pytest.mark.parametrize(("change", "words"), [(_external, "another file"), (_custom, "com.evil")])
def test_a_bundle_with_a_graph_that_may_not_be_served_is_refused_at_both_doors(
    site: MakeSite, pair: tuple[Path, Path], tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    import shutil

    from tidemill.sdk.serve import serve

    bad = tmp_path / "bad.tm"
    shutil.copytree(pair[0], bad)
    _tampered(bad, change)
    here = site()
    with pytest.raises(BundleError, match=words):
        here.registry.deploy(bad, NAME)
    assert here.registry.endpoints() == []
    with pytest.raises(BundleError, match=words):
        serve(bad, port=0, on_start=lambda server: pytest.fail("it is served"))
