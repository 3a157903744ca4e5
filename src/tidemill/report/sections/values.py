"""For regression: truth and prediction, and the errors between them."""

from __future__ import annotations

import numpy as np

from tidemill.report.analysis import Analysis
from tidemill.report.blocks import Figure, Section, Table
from tidemill.report.figures._base import Easel
from tidemill.report.figures.errors import (
    MOST_POINTS,
    draw_error_histogram,
    draw_residuals,
    draw_truth,
    quantile_rows,
)
from tidemill.report.words import number, percent


def predictions(analysis: Analysis, easel: Easel) -> Section:
    """True against predicted, and errors against predicted."""
    evidence, task = analysis.evidence, analysis.facts.task
    assert evidence is not None
    y, predicted = np.asarray(evidence.y, np.float64), np.asarray(evidence.scores, np.float64)[:, 0]
    rng = np.random.default_rng(analysis.facts.seed)
    some = f" A sample of {number(MOST_POINTS)} rows is drawn." if len(y) > MOST_POINTS else ""
    truth = (
        "Each point is a row. Points should lie close to the dotted line; look for bends away from it, where the model "
        f"is wrong in one direction, and for a cloud that widens.{some}"
    )
    residuals = (
        "The same rows by their error. The coloured line should stay at 0 everywhere and the band be equally wide; "
        "where it leaves 0, the model is too low (above) or too high (below)."
    )
    return Section("predictions", "Predicted and true values", [
        Figure(draw_truth(easel, y, predicted, task.target, rng), truth),
        Figure(draw_residuals(easel, y, predicted, task.target, rng), residuals),
    ])  # fmt: skip


def errors(analysis: Analysis, easel: Easel) -> Section:
    """Histogram and quantiles of the error."""
    evidence = analysis.evidence
    assert evidence is not None
    y, predicted = np.asarray(evidence.y, np.float64), np.asarray(evidence.scores, np.float64)[:, 0]
    histogram = (
        "How often which error occurs. It should be narrow and even on both sides of 0; a long tail on one side means "
        "that some rows are missed badly. The outermost 1 % are not drawn."
    )
    rows = [[percent(share), number(within), number(signed)] for share, within, signed in quantile_rows(y, predicted)]
    headers = ["Share of rows", "Error is at most", "True − predicted is below"]
    caption = (
        "Quantiles of the error. Read: this share of the rows is off by no more than this, in units of the target."
    )
    return Section("errors", "How large the errors are", [
        Figure(draw_error_histogram(easel, y - predicted), histogram),
        Table(headers, rows, caption, frozenset({0, 1, 2})),
    ])  # fmt: skip
