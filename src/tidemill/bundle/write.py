"""Builds a bundle: proves the graph, measures it, writes the folder as a whole or not at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import platform
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill import __version__
from tidemill.bundle import card, golden, manifest, spec
from tidemill.bundle.assemble import input_names
from tidemill.bundle.evidence import Evidence, measure
from tidemill.bundle.folder import atomic_folder, check_replaceable
from tidemill.bundle.graph import IR_VERSION, ML_OPSET, OPSET
from tidemill.bundle.latency import BATCHES, Performance, profile, session
from tidemill.bundle.parity import Proof, feed_of, prove
from tidemill.bundle.parts import Answers, Recipe
from tidemill.bundle.programs import programs_of
from tidemill.bundle.reference import file as reference
from tidemill.bundle.reference.build import build
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.serving import mlflow_files, requirements, triton_config
from tidemill.bundle.spec import BundleInfo, BundleSpec, MetricValue
from tidemill.core.schema import Columns

MODEL = "1/model.onnx"
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "lightgbm", "xgboost", "xgboost-cpu", "catboost", "torch")


def write_bundle(
    out_dir: str | Path,
    recipe: Recipe,
    *,
    columns_train: Columns,
    columns_test: Columns | None = None,
    y_test: NDArray[Any] | None = None,
    info: BundleInfo | None = None,
    evidence: Sequence[Evidence] = (),
    threads: int = 1,
) -> Bundle:
    """Prove a recipe's graph on all rows and write it as a bundle.

    Parameters
    ----------
    out_dir : path
        The folder. A new or empty one, or an older bundle, which is replaced in one step.
    recipe : Recipe
        What to ship.
    columns_train, columns_test : Columns
        All rows that are known; the graph must answer as the trained models do on every one of them.
    y_test : ndarray, optional
        Truth of the test rows; adds `Evidence` of the source ``"test"``.
    info : BundleInfo, optional
        Name, objective, lineage, notes.
    evidence : sequence of Evidence
        Scores on rows that the models did not see, for metrics and pictures.
    threads : int
        Chunks of rows that are proven at the same time.

    Returns
    -------
    Bundle
        The bundle, opened.

    Raises
    ------
    ParityError
        With the rows that differ; nothing is written.
    OptionError
        If something else than a bundle stands at ``out_dir``.
    BundleError
        If the folder can't be written; nothing is left behind.
    """
    out = Path(out_dir)
    check_replaceable(out)  # before the work, not after it
    edges = golden.choose_rows(columns_train if columns_test is None else columns_test, recipe.schema)
    tables = {"train": columns_train, **({} if columns_test is None else {"test": columns_test}), "golden": edges}
    proof = prove(recipe, tables, threads=threads)
    known = list(evidence)
    if y_test is not None and columns_test is not None:
        known.append(Evidence("test", y_test, proof.answers["test"].scores))
    with ThreadPoolExecutor(1) as side:  # the model is measured in a process of its own, and nothing needs to wait
        running = side.submit(_profile, proof, edges)
        metrics = _metrics(proof.recipe, known)
        held = _reference(proof, metrics, columns_train, known)
        performance = running.result()
    described = describe(
        proof, complete(info or BundleInfo(), out), known, edges, metrics=metrics, performance=performance
    )
    files = files_of(proof, described, known, edges, out.name)
    files[reference.NAME] = held.render()
    with atomic_folder(out) as folder:
        write_files(folder, files)
    return Bundle.open(out)


def describe(
    proof: Proof,
    info: BundleInfo,
    evidence: Sequence[Evidence],
    rows: Columns,
    *,
    batches: Sequence[int] = BATCHES,
    metrics: Sequence[MetricValue] | None = None,
    performance: Performance | None = None,
) -> BundleSpec:
    """Collect what ``bundle.json`` says: metrics with intervals, latency, memory, parity, versions.

    Metrics and performance are measured here where they are not given.
    """
    recipe = proof.recipe
    metrics = _metrics(recipe, evidence) if metrics is None else metrics
    performance = performance or _profile(proof, rows, batches)
    single = next((p.p50_ms for p in performance.curve if p.batch == 1), None)
    cost = {**info.cost, "size_bytes": len(proof.model), "latency_ms": single}
    return BundleSpec(
        info=replace(info, cost=cost),
        task=recipe.task,
        schema=recipe.schema,
        decision=recipe.decision,
        calibration=recipe.calibration,
        members=tuple({"name": m.name, "weight": float(m.weight), "parts": len(m.parts)} for m in recipe.members),
        metrics=tuple(metrics),
        parity=proof.report.to_json(),
        performance={**performance.to_json(), "machine": f"{platform.system()} {platform.machine()}"},
        opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        ir_version=IR_VERSION,
        versions={"tidemill": __version__, "python": platform.python_version(), **_versions()},
        decode=recipe.decoding,
    )


def _profile(proof: Proof, rows: Columns, batches: Sequence[int] = BATCHES) -> Performance:
    return profile(proof.model, feed_of(input_names(proof.recipe.schema), rows), batches=batches)


def _metrics(recipe: Recipe, evidence: Sequence[Evidence]) -> list[MetricValue]:
    return [v for e in evidence for v in measure(e, recipe.task, recipe.decision)]


def _reference(
    proof: Proof, metrics: Sequence[MetricValue], columns: Columns, evidence: Sequence[Evidence]
) -> reference.Reference:
    """How inputs look in training, and answers on rows that the model did not see, where there are any."""
    recipe = proof.recipe
    if not evidence:
        return build(recipe.schema, recipe.task, columns, proof.answers["train"])
    source, shown = last_answers(recipe, evidence)
    return build(recipe.schema, recipe.task, columns, shown, source=source, metrics=metrics)


def last_answers(recipe: Recipe, evidence: Sequence[Evidence]) -> tuple[str, Answers]:
    """Answers on the last of the rows that the model did not see, and what these are called; there are some."""
    last = evidence[-1]
    codes = recipe.decide(last.scores) if recipe.task.kind.has_labels else None
    return last.source, Answers(np.asarray(last.scores, dtype=np.float32), codes)


def complete(info: BundleInfo, out: Path) -> BundleInfo:
    """Fill in name and time where they are not given."""
    now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    name = info.name or out.name.removesuffix(".tm") or "model"
    return replace(info, name=name, created_at=info.created_at or now)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def files_of(
    proof: Proof,
    described: BundleSpec,
    evidence: Sequence[Evidence],
    edges: Columns,
    folder: str,
    *,
    tensors: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, bytes]:
    """All files but the manifest, by path; ``tensors`` as `describe` takes its ``feed``."""
    feed = dict(tensors or feed_of(input_names(proof.recipe.schema), edges))
    run = proof.run or session(proof.model)
    outputs: Mapping[str, NDArray[Any]] = dict(
        zip([o.name for o in run.get_outputs()], run.run(None, feed), strict=True)
    )
    # The same model gives the same id, whoever builds it.
    model_uuid = uuid.UUID(hashlib.sha256(proof.model).hexdigest()[:32]).hex
    shown = card.pictures(described.task, evidence[-1]) if evidence else {}
    text = {
        "README.md": card.card(described, list(shown), folder=folder, model_bytes=len(proof.model)),
        "run.py": programs_of(described.schema)["run.py"],
        "requirements.txt": "".join(f"{r}\n" for r in requirements(described.schema)),
        "config.pbtxt": triton_config(described, tensors=tensors),
        **{f"plots/{name}": picture for name, picture in shown.items()},
        **{f"1/{name}": content for name, content in mlflow_files(described, model_uuid).items()},
    }
    return {
        MODEL: proof.model,
        spec.NAME: described.render(),
        golden.NAME: golden.render(feed, outputs),
        **{name: content.encode("utf-8") for name, content in text.items()},
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and the manifest that lists them."""
    entries = {name: manifest.FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    for name, data in {**files, manifest.NAME: manifest.render(entries)}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
