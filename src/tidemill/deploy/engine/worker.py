"""One model in a process of its own: reads frames, runs the graph, writes frames. Forked from the zygote.

It stands on onnxruntime and numpy alone, has one thread, and ends when the socket to its front closes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tidemill.bundle.runner.beams import BeamSession, decoding
from tidemill.core.errors import BundleError, TidemillError
from tidemill.deploy.engine import wire
from tidemill.deploy.engine.encoders.base import (
    COLUMNS,
    TEXTS,
    Encoder,
    Encoding,
    RowEncoder,
    UnreadableError,
    open_encoder,
    open_rows,
)
from tidemill.deploy.engine.layout import Layout, TensorSpec, read_layout

CURVE = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)
"""Batch sizes of the fine curve: trees have a narrow best size, with a cliff behind it."""
CURVE_S = 0.6
_POINT_S = 0.02
_MOST_POINT_BYTES = 1 << 26
"""Inputs of the largest batch that is measured, where one row alone does not have more."""
_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(path: str | bytes, provider: str = "cpu") -> Any:
    """Start onnxruntime with the options of `tidemill.bundle.latency.session`: same graph, same bits.

    Raises
    ------
    BundleError
        Where the execution provider is absent, or the graph can't be loaded.
    """
    name = _PROVIDERS.get(provider)
    present = onnxruntime.get_available_providers()
    if name is None or name not in present:
        raise BundleError(
            f"The execution provider {provider!r} is not in this onnxruntime, which has {', '.join(present)}.",
            hint="Install onnxruntime-gpu, or serve on the CPU." if provider == "cuda" else None,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    wanted = [name] if provider == "cpu" else [name, _PROVIDERS["cpu"]]
    try:
        session = onnxruntime.InferenceSession(path, options, providers=wanted)
    except Exception as error:
        where = path if isinstance(path, str) else None
        raise BundleError(f"onnxruntime can't load the graph ({_first_line(error)}).", where=where) from error
    if name not in session.get_providers():
        raise BundleError(f"onnxruntime could not start the execution provider {provider!r} here.")
    return session


class Model:
    """A session with the way from frames to feeds.

    Parameters
    ----------
    path : str
        The ONNX file.
    provider : str
        ``"cpu"`` or ``"cuda"``.
    layout : Layout, optional
        As an earlier worker found it: a later one need not try the graph out.
    encoding : Encoding, optional
        What is done to cells before the graph.
    """

    def __init__(
        self, path: str, provider: str = "cpu", layout: Layout | None = None, encoding: Encoding | None = None
    ) -> None:
        start = time.perf_counter()
        try:
            self.session = decoding(open_session(path, provider))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"How texts are searched for can't be understood ({error}).", where=path) from error
        self.load_ms = (time.perf_counter() - start) * 1e3
        self._outputs = [o.name for o in self.session.get_outputs()]
        inputs = [TensorSpec(i.name, _type_of(i.type, i.name), _dims(i.shape)) for i in self.session.get_inputs()]
        outputs = [TensorSpec(o.name, _type_of(o.type, o.name), _dims(o.shape)) for o in self.session.get_outputs()]
        meta = self.session.get_modelmeta().custom_metadata_map
        self.rows: RowEncoder | None = None
        if encoding is not None and encoding.name == COLUMNS:
            self.rows = open_rows(encoding, [i.name for i in inputs], meta)
            inputs = self.rows.shown(inputs)
        self.layout = layout or read_layout(inputs, outputs, meta.get("tidemill.inputs", ""), self._grows)
        self.encoder: Encoder | None = None
        if encoding is not None and self.rows is None:
            self.encoder = open_encoder(encoding, [i.name for i in inputs], meta)
            self.layout = replace(self.layout, encoded=encoding.column, texts=encoding.name == TEXTS)
            if not self.layout.batches:
                raise BundleError("The graph takes no batches, so that its rows can't be encoded.", where=path)
        self.meta = {k: v for k, v in meta.items() if k.startswith("tidemill.")}

    def _grows(self, inputs: list[TensorSpec]) -> bool:
        """Two rows give two answers: what the graph declares of its axes is often wrong."""
        if any(not i.dims or i.dims[0] is not None for i in inputs):
            return False
        try:
            for rows in (1, 2):
                feed = {i.name: _blank(i, rows) for i in inputs}
                if any(np.ndim(o) == 0 or len(o) != rows for o in self.session.run(None, feed)):
                    return False
        except Exception:  # noqa: BLE001  a graph that can't run on blanks is not batched
            return False
        return True

    def feed(self, tensors: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Graph inputs from wire tensors."""
        layout = self.layout
        if not layout.columns:
            return {spec.name: values for spec, values in zip(layout.inputs, tensors, strict=True)}
        feed: dict[str, NDArray[Any]] = {}
        for names, values in zip(layout.groups, tensors, strict=True):
            by_column = np.ascontiguousarray(values.T)
            for name, column in zip(names, by_column, strict=True):
                feed[name] = column.reshape(-1, 1)
        return feed

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs in the graph's order."""
        values: list[NDArray[Any]] = self.session.run(None, feed)
        return values

    def answer(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs in the graph's order, for rows as a caller sends them.

        Raises
        ------
        UnreadableError
            With the first row that can't be encoded.
        """
        return self.run(feed) if self.rows is None else self.rows.answer(self.session, feed)

    def takes_cells(self, tensors: Sequence[wire.Tensor]) -> bool:
        """True where a batch must be encoded before the graph can take it."""
        return self.encoder is not None and tensors[0].type == "BYTES" and len(tensors[0].shape) == 1

    def run_cells(self, cells: Sequence[bytes]) -> list[NDArray[Any]]:
        """Encode cells and run the graph, some at a time; outputs in the graph's order, rows in that of the cells.

        Raises
        ------
        UnreadableError
            With the first cell that can't be encoded.
        """
        assert self.encoder is not None
        parts = [self.run(feed) for feed in self.encoder.feeds(cells)]
        return parts[0] if len(parts) == 1 else [np.concatenate(some) for some in zip(*parts, strict=True)]

    def describe(self) -> dict[str, Any]:
        """What the front must know."""
        return {"layout": self.layout.to_json(), "meta": self.meta, "load_ms": self.load_ms, "memory": held_bytes()}

    def measure(self, feed: Mapping[str, NDArray[Any]], batches: tuple[int, ...] = CURVE) -> list[tuple[int, float]]:
        """Batch curve in milliseconds of this thread's own time, which a busy machine does not lengthen."""
        rows = len(next(iter(feed.values())))
        row_bytes = sum(v.nbytes for v in feed.values()) / rows
        curve: list[tuple[int, float]] = []
        begin = time.perf_counter()
        for batch in batches:
            if curve and batch * row_bytes > _MOST_POINT_BYTES:
                break
            left = CURVE_S - (time.perf_counter() - begin)
            if curve and batch / curve[-1][0] * curve[-1][1] / 1e3 > left / 3:
                break
            index = np.arange(batch) % rows
            curve.append((batch, self._time_ms({k: v[index] for k, v in feed.items()})))
        return curve

    def _time_ms(self, feed: Mapping[str, NDArray[Any]]) -> float:
        self.session.run(None, feed)
        times: list[float] = []
        end = time.perf_counter() + _POINT_S
        while len(times) < 3 or time.perf_counter() < end:
            start = time.thread_time()
            self.session.run(None, feed)
            times.append(time.thread_time() - start)
        return float(np.median(times)) * 1e3


def _type_of(kind: str, name: str) -> str:
    if kind not in _TYPES:
        raise BundleError(f"The tensor {name!r} has the type {kind}, which the v2 protocol does not know.")
    return _TYPES[kind]


def _dims(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(d if isinstance(d, int) else None for d in shape)


def _blank(spec: TensorSpec, rows: int) -> NDArray[Any]:
    shape = (rows, *(d or 1 for d in spec.dims[1:]))
    return np.full(shape, "", dtype=object) if spec.type == "BYTES" else np.zeros(shape, wire.TYPES[spec.type])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]


# ------------------------------------------------------------------------------------------------------- the process


class Inbox:
    """Whole frames from a blocking socket, read into one buffer that grows to the largest of them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(1 << 16)
        self._have = 0

    def next(self) -> memoryview | None:
        """The next frame, valid until the next call; None at the end."""
        while True:
            if self._have >= 4:
                size = 4 + int.from_bytes(self._buffer[:4], "little")
                if self._have >= size:
                    return memoryview(self._buffer)[:size]
                if size > len(self._buffer):
                    self._buffer = self._buffer + bytearray(size - len(self._buffer))
            with memoryview(self._buffer)[self._have :] as free:
                count = self._sock.recv_into(free)
            if count == 0:
                return None
            self._have += count

    def done(self, size: int) -> None:
        """Forget the frame that `next` gave."""
        rest = self._have - size
        if rest:
            self._buffer[:rest] = self._buffer[size : self._have]
        self._have = rest


def live(sock: socket.socket, job: Mapping[str, Any], shared: int | None = None) -> NoReturn:
    """Be a worker until the socket closes; then the process ends. ``shared`` is the file of memory for large data."""
    code = 1
    try:
        with contextlib.suppress(ConnectionError):
            _serve(sock, job, _areas(shared))
        code = 0
    finally:
        os._exit(code)  # nothing that the parent had opened or registered is ours to end


def _areas(shared: int | None) -> list[memoryview]:
    """The two halves of the memory that the front writes to."""
    if shared is None:
        return []
    size = os.fstat(shared).st_size
    view = memoryview(mmap.mmap(shared, size, prot=mmap.PROT_READ))
    os.close(shared)
    return [view[: size // 2], view[size // 2 :]]


def _serve(sock: socket.socket, job: Mapping[str, Any], areas: list[memoryview]) -> None:
    if job.get("nice"):
        os.nice(int(job["nice"]))
    if job.get("memory"):
        limit_memory(int(job["memory"]))
    try:
        known = Layout.from_json(job["layout"]) if "layout" in job else None
        encoding = Encoding.from_json(job["encoding"]) if "encoding" in job else None
        model = Model(str(job["model"]), str(job.get("provider", "cpu")), known, encoding)
        ready = json.dumps(model.describe()).encode()
    except (TidemillError, ImportError, MemoryError) as error:
        text = json.dumps({"error": str(error) or "There is not enough memory."}).encode()
        sock.sendall(wire.json_frame(wire.FAILED, 0, text))
        return
    sock.sendall(wire.json_frame(wire.READY, 0, ready))
    inbox = Inbox(sock)
    while (view := inbox.next()) is not None:
        size = len(view)
        sock.sendall(_answer(model, view, areas))
        view.release()
        inbox.done(size)


def _answer(model: Model, view: memoryview, areas: Sequence[memoryview]) -> bytes:
    _, kind, count, area, ticket, _ = wire.HEAD.unpack_from(view)
    try:
        if kind == wire.RUN:
            tensors = wire.tensors_of(view, count, areas[area - 1] if area else None)
            if model.takes_cells(tensors):
                start = time.perf_counter()
                outputs = model.run_cells(wire.split_cells(tensors[0].data))
            else:
                feed = model.feed([t.array() for t in tensors])
                start = time.perf_counter()
                outputs = model.answer(feed)
            spent = (time.perf_counter() - start) * 1e3
            return wire.frame(wire.ANSWER, ticket, [wire.tensor_of(o) for o in outputs], milliseconds=spent)
        request = json.loads(bytes(view[wire.HEAD.size :]))
        if kind == wire.CHECK:
            report = _check(model, Path(request["golden"]))
        else:
            report = _measured(model, request)
        return wire.json_frame(wire.REPORT, ticket, json.dumps(report).encode())
    except UnreadableError as error:
        text = json.dumps({"error": error.reason, "kind": "input", "row": error.place}).encode()
        return wire.json_frame(wire.FAILED, ticket, text)
    except Exception as error:  # noqa: BLE001  a worker's edge: what a model raises becomes that request's answer
        kind_of = "input" if type(error).__name__ == "InvalidArgument" else "model"
        text = json.dumps({"error": _first_line(error), "kind": kind_of}).encode()
        return wire.json_frame(wire.FAILED, ticket, text)


def _check(model: Model, path: Path) -> dict[str, Any]:
    from tidemill.bundle import golden
    from tidemill.deploy.engine.golden import differences

    inputs, wanted = golden.parse(path.read_bytes())
    if isinstance(model.session, BeamSession):  # what is kept is what the graph itself said
        wanted = model.session.decoded(wanted)
    got = dict(zip([o.name for o in model.layout.outputs], model.run(inputs), strict=True))
    return {"problems": differences(wanted, got), "memory": held_bytes()}


def _measured(model: Model, request: Mapping[str, Any]) -> dict[str, Any]:
    feed = None
    if request.get("golden"):
        from tidemill.bundle import golden

        feed, _ = golden.parse(Path(request["golden"]).read_bytes())
    inputs = model.layout.inputs
    rows = feed or {i.name: _blank(i, 16 if model.layout.batches else 1) for i in inputs}
    curve = model.measure(rows, CURVE if model.layout.batches else (1,))
    return {"curve": curve, "memory": held_bytes(), "peak": peak_bytes()}


def limit_memory(extra_bytes: int) -> None:
    """Allow so many bytes beyond what is held now; an allocation beyond it fails in this process alone."""
    used = _status("VmData:")
    if used:
        limit = used + extra_bytes
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def held_bytes() -> int:
    """Bytes that this process alone holds."""
    return _status("RssAnon:")


def peak_bytes() -> int:
    """Most bytes that were resident, shared pages included."""
    return _status("VmHWM:")


def _status(field: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def reset_signals() -> None:
    """A worker ends with its socket, not with a key on a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
