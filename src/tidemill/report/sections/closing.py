"""Data checks, constraints, the bundle, and how to do it again."""

from __future__ import annotations

import shlex
from typing import Any

from tidemill.core.schema import Schema
from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Block, Cell, Code, Note, Section, Table, Text
from tidemill.report.words import number, size

_SEVERITY = {"error": "bad", "critical": "bad", "high": "bad", "warning": "warn", "warn": "warn", "medium": "warn"}


def checks(analysis: Analysis) -> Section:
    """What was found in the data before training."""
    findings = analysis.facts.findings
    if not findings:
        return Section("checks", "Data checks", [Note("The checks of the data found nothing to report.")])
    rows: list[list[str | Cell]] = [
        [
            Cell(str(f.get("severity", "")), _SEVERITY.get(str(f.get("severity", "")).lower(), "")),
            str(f.get("column") or "–"),
            str(f.get("message", "")),
            str(f.get("hint") or "–"),
        ]
        for f in findings
    ]
    caption = (
        "What was seen in the data before training. Look at the severe ones first: a leak makes every figure above too "
        "good."
    )
    return Section("checks", "Data checks", [Table(["Severity", "Column", "What", "What to do"], rows, caption)])


def constraints(analysis: Analysis) -> Section:
    """Which bounds are kept."""
    found = analysis.facts.constraints
    if not found:
        return Section("constraints", "Constraints", [Note("The objective has no constraints.")])
    rows: list[list[str | Cell]] = [
        [
            str(c.get("constraint", "")),
            number(float(c["value"]), 4) if c.get("value") is not None else "not known",
            Cell("satisfied", "good") if c.get("satisfied") else Cell("not satisfied", "bad"),
        ]
        for c in found
    ]
    caption = (
        "The bounds of the objective. One that is not satisfied means that no candidate kept them all; this is the "
        "nearest."
    )
    if all(c.get("satisfied") for c in found):
        caption = "The bounds of the objective, all of them kept. Look at how near to its bound a value is."
    return Section("constraints", "Constraints", [Table(["Bound", "Measured", ""], rows, caption, frozenset({1}))])


def bundle(analysis: Analysis) -> Section:
    """Facts of the shipped folder."""
    facts = analysis.facts.bundle
    if not facts:
        return Section("bundle", "The bundle", [Note("No bundle had been written when this report was made.")])
    rows = [[_name(key), _show(key, value)] for key, value in facts.items()]
    caption = "What is shipped. The hash tells whether a folder that you have is this one; parity is how far the ONNX graph is from the trained model."  # noqa: E501
    return Section("bundle", "The bundle", [Table(["Fact", "Value"], rows, caption)])


def _name(key: str) -> str:
    words = key.removesuffix("_ms").removesuffix("_bytes").replace("_", " ")
    return (words[:1].upper() + words[1:]) + (", ms" if key.endswith("_ms") else "")


def _show(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return size(float(value)) if key.endswith("_bytes") else number(float(value))
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_show(str(k), v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_show(key, v) for v in value)
    return "–" if value is None else str(value)


def _alone(schema: Schema) -> str:
    if schema.has_images:
        return "with onnxruntime, numpy and Pillow alone: python run.py photos/ out.csv"
    if schema.has_texts:
        return "with onnxruntime, numpy and tokenizers alone: python run.py in.csv out.csv"
    if schema.embedded:
        return "with what its requirements.txt names alone: python run.py in.csv out.csv"
    return "with onnxruntime and numpy alone: python run.py in.csv out.csv"


def reproduce(analysis: Analysis) -> Section:
    """Commands that do it again."""
    facts = analysis.facts
    study, folder = shlex.quote(facts.study), shlex.quote(str(facts.bundle.get("path", "BUNDLE")))
    lines = [
        "# the trials and what they cost",
        f"tidemill leaderboard {study}",
        f"tidemill pareto {study}",
        "",
        "# this report, or one for another objective; nothing is trained again",
        f"tidemill report {study} --out report.html",
        f"tidemill reobjective {study} --objective {shlex.quote(facts.objective)} --out OTHER",
        "",
        "# check the bundle, predict with it, measure it on rows with known answers",
        f"tidemill verify {folder}",
        f"tidemill predict {folder} DATA.csv --out predictions.csv",
        f"tidemill evaluate {folder} DATA.csv",
    ]
    blocks: list[Block] = [
        Text(f"The study is {facts.study!r}; resampling in this report used the seed {facts.seed}."),
        Code("\n".join(lines)),
        Text(f"The bundle also runs {_alone(facts.schema)} in its folder."),
    ]
    return Section("reproduce", "How to reproduce", blocks)
