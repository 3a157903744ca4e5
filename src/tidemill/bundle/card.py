"""The model card: a bundle's ``README.md`` and its pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.bundle import charts
from tidemill.bundle.evidence import Evidence
from tidemill.bundle.runner.beams import NETS
from tidemill.bundle.serving import requirements
from tidemill.bundle.spec import BundleSpec, MetricValue
from tidemill.core.schema import Column
from tidemill.core.task import Task, TaskKind

_MOST_COLUMNS = 200
_SOURCES = {
    "test": "rows held back for testing",
    "out_of_fold": "training rows, each predicted by models that did not see it",
}
_LEFT_OUT = ("_micro", "_weighted", "precision_macro", "recall_macro")
"""Endings of metrics that stand in ``bundle.json`` alone."""
_HOW = {
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false (1 or 0)",
    "category": "text, one of a set",
    "text": "free text",
    "image": "image",
    "datetime": "date; seconds since 1970-01-01 UTC in the graph",
}


_LIMITS_OF_TABLES = (
    "- Values outside of the ranges above were never seen; categories that are new are treated as unknown.",
    "- It is not a cause: a column that predicts need not be one that changes the outcome.",
)
_LIMITS_OF_TEXTS = (
    "- It answers every text, also an empty one and one of another language: then its answer means nothing.",
    "- What stands behind the first part of a long text is not read.",
)
_LIMITS_OF_EMBEDDED = (
    *_LIMITS_OF_TABLES,
    "- What stands behind the first part of a long text is not read; an empty text and an image that is missing say "
    "nothing.",
)
_LIMITS_OF_LINES = (
    "- It reads every image as one line, also one that holds several lines or none: then its answer means nothing.",
    "- A character that did not stand in its training lines is never written.",
    "- Another hand, typeface or scan than in training may be read worse.",
)
_LIMITS_OF_IMAGES = (
    "- It answers every image, also one that shows none of its classes: then its answer means nothing.",
    "- Another camera, light or background than in training may change its answers.",
)


def pictures(task: Task, evidence: Evidence) -> dict[str, str]:
    """SVG documents by file name."""
    if task.kind is TaskKind.RECOGNITION:
        return {}
    if task.kind is TaskKind.REGRESSION:
        value = evidence.scores[:, 0]
        return {
            "agreement.svg": charts.agreement_plot(evidence.y, value),
            "residuals.svg": charts.residual_plot(evidence.y, value),
        }
    if task.kind is TaskKind.MULTILABEL:  # every pair of a row and a label is a question of two answers
        y, p = np.asarray(evidence.y).ravel(), np.asarray(evidence.scores, dtype=np.float64).ravel()
        return {"calibration.svg": charts.calibration_plot(y, np.column_stack([1 - p, p]))}
    out = {"calibration.svg": charts.calibration_plot(evidence.y, evidence.scores)}
    if task.kind is TaskKind.BINARY:
        return {**out, "roc.svg": charts.roc_plot(evidence.y, evidence.scores)}
    return {**out, "confusion.svg": charts.confusion_plot(evidence.y, evidence.scores)}


def card(spec: BundleSpec, shown: Sequence[str], *, folder: str, model_bytes: int) -> str:
    """Write the card; ``shown`` are the names of its pictures in ``plots/``."""
    parts = [
        f"# {spec.info.name}\n\n{_question(spec)}",
        _usage(spec, folder),
        _quality(spec),
        "\n".join(f"![{name.removesuffix('.svg')}](plots/{name})" for name in shown),
        _inputs(spec),
        _making(spec),
        _running(spec, model_bytes),
        _limits(spec),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _question(spec: BundleSpec) -> str:
    task = spec.task
    if task.kind is TaskKind.RECOGNITION:
        what = f"Reads `{task.target}`, a line of text"
    elif task.kind is TaskKind.REGRESSION:
        what = f"Predicts the number `{task.target}`"
    else:
        labels = ", ".join(f"`{c}`" for c in task.classes[:12]) + (", …" if task.n_classes > 12 else "")
        what = f"Predicts `{task.target}`: {'any' if task.kind is TaskKind.MULTILABEL else 'one'} of {labels}"
        if task.positive is not None:
            what += f" (positive: `{task.positive}`)"
    made = f" Made on {spec.info.created_at[:10]} by Tidemill {spec.versions.get('tidemill', '')}."
    seen = "an image" if spec.schema.has_images else f"{len(spec.schema.features)} columns"
    if spec.schema.has_texts:
        seen = f"the text `{spec.schema.features[0].name}`"
    return f"{what}, from {seen}.{made}"


def _usage(spec: BundleSpec, folder: str) -> str:
    if spec.schema.has_images:
        return _usage_of_images(folder)
    if spec.schema.has_texts:
        return _usage_of_texts(folder)
    if spec.schema.embedded:
        return _usage_of_embedded(spec, folder)
    return (
        "## Use\n\n```bash\npip install -r requirements.txt      # onnxruntime and numpy\n"
        "python run.py in.csv out.csv\n```\n\n"
        f"```python\nimport tidemill as tm\ntm.load({folder!r}).predict(frame)          # a table or a file\n\n"
        "import mlflow\nmlflow.pyfunc.load_model("
        f"{folder + '/1'!r}).predict(frame)\n```\n\nThe folder is also a model of a Triton repository. "
        "`tidemill verify` checks every file."
    )


def _usage_of_images(folder: str) -> str:
    return (
        "## Use\n\n```bash\npip install -r requirements.txt      # onnxruntime, numpy and Pillow\n"
        "python run.py photos/ out.csv            # a folder, an image, a CSV file with a column `file`, or .npy\n"
        "```\n\n"
        f'```python\nimport tidemill as tm\ntm.load({folder!r}).predict("photos/")\n\n'
        "import onnxruntime                       # nothing else is needed where pixels are at hand\n"
        f"session = onnxruntime.InferenceSession({folder + '/1/model.onnx'!r})\n"
        'session.run(None, {"image": pixels})     # uint8, (images, height, width, 3), RGB, any size\n```\n\n'
        "The folder is also a model of a Triton repository. `tidemill verify` checks every file."
    )


def _usage_of_texts(folder: str) -> str:
    return (
        "## Use\n\n```bash\npip install -r requirements.txt      # onnxruntime, numpy, tokenizers\n"
        "python run.py in.csv out.csv\n```\n\n"
        f"```python\nimport tidemill as tm\ntm.load({folder!r}).predict(frame)          # a table or a file\n```\n\n"
        "The graph takes what the files of `readers/` make of a text: its metadata name them, and `run.py` shows how. "
        "`tidemill verify` checks every file."
    )


def _usage_of_embedded(spec: BundleSpec, folder: str) -> str:
    needed = ", ".join(r.partition(">")[0] for r in requirements(spec.schema))
    return (
        f"## Use\n\n```bash\npip install -r requirements.txt      # {needed}\n"
        "python run.py in.csv out.csv\n```\n\n"
        f"```python\nimport tidemill as tm\ntm.load({folder!r}).predict(frame)          # a table or a file\n```\n\n"
        "The graph holds the encoders of the columns that are embedded. Of a text it takes what the files of "
        "`readers/` make of it: its metadata name them, and `run.py` shows how. `tidemill verify` checks every file."
    )


def _quality(spec: BundleSpec) -> str:
    if not spec.metrics:
        return ""
    lines = ["## Quality", ""]
    if spec.info.objective:
        lines += [f"Objective: `{spec.info.objective}`", ""]
    if spec.task.kind is TaskKind.RECOGNITION:
        lines += [_decoding(spec), ""]
    for source in dict.fromkeys(m.source for m in spec.metrics):
        left_out = () if spec.task.kind is TaskKind.MULTILABEL else _LEFT_OUT  # which has few, and none twice
        chosen = [m for m in spec.metrics if m.source == source and not m.name.endswith(left_out)]
        lines += [f"On {chosen[0].rows:,} {_SOURCES.get(source, source)}; intervals are 95 %, by bootstrap:", ""]
        lines += ["| metric | value | interval | better |", "|---|---:|---:|---|"]
        lines += [_metric_line(m) for m in chosen] + [""]
    return "\n".join(lines).rstrip()


def _decoding(spec: BundleSpec) -> str:
    """Which texts the figures are about."""
    if not spec.decode:
        return "Figures are of texts of the best path (greedy decoding), as those of the study are."
    nets = spec.decode.get(NETS, 1)
    joined = f" {nets} nets find texts and weigh each other's; the graph alone reads by the first." if nets > 1 else ""
    return (
        f"Figures are of texts searched for by beams of {spec.decode['width']:,}, as this bundle answers; those of the "
        f"study are of texts of the best path.{joined}"
    )


def _metric_line(m: MetricValue) -> str:
    return f"| {m.name} | {m.value:.4g} | {m.low:.4g} – {m.high:.4g} | {'higher' if m.greater_is_better else 'lower'} |"


def _inputs(spec: BundleSpec) -> str:
    if spec.schema.has_images:
        how = "the graph resizes them itself, and what is not of the shape that it was trained on is squeezed into it."
        if spec.task.kind is TaskKind.RECOGNITION:
            how = "the graph resizes a line to one height itself, and keeps its proportions."
        return (
            "## Input\n\n`image`: uint8 pixels of shape (images, height, width, 3), red, green and blue, of any size; "
            f"{how} "
            "`run.py` turns images as their EXIF data say and puts what is transparent on white."
        )
    lines = ["## Inputs", "", "Columns are found by name; every one may have missing cells.", ""]
    lines += ["| column | what | unit | seen in training | missing |", "|---|---|---|---|---:|"]
    lines += [_input_line(c) for c in spec.schema.features[:_MOST_COLUMNS]]
    if (more := len(spec.schema.features) - _MOST_COLUMNS) > 0:
        lines.append(f"\nand {more:,} more, in `bundle.json`.")
    if left := [c for c in spec.schema if not c.type.is_feature and c.reason and c.name != spec.task.target]:
        lines += ["", "Not used: " + "; ".join(f"`{_cell(c.name)}` ({_cell(c.reason or '')})" for c in left[:50]) + "."]
    return "\n".join(lines)


def _input_line(c: Column) -> str:
    seen = ""
    if c.low is not None and c.high is not None:
        seen = f"{c.low:.6g} – {c.high:.6g}"
    elif c.distinct is not None:
        seen = f"{c.distinct:,} values"
    what = _HOW.get(c.type.value, c.type.value)
    return f"| `{_cell(c.name)}` | {what} | {_cell(c.unit or '')} | {seen} | {c.missing:.1%} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")[:80]


def _making(spec: BundleSpec) -> str:
    lines = ["## How it is made", ""]
    lines += [
        f"- {m['weight']:.1%} {m['name']} ({m['parts']} {'model' if m['parts'] == 1 else 'models'})"
        for m in spec.members
    ]
    if spec.calibration is not None and not spec.calibration.is_identity:
        lines.append(f"- Probabilities are calibrated with temperature {spec.calibration.temperature:.3g}.")
    if spec.task.kind is TaskKind.MULTILABEL:
        lines.append(f"- {_by_thresholds(spec)}")
    if spec.task.kind.is_classification:
        how = {"argmax": "the most probable class", "cost": "the class with the least expected cost"}
        tuned = "the largest product of probability and a factor of the class"
        if spec.task.kind is TaskKind.BINARY and spec.decision.threshold is not None:
            tuned = f"the positive class where its probability is above {spec.decision.threshold:.4g}"
        lines.append(f"- The label is {how.get(spec.decision.kind, tuned)}.")
    lines += [f"- {key}: {value}" for key, value in spec.info.lineage.items() if isinstance(value, (str, int, float))]
    return "\n".join(lines)


def _by_thresholds(spec: BundleSpec) -> str:
    """How each of several labels is decided, with some of the thresholds."""
    bars = spec.decision.thresholds or ()
    if not bars or set(bars) == {0.5}:
        return "Every label is given whose probability is above 0.5; they are joined with `;`."
    known = list(zip(spec.task.classes, bars, strict=True))
    shown = ", ".join(f"`{_cell(label)}` {bar:.3g}" for label, bar in known[:12])
    shown += ", …" if len(known) > 12 else ""
    return f"Every label is given whose probability is above its own threshold: {shown}; they are joined with `;`."


def _running(spec: BundleSpec, model_bytes: int) -> str:
    run, parity = spec.performance, spec.parity
    curve = " | ".join(f"{p['p50_ms']:.3g}" for p in run["latency"])
    heads = " | ".join(f"{p['batch']:,}" for p in run["latency"])
    near = (
        f"largest difference of a probability {parity['max_abs_dp']:.1e}, labels that differ: {parity['flips']}"
        if spec.task.kind.has_labels
        else f"largest relative difference {parity['max_rel']:.1e}"
    )
    if spec.task.kind is TaskKind.RECOGNITION:
        near = f"largest difference of a confidence {parity['max_abs_dp']:.1e}, texts that differ: {parity['flips']}"
    behind = (
        f"Texts are searched for by beams of {spec.decode['width']:,} behind the graph, which these times don't hold; "
        "the graph alone, as onnxruntime runs it, gives the text of the best path.\n\n" if spec.decode else ""
    )  # fmt: skip
    return (
        f"## Running it\n\nThe graph has {model_bytes / 1e6:.2f} MB. Median milliseconds for a call, on one thread of "
        f"the machine that wrote it, by rows in the call:\n\n"
        f"| {heads} |\n|{'---:|' * len(run['latency'])}\n| {curve} |\n\n"
        f"{behind}Best batch: {run['best_batch']:,} rows. A process that only answers needs "
        f"{run['peak_memory_bytes'] / 1e6:.0f} MB at most.\n\n"
        f"Before it was written, the graph was compared with the trained models on all {parity['rows']:,} rows: {near}."
    )


def _limits_of(spec: BundleSpec) -> tuple[str, ...]:
    if spec.task.kind is TaskKind.RECOGNITION:
        return _LIMITS_OF_LINES
    if spec.schema.has_texts:
        return _LIMITS_OF_TEXTS
    if spec.schema.embedded:
        return _LIMITS_OF_EMBEDDED
    return _LIMITS_OF_IMAGES if spec.schema.has_images else _LIMITS_OF_TABLES


def _limits(spec: BundleSpec) -> str:
    lines = [
        "## Limits",
        "",
        "- It repeats what was usual in its training data, including what was wrong there.",
        *_limits_of(spec),
    ]
    return "\n".join([*lines, *(f"- {note}" for note in spec.info.notes)])
