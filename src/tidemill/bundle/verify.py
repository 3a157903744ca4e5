"""Checks all of a bundle: every byte, the description, the graph, and its golden answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types
from numpy.typing import NDArray

from tidemill import __version__
from tidemill.bundle import golden, manifest, spec
from tidemill.bundle.assemble import CONFIDENCE, LABEL, PREDICTION, PROBABILITIES, about, input_names
from tidemill.bundle.fusion.assemble import COLUMNS
from tidemill.bundle.graph import IR_VERSION, ML, ML_OPSET, OPSET
from tidemill.bundle.images.properties import PROPERTIES
from tidemill.bundle.latency import session
from tidemill.bundle.parity import MAX_DP, RTOL
from tidemill.bundle.programs import programs_of
from tidemill.bundle.reference import file as reference
from tidemill.bundle.runner.beams import DECODE
from tidemill.bundle.spec import BundleSpec
from tidemill.bundle.texts.readers import stored_readers
from tidemill.core.errors import BundleError
from tidemill.core.schema import SemanticType

_MODEL = "1/model.onnx"
_NEWEST = {"": OPSET, "ai.onnx": OPSET, ML: ML_OPSET}
COMPILED = "Python left compiled code here, which could run in place of the source; remove it."
"""What is said of a ``.pyc``: harmless where MLflow's import made it, but nobody can tell."""
_GOLDEN_SLACK = 4.0
"""Another machine's vector units may round otherwise; golden answers are held to this multiple of the parity bars."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a bundle: the file, and what about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(path: str | Path) -> list[Finding]:
    """Check a bundle; an empty list means that it is whole.

    Parameters
    ----------
    path : path
        The bundle's folder.

    Returns
    -------
    list of Finding
        What is wrong, the manifest first. Later checks are left out where a file that they need is damaged.

    Examples
    --------
    >>> [str(f) for f in verify("no-such-folder")]
    ['no-such-folder: There is no such folder.']
    """
    folder = Path(path)
    if not folder.is_dir():
        return [Finding(str(path), "There is no such folder.")]
    try:
        data = (folder / manifest.NAME).read_bytes()
    except OSError as error:
        return [Finding(manifest.NAME, f"It can't be read ({error.strerror}); is this a bundle?")]
    try:
        listed = manifest.parse(data)
    except BundleError as error:
        return [Finding(manifest.NAME, error.message)]
    findings = _check_files(folder, listed)
    if findings:
        return findings
    try:
        described = BundleSpec.from_json(json.loads((folder / spec.NAME).read_bytes()))
    except BundleError as error:
        return [Finding(spec.NAME, error.message)]
    except (OSError, ValueError) as error:
        return [Finding(spec.NAME, f"It can't be read ({error}).")]
    findings = _check_graph(folder, described)
    findings += _check_program(folder, described)
    findings += _check_reference(folder, described)
    return findings or _check_golden(folder, described)


def _check_files(folder: Path, listed: dict[str, manifest.FileEntry]) -> list[Finding]:
    findings: list[Finding] = []
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    for name in sorted(listed):
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            findings.append(Finding(manifest.NAME, f"It lists {name!r}, which is not in the bundle."))
        elif path.is_symlink():
            findings.append(Finding(name, "It is a link; a bundle holds plain files."))
        elif name not in present:
            findings.append(Finding(name, "The file is missing."))
        else:
            findings += _check_file(path, name, listed[name])
    for name in sorted(present - set(listed) - {manifest.NAME}):
        findings.append(Finding(name, COMPILED if name.endswith(".pyc") else "The file is not part of the bundle."))
    needed = (_MODEL, spec.NAME, golden.NAME, "run.py", "config.pbtxt", "README.md", "1/MLmodel")
    findings += [Finding(n, "A bundle needs this file.") for n in needed if n not in listed]
    return findings


def _check_file(path: Path, name: str, entry: manifest.FileEntry) -> list[Finding]:
    try:
        found = manifest.entry_of(path)
    except OSError as error:
        return [Finding(name, f"It can't be read ({error.strerror}).")]
    if found.size != entry.size:
        return [Finding(name, f"It has {found.size:,} bytes, but the manifest says {entry.size:,}.")]
    if found.sha256 != entry.sha256:
        return [Finding(name, "Its content was changed: the hash is not the one in the manifest.")]
    return []


def _check_graph(folder: Path, described: BundleSpec) -> list[Finding]:
    try:
        model = onnx.load_model(str(folder / _MODEL), load_external_data=False)
    except DecodeError as error:
        return [Finding(_MODEL, f"It is not an ONNX file ({error}).")]
    wrong: list[str] = []
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        wrong.append(f"It breaks the ONNX specification ({str(error).splitlines()[0]}).")
    for opset in model.opset_import:
        if opset.domain not in _NEWEST:
            wrong.append(f"It uses operators of the domain {opset.domain!r}, which plain onnxruntime lacks.")
        elif opset.version > _NEWEST[opset.domain]:
            wrong.append(f"It uses operator set {opset.version}, newer than {_NEWEST[opset.domain]}.")
    if model.ir_version > IR_VERSION:
        wrong.append(f"It has IR version {model.ir_version}, newer than {IR_VERSION}.")
    strange = {n.domain for n in _nodes(model.graph)} - set(_NEWEST)
    wrong += [f"It has a node of the domain {d!r}." for d in sorted(strange)]
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model.graph)):
        wrong.append("It keeps data outside of the file.")
    stated = {p.key: p.value for p in model.metadata_props}
    if described.schema.has_texts:
        wrong += _check_readers(folder, model, stated)
    elif [i.name for i in model.graph.input] != list(input_names(described.schema).values()):
        wrong.append("Its inputs are not the columns of the description.")
    elif described.schema.embedded:
        wrong += _check_columns(folder, described, stated)
    if any(stated.get(k) != v for k, v in about(described.task, described.schema).items()):
        wrong.append("It tells another task or other columns than the description.")
    if stated.get(DECODE) != (json.dumps(described.decode) if described.decode else None):
        wrong.append("It says otherwise than the description how texts are searched for.")
    return [Finding(_MODEL, w) for w in wrong]


def _check_readers(folder: Path, model: onnx.ModelProto, stated: dict[str, str]) -> list[str]:
    """Inputs of a graph for texts are those of its readers, whose files are those that it was proven with."""
    try:
        wanted = [name for reader in stored_readers(stated, folder) for name in reader.inputs]
    except BundleError as error:
        return [error.message]
    given = [i.name for i in model.graph.input]
    return [] if given == wanted else ["Its inputs are not those of its readers."]


def _check_columns(folder: Path, described: BundleSpec, stated: dict[str, str]) -> list[str]:
    """Every embedded column of texts has a reader, whose file is the one that the graph was proven with."""
    try:
        known = {reader.key for reader in stored_readers(stated, folder)}
        read = json.loads(stated[COLUMNS])
    except BundleError as error:
        return [error.message]
    except (ValueError, KeyError):
        return ["It does not say how its columns of texts are read."]
    texts = [c.name for c in described.schema.embedded if c.type is SemanticType.TEXT]
    right = sorted(read) == sorted(texts) and set(read.values()) <= known
    return [] if right else ["Its readers are not those of its columns of texts."]


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found += _nodes(inner)
    return found


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    found = list(graph.initializer)
    for node in _nodes(graph):
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
    return found


def _check_program(folder: Path, described: BundleSpec) -> list[Finding]:
    """A program that was changed together with its hash is found where this version is the one that wrote it."""
    if described.versions.get("tidemill") != __version__:
        return []
    expected = programs_of(described.schema)
    return [
        Finding(name, "It is not the program that this version of Tidemill writes.")
        for name, text in expected.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode("utf-8")
    ]


def _check_reference(folder: Path, described: BundleSpec) -> list[Finding]:
    """An older bundle has none, which is no fault."""
    try:
        held = reference.read_reference(folder)
    except BundleError as error:
        return [Finding(reference.NAME, error.message)]
    schema = described.schema
    wanted = {c.name for c in schema.features if c.type is not SemanticType.IMAGE}
    if schema.has_images:
        wanted = set(PROPERTIES)
    if held is not None and {c.name for c in held.features} != wanted:
        return [Finding(reference.NAME, "It describes other columns than the bundle has.")]
    return []


def _check_golden(folder: Path, described: BundleSpec) -> list[Finding]:
    try:
        inputs, wanted = golden.parse((folder / golden.NAME).read_bytes())
    except BundleError as error:
        return [Finding(golden.NAME, error.message)]
    try:
        run = session(folder / _MODEL)
        got: dict[str, NDArray[Any]] = dict(
            zip([o.name for o in run.get_outputs()], run.run(None, inputs), strict=True)
        )
    except _RUNTIME_ERRORS as error:
        return [Finding(_MODEL, f"onnxruntime can't run it ({str(error).splitlines()[0]}).")]
    if set(got) != set(wanted):
        return [Finding(golden.NAME, "It holds other outputs than the graph gives.")]
    bar = float(described.parity.get("bars", {}).get("max_abs_dp", MAX_DP))
    return [Finding(golden.NAME, m) for m in _differences(wanted, got, bar)]


_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.InvalidGraph,
    _STATE.InvalidProtobuf,
    _STATE.NotImplemented,
    _STATE.RuntimeException,
)


def _differences(wanted: dict[str, Any], got: dict[str, Any], bar: float) -> list[str]:
    out: list[str] = []
    if CONFIDENCE in wanted:
        sure = np.abs(wanted[CONFIDENCE] - got[CONFIDENCE]) <= _GOLDEN_SLACK * bar
        if not sure.all() or np.any(wanted[PREDICTION] != got[PREDICTION]):
            out.append("The graph reads other texts than it did when it was written.")
        return out
    if PREDICTION in wanted:
        want, have = wanted[PREDICTION].astype(np.float64), got[PREDICTION].astype(np.float64)
        scale = np.maximum(np.abs(want), 0.1 * np.ptp(want))
        if want.shape != have.shape or np.any(~(np.abs(want - have) <= _GOLDEN_SLACK * RTOL * scale)):
            out.append("The graph gives other values than it did when it was written.")
        return out
    want, have = wanted[PROBABILITIES], got[PROBABILITIES]
    if want.shape != have.shape or np.any(~(np.abs(want - have) <= _GOLDEN_SLACK * bar)):
        out.append("The graph gives other probabilities than it did when it was written.")
    elif np.any(wanted[LABEL] != got[LABEL]):
        out.append("The graph gives other labels than it did when it was written.")
    return out
